"""results.json: files of today and of before fit the schema, and what does not fit is named."""

import copy
import json

import pytest

from smgeo.errors import SmgeoError
from smgeo.report.schema import SCHEMA_VERSION, Results, check_results, parse_results, read_provenance, read_results

MEDIANS = {"rmse_median": 0.06, "ubrmse_median": 0.05, "bias_median": 0.0, "r_median": 0.8}
SCORES = {"rmse": 0.0625, "ubrmse": 0.05, "bias": -0.01, "r": None, "n": 1200, "stations": 3, "per_station": MEDIANS}
RESULTS = {
    "name": "toy",
    "target": {"variable": "sm", "units": "m3 m-3", "depth_m": [0.0, 0.1]},
    "models": {"rf": {"test": SCORES}},
    "intervals": {"rf": {"test": {n: [0.05, None] for n in ("rmse", "ubrmse", "bias", "r")}}},
    "split": {
        "train": ["N/a", "N/b"],
        "validation": [],
        "test": ["N/c"],
        "forced": {"N/a": ["min clay"]},
        "forced_share": 0.3333,
    },
    "search": {
        "rf": {
            "best": 0,
            "trials": [
                {"trial": 0, "status": "finished", "epochs": 1, "params": {"trees": 5}, "validation_rmse": 0.07}
            ],
        }
    },
}


def changed(*path, value):
    """The results with another value at a path of keys."""
    out = copy.deepcopy(RESULTS)
    at = out
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return out


def test_results_are_written_with_their_version_and_read_back_with_nothing_lost(tmp_path):
    written = check_results(RESULTS)
    assert next(iter(written.items())) == ("schema_version", SCHEMA_VERSION)
    assert {k: v for k, v in written.items() if k != "schema_version"} == RESULTS
    (tmp_path / "results.json").write_text(json.dumps(written))
    for path in (tmp_path, tmp_path / "results.json"):
        found = read_results(path)
        assert found.model_dump(mode="json", exclude_unset=True) == written
    assert (found.units, found.models["rf"]["test"].r) == ("m3 m-3", None)
    split = found.split.to_split()
    assert (split.train, split.test, split.forced) == (("N/a", "N/b"), ("N/c",), {"N/a": ("min clay",)})


def test_a_file_without_a_version_is_version_0_with_the_same_keys():
    found = parse_results(RESULTS)
    assert found.schema_version == 0
    assert found == Results(**{**dict(parse_results(check_results(RESULTS))), "schema_version": 0})


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (changed("models", "rf", "test", "rmse", value="low"), "models.rf.test.rmse: needs a number.*'low'"),
        (changed("models", "rf", "test", "n", value=1.5), "models.rf.test.n: needs a whole number"),
        (changed("models", "rf", "test", "r2", value=1.0), "models.rf.test: unknown key 'r2'"),
        (changed("models", "rf", "tset", value=SCORES), "models.rf.tset"),
        (changed("intervals", "rf", "test", "r", value=[0.1]), "intervals.rf.test.r: needs 2 values"),
        (changed("intervals", "rf", "test", "r", value=[0.1, float("nan")]), "intervals.rf.test.r.1"),
        (changed("search", "rf", "trials", value=[{}]), "search.rf.trials.0.trial is missing"),
        (changed("modles", value={}), "unknown key 'modles'; did you mean 'models'"),
        (changed("schema_version", value=SCHEMA_VERSION + 1), "schema_version is 2.*install a later version"),
        ({"models": {}}, "name is missing"),
    ],
)
def test_what_does_not_fit_is_refused_with_file_and_key(results, words, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    with pytest.raises(SmgeoError, match=words) as error:
        read_results(tmp_path)
    assert str(error.value).startswith(f"{file}: ")
    if "schema_version" not in results:
        with pytest.raises(SmgeoError, match=words):
            check_results(results)


def test_files_that_are_not_there_or_not_json(tmp_path):
    with pytest.raises(SmgeoError, match=r"is not a finished run \(no results.json\)"):
        read_results(tmp_path)
    with pytest.raises(SmgeoError, match=r"is not a finished run \(no provenance.json\)"):
        read_provenance(tmp_path / "gone")
    (tmp_path / "results.json").write_text('{"name": ')
    with pytest.raises(SmgeoError, match=r"results.json is not JSON"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(SmgeoError, match="expected a JSON object, found a list"):
        read_results(tmp_path)
