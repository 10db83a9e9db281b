"""Maps against stations, seams and the course in time, by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer

import smgeo
from smgeo.errors import SmgeoError
from smgeo.maps import evaluate_map, open_map
from smgeo.maps.check import measure_seams

BOX = GeoBox.from_bbox((500_000, 5_000_000, 500_400, 5_000_300), "EPSG:32632", resolution=100)


def _map(path, days=3, **more):
    """Pixels (3, 4) hold their number / 100, and a thousandth more each day; upper and lower ends lie .05 apart from it."""
    values = np.arange(12.0).reshape(3, 4)[None] / 100 + np.arange(days)[:, None, None] / 1000
    dims, about = ("time", "y", "x"), {"units": "m3 m-3", "grid_mapping": "spatial_ref"}
    data = {"sm": (dims, values.astype("float32"), about)}
    for name, change in more.items():
        data[name] = (dims, (values + change).astype("float32"), about)
    time = pd.date_range("2020-01-01", periods=days)
    ds = xr.Dataset(data, {"time": time, **xr_coords(BOX, dims=("y", "x"))})
    ds.attrs["smgeo_training_stations"] = json.dumps(["N/trained"])
    ds.to_zarr(path, zarr_format=3, consolidated=False)
    return path


def _stations(places, offsets, days=3):
    """Stations in the middle of pixels (row, column), which observe the map's value less an offset."""
    rows, columns = np.array([p for p in places.values()]).T
    lon, lat = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True).transform(
        500_050 + 100 * columns, 5_000_250 - 100 * rows
    )
    truth = (rows * 4 + columns)[:, None] / 100 + np.arange(days)[None] / 1000 - np.array(offsets)[:, None]
    return xr.Dataset(
        {"sm": (("station", "time"), truth.astype("float32"), {"units": "m3 m-3", "kind": "target"})},
        {
            "station": np.array(list(places), dtype=object),
            "time": pd.date_range("2020-01-01", periods=days),
            "latitude": ("station", lat),
            "longitude": ("station", lon),
        },
    )


def test_scores_are_those_of_the_pixels_of_unseen_stations(tmp_path):
    path = _map(tmp_path / "m.zarr", sm_lower=-0.05, sm_upper=0.05)
    places = {"N/a": (0, 1), "N/b": (2, 3), "N/trained": (1, 1), "N/far": (900, 900)}
    stations = _stations(places, [0.02, 0.06, 0.5, 0.5])
    stations["sm"][0, 2] = np.nan
    with pytest.warns(match="outside the raster"):
        found = evaluate_map(path, stations)
    errors = np.array([0.02, 0.02, 0.06, 0.06, 0.06])
    assert found["scores"]["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), abs=1e-6)
    assert found["scores"]["bias"] == pytest.approx(errors.mean(), abs=1e-6)
    assert (found["scores"]["n"], found["scores"]["stations"]) == (5, 2)
    assert found["left_out"] == {"trained on": 1, "validated on": 0, "at a place of these": 0, "outside the map": 1}
    assert found["coverage"]["covered"] == pytest.approx(2 / 5)
    assert found["coverage"]["covered_stations"] == pytest.approx(1 / 2)
    assert found["coverage"]["width"] == pytest.approx(0.1, abs=1e-6)


def test_a_map_of_geotiffs_scores_as_its_store(tmp_path, make_station_cube, make_grid_cube):
    cube = make_station_cube(stations=6, days=12)
    features = ["s1_vv", "precipitation", "clay"]
    train = [f"N/s{i}" for i in range(4)]
    prepared = smgeo.Scaler("minmax").fit(cube[[*features, "sm"]]).transform(cube[[*features, "sm"]])
    windows = smgeo.Windows(prepared.sel(station=train), features, length=1)
    model = smgeo.make_model("rf", trees=4, threads=1).fit(windows)
    grid = make_grid_cube(days=12, height=4, width=5)
    store = smgeo.predict_map(model, grid, tmp_path / "m.zarr")
    folder = smgeo.predict_map(model, grid, tmp_path / "maps")
    opened = open_map(folder)
    xr.testing.assert_equal(opened["sm"].drop_attrs(), open_map(store)["sm"].drop_attrs())
    assert opened.odc.geobox == grid.odc.geobox
    # Two unseen stations and a trained one, moved onto the map.
    lon, lat = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True).transform(
        [500_050, 500_150, 500_250], [4_999_950, 4_999_850, 4_999_750]
    )
    moved = cube.isel(station=[3, 4, 5]).assign_coords(latitude=("station", lat), longitude=("station", lon))
    found, same = evaluate_map(folder, moved), evaluate_map(store, moved)
    assert found == same
    assert found["left_out"] == {"trained on": 1, "validated on": 0, "at a place of these": 0, "outside the map": 0}
    assert found["scores"]["stations"] == 2


def test_course_in_time(tmp_path):
    days = 400
    path = _map(tmp_path / "m.zarr", days)
    stations = _stations({"N/a": (0, 1)}, [0.01], days)
    found = evaluate_map(path, stations)["time"]
    # A straight line rises by the same each day, in both.
    assert found["autocorrelation_1d"]["map"] == pytest.approx(1)
    assert found["autocorrelation_1d"]["stations"] == pytest.approx(1)
    assert found["monthly_rmse_median"] == pytest.approx(0.01, abs=1e-5)
    assert found["monthly_r_median"] == pytest.approx(1)


def test_seams_by_hand():
    smooth = xr.DataArray(np.tile(np.arange(9.0), (1, 9, 1)), dims=("time", "y", "x"))
    assert measure_seams(smooth, 3)["ratio"] == pytest.approx(1)
    # Blocks of 3 pixels that differ by 5 more at the border: steps of 6 against 1 along x, none along y.
    stepped = smooth + 5 * (np.arange(9) // 3)
    found = measure_seams(stepped.transpose("time", "y", "x"), 3)
    assert found["ratio"] == pytest.approx(6)
    assert found["steps"] == 2 * 9 + 2 * 9
    assert measure_seams(smooth, 20)["ratio"] is None


def test_what_is_no_map_or_has_no_station_is_refused(tmp_path):
    path = _map(tmp_path / "m.zarr")
    with pytest.raises(SmgeoError, match="contains no map"):
        open_map(tmp_path / "nothing")
    with pytest.raises(SmgeoError, match="saw all 1 stations in training or validation"):
        evaluate_map(path, _stations({"N/trained": (0, 0)}, [0.0]))
    with pytest.raises(SmgeoError, match="lacks 'vwc'"):
        evaluate_map(path, _stations({"N/a": (0, 0)}, [0.0]), target="vwc")
    wrong = _stations({"N/a": (0, 0)}, [0.0])
    wrong["sm"].attrs["units"] = "percent"
    with pytest.raises(SmgeoError, match="sm is in"):
        evaluate_map(path, wrong)
