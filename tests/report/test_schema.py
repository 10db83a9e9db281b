"""results.json: files of today and of before fit the schema, and what does not fit is named."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from smgeo.errors import SmgeoError
from smgeo.report.schema import (
    SCHEMA_VERSION,
    Entry,
    Provenance,
    Results,
    check_results,
    parse_results,
    read_provenance,
    read_results,
)


def change(results, *path, value):
    """Put another value at a path of keys."""
    at = results
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value


def test_results_are_written_with_their_version_and_read_back_with_nothing_lost(results, tmp_path):
    written = check_results(results)
    assert next(iter(written.items())) == ("schema_version", SCHEMA_VERSION)
    assert {k: v for k, v in written.items() if k != "schema_version"} == results
    (tmp_path / "results.json").write_text(json.dumps(written))
    for path in (tmp_path, tmp_path / "results.json"):
        found = read_results(path)
        assert found.model_dump(mode="json", exclude_unset=True) == written
    assert (found.units, found.models["rf"]["test"].r) == ("m3 m-3", None)
    split = found.split.to_split()
    assert (split.train, split.test, split.forced) == (("N/a", "N/b"), ("N/c",), {"N/a": ("min clay",)})
    assert split.in_buffer == ("N/d", "N/e")
    assert found.split.groups.text == "places in clusters, no farther apart than 20 km"


def test_a_file_without_a_version_is_version_0_with_the_same_keys(results):
    found = parse_results(results)
    assert found.schema_version == 0
    assert found == Results(**{**dict(parse_results(check_results(results))), "schema_version": 0})


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["models", "rf", "test", "rmse"], "low", "models.rf.test.rmse: needs a number.*'low'"),
        (["models", "rf", "test", "n"], 1.5, "models.rf.test.n: needs a whole number"),
        (["models", "rf", "test", "r2"], 1.0, "models.rf.test: unknown key 'r2'"),
        (["models", "rf", "tset"], {}, "models.rf.tset"),
        (["intervals", "rf", "test", "r"], [0.1], "intervals.rf.test.r: needs 2 values"),
        (["intervals", "rf", "test", "r"], [0.1, float("nan")], "intervals.rf.test.r.1"),
        (["search", "rf", "trials"], [{}], "search.rf.trials.0.trial is missing"),
        (["modles"], {}, "unknown key 'modles'; did you mean 'models'"),
        (["schema_version"], SCHEMA_VERSION + 1, f"schema_version is {SCHEMA_VERSION + 1}.*install a later version"),
    ],
)
def test_what_does_not_fit_is_refused_with_file_and_key(results, path, value, words, tmp_path):
    change(results, *path, value=value)
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    with pytest.raises(SmgeoError, match=words) as error:
        read_results(tmp_path)
    assert str(error.value).startswith(f"{file}: ")
    if "schema_version" not in results:
        with pytest.raises(SmgeoError, match=words):
            check_results(results)


def test_a_key_that_is_missing_is_named(results):
    del results["name"]
    with pytest.raises(SmgeoError, match=r"^results.json: name is missing"):
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


def models_of(model, seen):
    """The model and all models in its fields."""
    seen.add(model)
    for field in model.model_fields.values():
        for inner in types_in(field.annotation):
            if inner not in seen:
                models_of(inner, seen)
    return seen


def types_in(annotation):
    if isinstance(annotation, type) and issubclass(annotation, Entry):
        yield annotation
    for inner in get_args(annotation):
        yield from types_in(inner)


def test_every_key_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[a-z0-9_]+", " ".join(re.findall(r"`([^`\n]+)`", page))))
    models = models_of(Provenance, models_of(Results, set()))
    assert len(models) > 30
    assert {name for model in models for name in model.model_fields} - words == set()
