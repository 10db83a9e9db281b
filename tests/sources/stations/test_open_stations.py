"""The public call: its options become one checked spec, and nothing that was passed is dropped silently."""

from __future__ import annotations

import pickle
import subprocess
import sys

import dask
import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize

from smgeo.catalog import FEATURES
from smgeo.errors import SmgeoError
from smgeo.recipe.stations import IsmnSource, TableSource, TerenoSource, parse_stations
from smgeo.sources import open_stations

COLUMNS = {"station": "id", "time": "day", "latitude": "lat", "longitude": "lon", "sm": "vw"}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,day,lat,lon,vw,cm\na,2020-01-01,50,7,0.1,5\na,2020-01-02,50,7,0.2,5\n")
    return path


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    rows = [f"2015/04/01 {h:02d}:00 0.25 {'G' if h else 'M'} M" for h in range(24)]
    name = "N_N_A_sm_0.050000_0.050000_P_20150401_20150401.stm"
    (folder / name).write_text("\n".join(["N N A 45.0 3.0 100.0 0.05 0.05 P", *rows]))
    return folder


def refusal(*args, **options) -> str:
    with pytest.raises(SmgeoError) as error:
        open_stations(*args, **options)
    return str(error.value)


def test_all_wrong_options_are_listed_at_once_with_the_nearest_name(archive):
    message = refusal(archive, min_valid_shar=0.5, depth_rule="middle", networks="N", nearest_to_m=-1)
    assert "unknown key 'min_valid_shar'; did you mean 'min_valid_share'?" in message
    assert "depth_rule: needs 'nearest' or 'mean'; got 'middle'" in message
    assert "networks: needs a list; got 'N'; write [N]" in message
    assert "nearest_to_m: needs a number not below 0; got -1" in message


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "csv",
            {"columns": COLUMNS, "flags": ("G",)},
            "'flags' applies to kind ismn and tereno, not to csv; leave it out",
        ),
        (
            "matrix",
            {"variables": {"sm": "SM"}, "flags": ["G"]},
            "'flags' applies to kind ismn and tereno, not to matrix",
        ),
        ("ismn", {"columns": COLUMNS}, "'columns' applies to kind tereno and csv, not to ismn"),
        ("matrix", {"variables": {"sm": "SM"}, "depth_m": (0.0, 0.1)}, "depth_m does not apply to kind matrix"),
        ("csv", {"columns": COLUMNS, "depth_m": (0.0, 0.1)}, "depth_m needs a column of depths"),
        ("csv", {}, "columns is missing"),
        ("cvs", {}, "unknown kind of stations 'cvs'; did you mean 'csv'"),
    ],
)
def test_an_option_of_another_kind_is_refused(tmp_path, kind, options, message):
    assert message in refusal(tmp_path, kind, **options)


def test_flags_are_those_of_the_kind_by_default(archive):
    good = open_stations(archive)
    assert good["hours_flagged"].values.tolist() == [1]
    xr.testing.assert_identical(good.compute(), open_stations(archive, flags=("G",)).compute())
    assert open_stations(archive, flags=("G", "M"))["hours_flagged"].values.tolist() == [0]
    assert parse_stations({"path": "x", "kind": "tereno"}, "here").flags == ("ok",)


def test_a_spec_and_a_mapping_give_what_keywords_give(table, tmp_path):
    columns = {**COLUMNS, "depth": {"column": "cm", "scale": 0.01}}
    by_keywords = open_stations(table, "csv", depth_m=(0.0, 0.1), columns=columns).compute()
    mapping = {"kind": "csv", "path": "t.csv", "columns": columns}
    for source in (mapping, TableSource(**mapping)):
        xr.testing.assert_identical(open_stations(source, root=tmp_path).compute(), by_keywords)
    assert "columns, kind must be in the source" in refusal(mapping, "csv", columns=columns)
    assert "unknown key 'colums'; did you mean 'columns'" in refusal({**mapping, "colums": {}}, root=tmp_path)


def test_a_catalogue_gives_the_valid_range_of_a_sensor_but_not_another_unit(archive):
    from dataclasses import replace

    low = {**FEATURES, "sm": replace(FEATURES["sm"], valid_range=(0.0, 0.2))}
    assert np.isnan(open_stations(archive, catalog=low)["sm"].values).all()
    percent = {**FEATURES, "sm": replace(FEATURES["sm"], units="percent")}
    with pytest.raises(SmgeoError, match=r"ISMN gives sm in 'm3 m-3', and the catalogue has it in 'percent'"):
        open_stations(archive, catalog=percent)


def test_all_variables_that_an_archive_lacks_are_named(archive):
    message = refusal(archive, variables=["wind", "soil_temprature"])
    assert "'wind'" in message
    assert "'soil_temprature' (did you mean 'soil_temperature'?)" in message


def test_a_spec_has_one_token_in_every_process():
    """Dask finds a task again by it, whatever the process."""
    spec = TerenoSource(kind="tereno", path="a", separator=";", network="N")
    assert tokenize(pickle.loads(pickle.dumps(spec))) == tokenize(spec)
    assert tokenize(spec) != tokenize(spec.model_copy(update={"network": "M"}))
    assert tokenize(IsmnSource(kind="ismn", path="a")) != tokenize(TerenoSource(kind="tereno", path="a"))
    code = (
        "from dask.base import tokenize; from smgeo.recipe.stations import TerenoSource; "
        "print(tokenize(TerenoSource(kind='tereno', path='a', separator=';', network='N')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == tokenize(spec)


def test_opening_an_archive_computes_nothing(archive):
    def forbid(*args, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=forbid):
        assert open_stations(archive)["sm"].shape == (1, 1)
