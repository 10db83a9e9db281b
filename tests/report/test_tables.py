"""Tables of a run: what they hold, CSV that reads back, LaTeX that compiles; and several runs side by side."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from smgeo.errors import SmgeoError
from smgeo.report.comparison import compare_runs
from smgeo.report.tables import tables_of, to_latex, to_text, write_tables

SCORES = {"rmse": 0.0625, "ubrmse": 0.05, "bias": -0.01, "r": None, "n": 1200, "stations": 3}
MEDIANS = {"rmse_median": 0.06, "ubrmse_median": 0.05, "bias_median": 0.0, "r_median": 0.8}
RESULTS = {
    "models": {"rf": {"test": {**SCORES, "per_station": MEDIANS}}},
    "intervals": {"rf": {"test": {"rmse": [0.05, 0.075], "ubrmse": [None, None]}}},
    "comparisons": [{"first": "rf", "second": "ann", "interval": [-0.01, 0.02], "p_value": 0.25}],
    "cross_validation": {
        "rf_selected": {
            "method": "leave-location-out",
            "folds": 3,
            "r2_pooled": 0.5,
            "selected": [["a", "b"], ["b"], ["b", "c"]],
        }
    },
    "training": {"rf": {"rows": 900}},
}
PROVENANCE = {
    "stages": {
        "model rf": {"seconds": 90, "peak_memory_bytes": 1_500_000_000},
        "search rf": {"seconds": 240, "peak_memory_bytes": 3_000_000_000},
    }
}


def test_tables_hold_what_the_results_say():
    tables = tables_of(RESULTS, PROVENANCE)
    assert set(tables) == {"scores", "comparisons", "cross_validation", "selected_features", "cost"}
    (scores,) = tables["scores"].to_dict("records")
    assert (scores["rmse"], scores["rmse_low"], scores["rmse_high"], scores["n"]) == (0.0625, 0.05, 0.075, 1200)
    assert scores["ubrmse_low"] is None
    assert tables["comparisons"][["low", "high"]].values.tolist() == [[-0.01, 0.02]]
    chosen = tables["selected_features"]
    assert dict(zip(chosen["feature"], chosen["folds chosen"], strict=True)) == {"b": 3, "a": 1, "c": 1}
    (cost,) = tables["cost"].to_dict("records")
    assert cost == {
        "model": "rf",
        "search minutes": 4.0,
        "search peak MB": 3000,
        "fit minutes": 1.5,
        "fit peak MB": 1500,
        "rows": 900,
    }


def test_files_replace_those_of_an_earlier_run_and_read_back(tmp_path):
    folder = tmp_path / "tables"
    write_tables({"old": pd.DataFrame({"a": [1], "b": [2]})}, folder)
    write_tables(tables_of(RESULTS, PROVENANCE), folder)
    assert not (folder / "old.csv").exists()
    index = pd.read_csv(folder / "index.csv").set_index("table")["rows"]
    assert (index["scores"], index["selected_features"]) == (1, 3)
    assert pd.read_csv(folder / "scores.csv")["rmse"].tolist() == [0.0625]
    assert {p.suffix for p in folder.iterdir()} == {".csv", ".tex"}


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.docx").write_text("three years of work")
    with pytest.raises(SmgeoError, match="is not what would replace it"):
        write_tables(tables_of(RESULTS, PROVENANCE), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.docx"]


def test_p_values_keep_four_digits():
    text = to_text(pd.DataFrame({"first": ["rf"], "p_value": [0.00012], "p_adjusted": [None]}))
    assert text.values.tolist() == [["rf", "0.0001", "–"]]


def test_latex_escapes_text_and_rounds_numbers():
    values = {"rmse": [0.06251, np.nan], "rmse_low": [0.05, np.nan], "rmse_high": [0.0751, np.nan], "n": [1200, 3]}
    text = to_latex(pd.DataFrame({"model": ["ann_50%", "b&c"], **values}))
    assert r"ann\_50\% & 0.063 & 0.050 to 0.075 & 1,200 \\" in text
    assert r"b\&c & – & – & 3 \\" in text
    assert r"model & RMSE & RMSE 95 \% interval & rows \\" in text
    assert text.startswith(r"\begin{tabular}{lrlr}")
    assert r"\toprule" in text


@pytest.fixture(scope="module")
def runs(station_table, table_study, tmp_path_factory):
    """Two runs of the same rows, the second with fewer of the test days."""
    folder = tmp_path_factory.mktemp("runs")
    rows = station_table()
    first = table_study(folder / "a", rows)
    linear = {"LinearRegression": {}}
    second = table_study(folder / "b", rows[rows["day"] <= "2020-02-20"], models=linear, importance=None)
    return [shutil.copytree(run.folder, folder / name) for run, name in ((first, "forest"), (second, "linear"))]


def test_runs_side_by_side_compare_models_on_rows_that_are_in_both(runs, station_table, tmp_path):
    tables = compare_runs(runs, tmp_path / "both.html")
    scores = tables["scores"]
    test = scores[scores["part"] == "test"].set_index("run")
    truth = {p.name: json.loads((p / "results.json").read_text())["models"] for p in runs}
    assert test.loc["forest", "rmse"] == truth["forest"]["HistGradientBoostingRegressor"]["test"]["rmse"]
    assert test.loc["linear", "rmse"] == truth["linear"]["LinearRegression"]["test"]["rmse"]
    (pair,) = tables["comparisons"].to_dict("records")
    assert (pair["first"], pair["second"]) == ("forest/HistGradientBoostingRegressor", "linear/LinearRegression")
    days = station_table()["day"]
    assert pair["n"] == int(((days >= "2020-02-10") & (days <= "2020-02-20")).sum())
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert "forest/HistGradientBoostingRegressor" in page
    assert page.count("data:image/png;base64,") == 1
    assert "http://" not in page
    assert "https://" not in page
    kept = pd.read_csv(tmp_path / "both_tables" / "scores.csv")
    assert kept["run"].tolist() == ["forest", "forest", "linear", "linear"]


def test_a_report_leaves_the_tables_of_its_run(runs):
    table = pd.read_csv(runs[0] / "tables" / "scores.csv").set_index("part")
    scores = json.loads((runs[0] / "results.json").read_text())["models"]["HistGradientBoostingRegressor"]
    assert table.loc["test", "rmse"] == pytest.approx(scores["test"]["rmse"], rel=1e-12)
    assert (runs[0] / "tables" / "importance.tex").is_file()


def test_runs_that_can_not_be_told_apart_or_compared_are_refused(runs, tmp_path):
    with pytest.raises(SmgeoError, match="two runs are in folders named 'forest'"):
        compare_runs([runs[0], runs[0]], tmp_path / "x.html")
    with pytest.raises(SmgeoError, match="holds no finished run"):
        compare_runs([runs[0], tmp_path], tmp_path / "x.html")
    with pytest.raises(SmgeoError, match="is an HTML file"):
        compare_runs(runs, tmp_path / "x")
    other = shutil.copytree(runs[1], tmp_path / "percent")
    results = json.loads((other / "results.json").read_text())
    results["target"]["units"] = "percent"
    (other / "results.json").write_text(json.dumps(results))
    with pytest.raises(SmgeoError, match="forest in m3 m-3, percent in percent"):
        compare_runs([runs[0], other], tmp_path / "x.html")
    assert not list(tmp_path.glob("x*"))
