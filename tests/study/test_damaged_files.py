"""Files of a run that are damaged: made again by the same command, or refused in one sentence that names the file."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import smgeo
from smgeo.cli import app
from smgeo.errors import SmgeoError
from smgeo.models import load_model
from smgeo.report.schema import read_provenance, read_results

HARMS = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "list": lambda content: b"[]",
    "null": lambda content: b"null",
    "binary": lambda content: b"\x93NUMPY\x01\x00\xff\xfe" + bytes(64),
    "nan": lambda content: b'{"a": NaN}',
    "other": lambda content: b'{"key": 1, "files": 2, "format": 1, "models": 4}',
}


@pytest.fixture(scope="module")
def whole(table_study, station_table, tmp_path_factory):
    """A finished run; each test damages a copy."""
    rows = station_table()
    run = table_study(tmp_path_factory.mktemp("whole") / "data", rows, importance=None)
    return run.folder


@pytest.fixture
def copied(whole, tmp_path):
    """(the run's folder, a function that runs it again)."""
    data = tmp_path / "data"
    shutil.copytree(whole.parent, data)
    folder = data / "run"

    def again(**changes):
        recipe = {**smgeo.recipe.yaml_format.load_yaml((whole / "recipe.yaml").read_text()), **changes}
        return smgeo.run(recipe, out=folder, data=data)

    return folder, again


@pytest.mark.parametrize("name", ["results.json", "provenance.json"])
def test_results_are_refused_and_written_again(copied, name):
    folder, again = copied
    file = folder / name
    before = file.read_bytes()
    read = read_results if name == "results.json" else read_provenance
    for harm in HARMS.values():
        file.write_bytes(harm(before))
        with pytest.raises(SmgeoError) as error:
            read(folder)
        assert str(file) in str(error.value)
        told = CliRunner().invoke(app, ["report", str(folder)])
        assert isinstance(told.exception, SmgeoError)
    again()
    assert json.loads(file.read_text()).keys() == json.loads(before).keys()
    read(folder)


@pytest.mark.parametrize("first", [0, 3])
def test_damaged_records_of_stages_do_their_stage_again(copied, first):
    folder, again = copied
    results = json.loads((folder / "results.json").read_text())
    records = sorted((folder / ".stages").glob("*.json"))
    assert len(records) > 4
    for number, record in enumerate(records, first):
        harm = list(HARMS.values())[number % len(HARMS)]
        record.write_bytes(harm(record.read_bytes()))
    again()
    assert json.loads((folder / "results.json").read_text()) == results
    assert sorted((folder / ".stages").glob("*.json")) == records
    for record in records:
        json.loads(record.read_text())


def test_a_damaged_model_is_refused_and_trained_again(copied):
    folder, again = copied
    model = folder / "models" / "HistGradientBoostingRegressor"
    for file in sorted(model.glob("*.json")):
        before = file.read_bytes()
        for harm in HARMS.values():
            file.write_bytes(harm(before))
            with pytest.raises(SmgeoError) as error:
                load_model(model)
            assert file.name in str(error.value)
        file.write_bytes(before)
    (model / "model.json").write_bytes(HARMS["half"](before))
    again()
    assert load_model(model).preparation_["target"] == "sm"


def test_a_flipped_byte_of_a_model_is_found_by_a_run_that_verifies(copied):
    folder, again = copied
    model = folder / "models" / "HistGradientBoostingRegressor"
    (file,) = model.glob("*.npz")
    before = file.read_bytes()
    content = bytearray(before)
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(SmgeoError, match=f"{file.name} is missing or damaged.*run its recipe again"):
        load_model(model)
    again(verify=True)
    load_model(model)


@pytest.mark.parametrize("name", ["stations.zarr", "predictions/HistGradientBoostingRegressor.zarr"])
def test_a_lost_chunk_of_a_run_is_made_again(copied, name):
    folder, again = copied
    store = folder / name
    truth = smgeo.open_cube(store).load()
    lost = next(p for p in sorted(store.rglob("c/*/*")) if p.is_file())
    lost.unlink()
    with pytest.raises(SmgeoError, match=f"{lost.relative_to(store).as_posix()} .*: missing; run the command"):
        smgeo.open_cube(store)
    again()
    assert smgeo.open_cube(store).load().identical(truth)


@pytest.mark.parametrize("lost", ["report.html", "tables", "tables/scores.csv"])
def test_lost_parts_of_a_report_are_made_again(copied, lost):
    folder, again = copied
    before = {p.relative_to(folder): p.read_bytes() for p in folder.glob("tables/*")}
    assert len(before) > 1
    shutil.rmtree(folder / lost) if (folder / lost).is_dir() else (folder / lost).unlink()
    again()
    assert {p.relative_to(folder): p.read_bytes() for p in folder.glob("tables/*")} == before
    assert (folder / "report.html").is_file()


def test_a_flipped_byte_of_the_prepared_stations_is_no_number(copied):
    folder, again = copied
    store = next((folder / "prepared").glob("*/*/stations.zarr"))
    file = store / "temperature/c/0/0"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    shutil.rmtree(folder / "models")  # so that it is read again
    with pytest.raises(
        SmgeoError, match="temperature, station .* to .*, 2020-01-01 to 2020-02-29: the checksum"
    ) as error:
        again()
    # What the message says to do is enough.
    assert f"remove {file} and run the command" in str(error.value)
    file.unlink()
    again()
    assert np.isfinite(smgeo.open_cube(store)["temperature"].values).any()
