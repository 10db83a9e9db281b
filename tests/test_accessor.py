"""`ds.smgeo`: the functions, with the Dataset in front."""

import inspect
import subprocess
import sys

import pytest
import xarray as xr

import smgeo
from smgeo.accessor import SmgeoAccessor
from smgeo.prepare import steps_of

STEPS = sorted(n for n in vars(SmgeoAccessor) if not n.startswith("_"))


def test_the_steps_of_preparation_are_there():
    assert {"fill_gaps", "flag_outliers", "choose_z", "split_stations", "scale", "windows", "audit_leakage"} <= {*STEPS}


@pytest.mark.parametrize("name", sorted({*STEPS} - {"scale", "unscale"}))
def test_signatures_are_those_of_the_functions(make_station_cube, name):
    function = getattr(smgeo, {"windows": "Windows"}.get(name, name))
    _, *expected = inspect.signature(function).parameters.values()
    method = getattr(make_station_cube().smgeo, name)
    assert list(inspect.signature(method).parameters.values()) == expected
    assert method.__doc__ == function.__doc__


def test_a_chain_of_steps_is_the_functions_one_after_the_other(make_station_cube):
    ds = make_station_cube(stations=12, gaps=0.3)
    split = ds.smgeo.split_stations(seed=3, extremes_to_train=False)
    assert split == smgeo.split_stations(ds, seed=3, extremes_to_train=False)
    ready = ds.smgeo.fill_gaps(limit=2).smgeo.scale("robust", stations=split.train)
    filled = smgeo.fill_gaps(ds, limit=2)
    expected = smgeo.Scaler("robust").fit(filled.sel(station=list(split.train))).transform(filled)
    xr.testing.assert_identical(ready, expected)
    assert [s["step"] for s in steps_of(ready)] == ["fill_gaps", "scale"]
    xr.testing.assert_allclose(ready.smgeo.unscale(), filled, rtol=1e-5)
    windows = ready.smgeo.windows(["s1_vv", "clay"], length=5)
    assert windows.shape == smgeo.Windows(ready, ["s1_vv", "clay"], length=5).shape
    flags = ds.smgeo.flag_outliers(3.0, stations=split.train)
    xr.testing.assert_identical(flags, smgeo.flag_outliers(ds, 3.0, stations=split.train))


def test_only_what_was_scaled_last_is_unscaled(make_station_cube):
    with pytest.raises(smgeo.SmgeoError, match="steps are fill_gaps"):
        make_station_cube().smgeo.fill_gaps(limit=1).smgeo.unscale()


def test_stations_to_learn_from_are_those_of_the_cube(make_station_cube):
    with pytest.raises(smgeo.SmgeoError, match="no station 'zz'"):
        make_station_cube().smgeo.scale(stations=["N/s0", "zz"])


@pytest.mark.parametrize("first", ["import smgeo\nimport xarray as xr", "import xarray as xr\nimport smgeo"])
def test_it_is_registered_by_import_alone(first):
    code = f"{first}\nprint(xr.Dataset().smgeo)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "SmgeoAccessor" in done.stdout
