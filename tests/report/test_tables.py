"""Tables of a run in every output: CSV that reads back, LaTeX, pages, terminals; and several runs side by side."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import smgeo.report
from smgeo.cli.tables import print_results
from smgeo.errors import SmgeoError, printable
from smgeo.report.comparison import compare_runs, draw_scores
from smgeo.report.page import encode_picture
from smgeo.report.run_tables import best_trials
from smgeo.report.schema import Provenance, parse_results
from smgeo.report.table import Column, Table, count_column, interval_column, join_tables, number_column, text_column
from smgeo.report.tables import tables_of, write_tables


@pytest.fixture
def tables(results, provenance):
    return tables_of(parse_results(results), Provenance.model_validate(provenance))


def table(name="toy", **columns):
    """A table of columns name -> values."""
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return Table.of(name, name, [Column((n,), n) for n in columns], rows)


def test_tables_hold_what_the_results_say(tables):
    assert set(tables) == {
        "scores",
        "distances",
        "comparisons",
        "cross_validation",
        "selected_features",
        "prediction_intervals",
        "search",
        "cost",
        "stages",
    }
    (scores,) = tables["scores"].frame.to_dict("records")
    assert (scores["rmse"], scores["rmse_low"], scores["rmse_high"], scores["n"]) == (0.0625, 0.05, 0.075, 1200)
    assert scores["ubrmse_low"] is None
    assert (scores["rmse_mean"], scores["rmse_mean_low"], scores["rmse_median_high"], scores["clusters"]) == (
        0.065,
        0.04,
        0.08,
        3,
    )
    assert tables["comparisons"].frame[["low", "high"]].values.tolist() == [[-0.01, 0.02]]
    chosen = tables["selected_features"].frame
    assert dict(zip(chosen["feature"], chosen["folds chosen"], strict=True)) == {"b": 3, "a": 1, "c": 1}
    (cost,) = tables["cost"].frame.to_dict("records")
    assert cost == {
        "model": "rf",
        "search minutes": 4.0,
        "search peak MB": 3000,
        "fit minutes": 1.5,
        "fit peak MB": 1500,
        "rows": 900,
    }
    trials = tables["search"].frame
    assert json.loads(trials["params"][1]) == {"trees": 9, "rate": 0.00123456}
    assert np.isnan(trials["validation_rmse"][2])


def test_headings_of_files_are_those_that_users_know(tables):
    heads = {name: ",".join(t.frame.columns) for name, t in tables.items() if "files" in t.outputs}
    assert heads == {
        "scores": "model,part,stations,rmse_mean,rmse_mean_low,rmse_mean_high,rmse_median,rmse_median_low,rmse_median_high,"
        "ubrmse_mean,ubrmse_mean_low,ubrmse_mean_high,ubrmse_median,ubrmse_median_low,ubrmse_median_high,"
        "bias_mean,bias_mean_low,bias_mean_high,bias_median,bias_median_low,bias_median_high,"
        "r_mean,r_median,rmse,rmse_low,rmse_high,ubrmse,ubrmse_low,ubrmse_high,bias,bias_low,bias_high,r,r_low,r_high,n,clusters,"
        "stations_of_few_rows",
        "distances": "from,number,km_min,km_median,km_max,within_1_km,within_100_m,shared_pixels",
        "comparisons": "first,second,rmse_first,rmse_second,difference,low,high,stations_first_better,stations_second_better,effect,"
        "p_value,p_adjusted,n,stations,clusters",
        "cross_validation": "model,method,folds,r2_mean_of_folds,r2_pooled,r2_station_means,rmse_pooled,n,stations",
        "selected_features": "model,feature,folds chosen,folds",
        "prediction_intervals": "model,level,by,group,covered,covered_stations,covered_groups,width,stations,rows",
        "search": "model,trial,status,epochs,params,validation_rmse",
        "cost": "model,search minutes,search peak MB,fit minutes,fit peak MB,rows",
    }


def test_one_table_gives_page_and_terminal_their_columns_and_rows(tables):
    intervals = tables["prediction_intervals"]
    page, terminal = intervals.on("page"), intervals.on("terminal")
    assert [row[:4] for row in page.text] == [["rf", "90 %", "all", "92.5 %"], ["rf", "90 %", "network: A", "100.0 %"]]
    assert [c.heading for c in terminal.columns] == [
        "model",
        "level",
        "rows covered",
        "mean of stations",
        "mean of groups",
        "mean width",
        "stations",
        "rows",
    ]
    assert terminal.text == [["rf", "90 %", "92.5 %", "87.5 %", "85.0 %", "0.250", "3", "1,200"]]
    search = tables["search"].on("page")
    assert [r.marked for r in search.rows] == [False, True, False]
    assert search.text[1] == ["rf", "1", "finished", "3", "trees 9, rate 0.001235", "0.0700"]
    assert search.text[2][-1] == "–"
    assert tables["scores"].rows[0].marked
    assert tables["scores"].units == "m3 m-3"


def test_distances_have_a_row_for_stations_and_one_for_pixels(tables):
    found = tables["distances"]
    assert found.text == [
        ["test stations", "1", "0.05", "0.05", "0.05", "1", "0", "clay 1, slope 0"],
        ["pixels of the grid cube", "2,000", "–", "12.35", "1,234.50", "–", "–", "–"],
    ]
    assert [row.marked for row in found.rows] == [True, False]
    assert found.finding == "The test stations lie beside training stations."
    first = found.frame.to_dict("records")[0]
    assert json.loads(first["shared_pixels"]) == {"clay": 1, "slope": 0}


def test_pages_lay_out_no_table_by_hand():
    templates = Path(smgeo.report.__file__).parent / "templates"
    assert [p.name for p in sorted(templates.iterdir()) if "<table" in p.read_text(encoding="utf-8")] == [
        "tables.html.j2"
    ]


def test_terminal_prints_the_same_cells(results):
    results["models"]["[rf]"] = results["models"]["rf"]
    out = io.StringIO()
    print_results(parse_results(results), Console(file=out, width=160))
    text = out.getvalue()
    for words in (
        "Scores (m3 m-3)",
        "0.050 to 0.075",
        "1,200",
        "1 : 2",
        "The test cannot tell: with 3 clusters of stations",
        "leave-location-out",
        "87.5 %",
        "Distance to the nearest training station (km)",
        "1,234.50",
        "clay 1, slope 0",
        "The test stations lie beside training stations.",
    ):
        assert words in text
    assert "[rf]" in text
    assert "finished" not in text  # trials are printed by `smgeo tune`


def test_best_trials_come_first_with_their_nodes(results):
    search = parse_results(results).search["rf"]
    shown = best_trials("rf", search, {0: "n1", 1: "n2", 2: "n1"}).on("terminal")
    assert "2 best of 3 trials" in shown.title
    assert [c.heading for c in shown.columns][:3] == ["model", "trial", "node"]
    assert [row[1:3] for row in shown.text] == [["1", "n2"], ["0", "n1"]]


def test_files_replace_those_of_an_earlier_run_and_read_back(tables, tmp_path):
    folder = tmp_path / "tables"
    write_tables([table("old", a=[1], b=[2])], folder)
    write_tables(tables.values(), folder)
    assert not (folder / "old.csv").exists()
    assert not (folder / "stages.csv").exists()  # a table of the page only
    index = pd.read_csv(folder / "index.csv").set_index("table")["rows"]
    assert (index["scores"], index["selected_features"]) == (1, 3)
    assert pd.read_csv(folder / "scores.csv")["rmse"].tolist() == [0.0625]
    assert {p.suffix for p in folder.iterdir()} == {".csv", ".tex"}


def test_a_folder_of_somebody_else_is_not_replaced(tables, tmp_path):
    (tmp_path / "thesis.docx").write_text("three years of work")
    with pytest.raises(SmgeoError, match="is not what would replace it"):
        write_tables(tables.values(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.docx"]


def test_p_values_keep_four_digits(results):
    results["comparisons"][0] |= {"p_value": 0.00012, "p_adjusted": None}
    table = tables_of(parse_results(results))["comparisons"]
    cells = dict(zip([c.heading for c in table.columns], table.text[0], strict=True))
    assert (cells["p"], cells["p (Holm)"]) == ("0.0001", "–")


def test_latex_escapes_text_and_rounds_numbers():
    columns = [
        text_column("model"),
        number_column("rmse", "RMSE"),
        interval_column("RMSE 95 % interval", ""),
        count_column("n", "rows"),
    ]
    records = [
        {"model": "ann_50%", "rmse": 0.06251, "low": 0.05, "high": 0.0751, "n": 1200},
        {"model": "b&c", "rmse": np.nan, "low": np.nan, "high": np.nan, "n": 3},
    ]
    text = Table.of("toy", "Toy", columns, records).to_latex()
    assert r"ann\_50\% & 0.063 & 0.050 to 0.075 & 1,200 \\" in text
    assert r"b\&c & – & – & 3 \\" in text
    assert r"model & RMSE & RMSE 95 \% interval & rows \\" in text
    assert text.startswith(r"\begin{tabular}{lrrr}")
    assert r"\toprule" in text


def test_tables_of_runs_are_joined_by_the_names_of_columns():
    first = table(model=["rf"], rmse=[0.1])
    columns = [*first.columns, interval_column("interval", ""), count_column("gap_days")]
    records = [
        {"model": "ann", "rmse": 0.2, "low": 0.1, "high": 0.3, "gap_days": 30},
        {"model": "gru", "rmse": 0.3, "low": 0.2, "high": 0.4, "gap_days": 58},
    ]
    second = Table.of("toy", "Toy", columns, records)
    joined = join_tables({"a": first, "b": second}, text_column("run")).frame
    assert joined.columns.tolist() == ["run", "model", "rmse", "low", "high", "gap_days"]
    assert joined["run"].tolist() == ["a", "b", "b"]
    assert joined.loc[1:, ["low", "high", "gap_days"]].values.tolist() == [[0.1, 0.3, 30], [0.2, 0.4, 58]]
    assert joined.loc[0, ["low", "high", "gap_days"]].isna().all()


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
    with pytest.raises(SmgeoError, match="is not a finished run"):
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


HOSTILE_NAMES = [
    "$x^$",
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "[x]",
    "*x",
    r"\input{x}",
    "100 % a_b & c # {}",
    "a\n\nb",
    "<script>x</script>",
    "x\x1b[31m",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_is_text_in_every_table(tmp_path, name):
    table = Table.of("t", "T", [text_column("station"), number_column("rmse")], [{"station": name, "rmse": -0.5}] * 2)
    write_tables([table], tmp_path / "tables")
    (cell, number), _ = list(csv.reader((tmp_path / "tables" / "t.csv").open(newline="", encoding="utf-8")))[1:]
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell.removeprefix("'") == printable(name)
    assert number == "-0.5"  # a number stays one
    latex = (tmp_path / "tables" / "t.tex").read_text(encoding="utf-8")
    body = latex.split("\\midrule\n")[1].split("\\bottomrule")[0].strip().splitlines()
    assert len(body) == 2
    assert all(line.endswith(r"& -0.500 \\") for line in body)
    assert r"\input" not in latex
    assert "\x1b" not in latex
    assert not body[0].startswith(("[", "*"))  # it would belong to the line break before it
    assert not re.search(r"(?<!\\)[%$#_]", body[0])


@pytest.mark.parametrize("name", ["$x^$", r"$\frac{$", "<script>x</script>"])
def test_a_hostile_name_is_text_in_pictures(name):
    scores = pd.DataFrame(
        {"run": [name], "model": ["rf"], "part": ["test"], "rmse": [0.05], "rmse_low": [0.04], "rmse_high": [0.06]}
    )
    figure = draw_scores(scores, name)
    assert encode_picture(figure).startswith(b"\x89PNG")
    assert name in figure.axes[0].get_xlabel()
