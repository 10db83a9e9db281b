"""Maps against predictions made pixel by pixel."""

import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray  # noqa: F401  (gives `.rio`)
import xarray as xr
from pyproj import Transformer

from smgeo.cube import reading
from smgeo.cube.reading import open_cube
from smgeo.cube.shards import read_region
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError
from smgeo.evaluation.parts import evaluate
from smgeo.maps import block, layout, predict_map
from smgeo.models import make_model
from smgeo.prepare import Split, derive_features, prepare_cube
from smgeo.recipe.preparation import PrepareSpec

# Days at the start have no window of several.
pytestmark = pytest.mark.filterwarnings("ignore:no pixel of the map:smgeo.errors.SmgeoWarning")

FEATURES = ["s1_vv", "precipitation_3d", "clay", "doy_sin"]
WEIGHTS = np.array([0.5, 0.2, -0.3, 0.1, 0.05, 0.02, 0.01, 0.03])
TRAIN = [f"N/s{i}" for i in range(4)]


class Weighted:
    """Weights of the channels, later days counting more; the same number however windows are batched."""

    def fit(self, windows):
        self.preparation_ = windows.preparation
        return self

    def predict(self, windows):
        x = windows.gather(np.arange(len(windows))).astype("float64")
        days = 1 + np.arange(x.shape[1])
        return ((x * WEIGHTS[: x.shape[2]]).sum(axis=2) * days).sum(axis=1).astype("float32") / days.sum()


def _fit(ds, length=1, missing=0.0, model=None, **fill):
    spec = PrepareSpec.model_validate({"fill": fill or {"limit": 2}, "outliers": None, "scale": "minmax"})
    prepared = prepare_cube(derive_features(ds, FEATURES), spec, FEATURES, "sm", TRAIN)
    return (model or Weighted()).fit(prepared.windows(TRAIN, length, missing))


@pytest.fixture
def stations(make_station_cube):
    return make_station_cube(stations=6, gaps=0.1)


@pytest.fixture
def grid(make_grid_cube):
    ds = make_grid_cube(days=20, height=4, width=5, seed=1, gaps=0.4)
    ds["precipitation"] = ds["precipitation"].fillna(0)
    ds["precipitation"][6, 1, 1] = np.nan
    ds["clay"][2, 3] = np.nan
    return ds


def _by_hand(model, grid, length):
    """Pixels one by one: pandas fills, slices sum, formulas scale; complete windows alone."""
    scaler = model.preparation_["steps"][-1]["scaler"]
    center, scale = scaler["center"], scaler["scale"]
    days = grid.indexes["time"]
    out = np.full((len(days), grid.sizes["y"], grid.sizes["x"]), np.nan)
    doy = np.sin(2 * np.pi * (days.day_of_year - 1) / 365.25)
    for i, j in np.ndindex(*out.shape[1:]):
        rain = grid["precipitation"].values[:, i, j].astype("float64")
        sums = [rain[t - 2 : t + 1].sum() if t > 1 else np.nan for t in range(len(days))]
        columns = {
            "s1_vv": pd.Series(grid["s1_vv"].values[:, i, j].astype("float64")).interpolate(
                limit=2, limit_direction="both"
            ),
            "precipitation_3d": pd.Series(sums).interpolate(limit=2, limit_direction="both"),
            "clay": np.full(len(days), float(grid["clay"][i, j])),
            "doy_sin": doy,
        }
        x = np.stack([(np.asarray(columns[f]) - center[f]) / scale[f] for f in FEATURES], axis=1)
        for end in range(length - 1, len(days)):
            w = x[end - length + 1 : end + 1]
            weight = (1 + np.arange(length)) / np.arange(1, length + 1).sum()
            out[end, i, j] = (w @ WEIGHTS[:4]) @ weight * scale["sm"] + center["sm"]
    return out


def _as_stations(grid):
    """Each pixel as if it were a station with a target on every day."""
    stacked = grid.drop_vars("spatial_ref").stack(station=("y", "x")).reset_index("station", drop=True)
    ds = stacked.assign_coords(station=np.array([f"p{i}" for i in range(stacked.sizes["station"])], dtype=object))
    ds = ds.transpose("station", "time")
    ds["sm"] = xr.full_like(ds["s1_vv"], 0.2).assign_attrs(units="m3 m-3", kind="target")
    return derive_features(ds, FEATURES)


def _from_evaluate(model, grid):
    ds = _as_stations(grid)
    ids = [str(s) for s in ds["station"].values]
    predicted = evaluate(model, ds, Split(tuple(ids[:1]), tuple(ids[1:2]), tuple(ids[2:]))).predictions["predicted"]
    return predicted.values.T.reshape(grid.sizes["time"], grid.sizes["y"], grid.sizes["x"])


@pytest.mark.parametrize("length", [1, 4])
def test_equals_pixels_by_hand(stations, grid, tmp_path, length):
    model = _fit(stations, length)
    expected = _by_hand(model, grid, length)
    got = open_cube(predict_map(model, grid, tmp_path / "m.zarr"))["sm"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert np.isnan(got.values[:, 2, 3]).all()
    assert 0.05 < np.isnan(expected).mean() < 0.95
    assert got.attrs["nodata_share"] == pytest.approx(np.isnan(expected).mean(), abs=1e-6)
    assert (got.attrs["units"], got.dtype) == ("m3 m-3", np.float32)
    assert got.rio.crs.to_epsg() == 32632
    assert got.odc.geobox == grid.odc.geobox


@pytest.mark.parametrize(("length", "missing"), [(1, 0.0), (1, 0.5), (5, 0.0), (5, 0.4)])
@pytest.mark.parametrize("fill", [{"limit": "half-revisit", "revisit": "measured"}, {"limit": {"s1_vv": 1}}])
def test_equals_stations_with_the_same_series(stations, grid, tmp_path, length, missing, fill):
    model = _fit(stations, length, missing, **fill)
    got = open_cube(predict_map(model, grid, tmp_path / "m.zarr"))["sm"]
    np.testing.assert_array_equal(got, _from_evaluate(model, grid))


@pytest.mark.parametrize("read", [64e6, 1])
@pytest.mark.parametrize("length", [1, 3])
def test_forest_on_a_map_is_the_forest_at_stations(stations, grid, tmp_path, length, read, monkeypatch):
    pytest.importorskip("ydf")
    monkeypatch.setattr(block, "_READ", read)  # all variables at once, or each by itself
    from smgeo.models import make_model

    model = _fit(stations, length, model=make_model("rf", trees=5, threads=1))
    got = open_cube(predict_map(model, grid, tmp_path / "m.zarr"))["sm"]
    np.testing.assert_array_equal(got, _from_evaluate(model, grid))


@pytest.mark.parametrize("length", [1, 4])
def test_chunks_strips_and_blocks_do_not_matter(stations, grid, tmp_path, monkeypatch, length):
    model = _fit(stations, length)
    whole = open_cube(predict_map(model, grid, tmp_path / "a.zarr"))["sm"].load()
    xr.testing.assert_equal(
        open_cube(predict_map(model, grid.chunk(time=7, y=3, x=2), tmp_path / "b.zarr"))["sm"], whole
    )
    monkeypatch.setattr(block, "_BUDGET", 1)
    xr.testing.assert_equal(open_cube(predict_map(model, grid, tmp_path / "c.zarr"))["sm"], whole)
    monkeypatch.setattr(layout, "MAP_CHUNK", {"time": 6, "y": 3, "x": 2})
    seen = []
    xr.testing.assert_equal(
        open_cube(predict_map(model, grid, tmp_path / "d.zarr", progress=lambda *p: seen.append(p)))["sm"], whole
    )
    assert seen == [(i, 6) for i in range(7)]


@pytest.mark.parametrize("how", [{}, {"dask": False}])
def test_blocks_read_their_own_pixels_only(stations, make_grid_cube, tmp_path, monkeypatch, how):
    """A derived feature is not computed for the whole cube first; blocks of 128 pixels read no more than 128 along x."""
    grid = make_grid_cube(days=8, height=2, width=300, gaps=0.2)
    model, path = _fit(stations), write_cube(grid, tmp_path / "g.zarr")
    widths = []

    def read(array, slices, folder, was_written):
        if folder.name in ("s1_vv", "precipitation"):
            widths.append((folder.name, slices[2].stop - slices[2].start))
        return read_region(array, slices, folder, was_written)

    monkeypatch.setattr(reading, "read_region", read)
    got = predict_map(model, open_cube(path, **how), tmp_path / "m.zarr")
    assert {(name, width) for name, width in widths} == {(n, w) for n in ("s1_vv", "precipitation") for w in (128, 44)}
    assert len(widths) == 6
    np.testing.assert_array_equal(open_cube(got)["sm"], _from_evaluate(model, grid))


def test_wider_than_a_block(stations, make_grid_cube, tmp_path):
    grid = make_grid_cube(days=5, height=2, width=131, gaps=0.2)
    model = _fit(stations)
    np.testing.assert_array_equal(
        open_cube(predict_map(model, grid, tmp_path / "m.zarr"))["sm"], _from_evaluate(model, grid)
    )


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("chosen", [[2, 9, 10, 19], [19, 3], [1], [9, 9, 4]])
def test_chosen_days_are_the_same_days_of_the_whole(stations, grid, tmp_path, length, chosen):
    model = _fit(stations, length)
    whole = open_cube(predict_map(model, grid, tmp_path / "a.zarr"))["sm"].load()
    times = [str(grid.indexes["time"][i].date()) for i in chosen]
    some = open_cube(predict_map(model, grid, tmp_path / "b.zarr", times=times))["sm"]
    days = sorted(set(chosen))
    assert some.indexes["time"].equals(grid.indexes["time"][days])
    np.testing.assert_array_equal(some, whole[days])


def test_cogs(stations, grid, tmp_path):
    model = _fit(stations, 2)
    days = ["2020-01-05", "2020-01-14"]
    store = open_cube(predict_map(model, grid, tmp_path / "m.zarr", times=days))["sm"]
    folder = predict_map(model, grid, tmp_path / "maps", times=days)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.zarr", "maps"]
    items = [f"sm_{d}.{kind}" for d in days for kind in ("json", "tif")]
    assert sorted(p.name for p in folder.iterdir()) == ["collection.json", *items]
    for day in days:
        with rasterio.open(folder / f"sm_{day}.tif") as src:
            assert src.crs.to_epsg() == 32632
            assert src.transform.to_gdal() == (500_000, 100, 0, 5_000_000, 0, -100)
            assert np.isnan(src.nodata)
            assert src.descriptions == ("sm",)
            assert src.units == ("m3 m-3",)
            assert src.dtypes == ("float32",)
            assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert src.tags()["date"] == day
            np.testing.assert_array_equal(src.read(1), store.sel(time=day))
            assert np.isfinite(src.read(1)).any()


def test_a_grid_of_one_row_keeps_its_place(stations, grid, tmp_path):
    folder = predict_map(_fit(stations), grid.isel(y=slice(1, 2)), tmp_path / "maps", times=["2020-01-05"])
    with rasterio.open(folder / "sm_2020-01-05.tif") as src:
        assert src.transform.to_gdal() == (500_000, 100, 0, 4_999_900, 0, -100)


def test_a_failed_map_leaves_the_old_one(stations, grid, tmp_path):
    class Broken(Weighted):
        def predict(self, windows):
            raise RuntimeError("power cut")

    path = predict_map(_fit(stations), grid, tmp_path / "m.zarr")
    before = open_cube(path).load()
    with pytest.raises(RuntimeError, match="power cut"):
        predict_map(_fit(stations, model=Broken()), grid, path)
    xr.testing.assert_identical(open_cube(path).load(), before)


def test_refusals_name_the_thing(stations, grid, tmp_path):
    model, out = _fit(stations), tmp_path / "m.zarr"
    with pytest.raises(SmgeoError, match="lacks clay"):
        predict_map(model, grid.drop_vars("clay"), out)
    with pytest.raises(SmgeoError, match="lacks precipitation_3d"):
        predict_map(model, grid.drop_vars("precipitation"), out)
    wrong = grid.copy()
    wrong["clay"] = grid["clay"].assign_attrs(units="g kg-1")
    with pytest.raises(SmgeoError, match="clay is in 'g kg-1', needed in 'percent'"):
        predict_map(model, wrong, out)
    with pytest.raises(
        SmgeoError, match="2021-05-01, 2022-05-01 not in the grid cube, which covers 2020-01-01 to 2020-01-20"
    ):
        predict_map(model, grid, out, times=["2020-01-02", "2021-05-01", "2022-05-01"])
    with pytest.raises(SmgeoError, match="no CRS"):
        predict_map(model, grid.drop_vars("spatial_ref"), out)
    with pytest.raises(SmgeoError, match="bare arrays"):
        predict_map(Weighted(), grid, out)
    with pytest.raises(SmgeoError, match="use evaluate"):
        predict_map(model, stations, out)
    with pytest.raises(SmgeoError, match="daily"):
        predict_map(model, grid.isel(time=[0, 2, 3]), out)
    assert not out.exists()


def test_no_days_are_refused(stations, grid, tmp_path):
    with pytest.raises(SmgeoError, match="no day"):
        predict_map(_fit(stations), grid, tmp_path / "m.zarr", times=[])


def test_latitude_of_pixels_is_derived_where_a_model_was_trained_with_it(stations, grid, tmp_path):
    spec = PrepareSpec.model_validate({"fill": None, "outliers": None, "scale": "minmax"})
    with_place = derive_features(stations, ["lat"])
    prepared = prepare_cube(with_place, spec, ["clay", "lat"], "sm", TRAIN)
    model = Weighted().fit(prepared.windows(TRAIN, 1, 0.0))
    got = open_cube(predict_map(model, grid, tmp_path / "m.zarr", times=["2020-01-05"]))["sm"].values[0]
    scaler = model.preparation_["steps"][-1]["scaler"]
    degrees = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True).transform(
        *np.meshgrid(grid["x"], grid["y"])
    )
    scaled = [
        (values - scaler["center"][n]) / scaler["scale"][n]
        for n, values in (("clay", grid["clay"].values), ("lat", degrees[1]))
    ]
    expected = scaled[0] * WEIGHTS[0] + scaled[1] * WEIGHTS[1]
    np.testing.assert_allclose(got, expected * scaler["scale"]["sm"] + scaler["center"]["sm"], rtol=1e-4)


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["rf", "LinearRegression"])
@pytest.mark.parametrize(("length", "missing"), [(1, 0.0), (3, 0.5)])
def test_an_infinite_pixel_is_missing(stations, grid, tmp_path, kind, length, missing, bad):
    parameters = {"trees": 5} if kind == "rf" else {"fit_intercept": True}
    model = _fit(stations, length, missing, make_model(kind, **parameters))
    maps = []
    for name, value in (("nan", np.nan), ("inf", bad)):
        here = grid.copy(deep=True)
        here["s1_vv"][:, 0, 0] = here["precipitation"][4:9, 3, 2] = here["clay"][1, 1] = value
        maps.append(open_cube(predict_map(model, here, tmp_path / f"{name}.zarr"))["sm"].values)
    np.testing.assert_array_equal(*maps)
    if missing == 0:
        assert np.isnan(maps[0][:, 0, 0]).all()
        assert np.isnan(maps[0][:, 1, 1]).all()
    assert np.isfinite(maps[0]).mean() > 0.2


def test_heights_above_another_surface_are_refused(stations, grid, tmp_path):
    stations["clay"].attrs["refers_to"] = "fine earth"
    model = _fit(stations)
    predict_map(model, grid, tmp_path / "silent.zarr")  # a grid that does not say it
    grid["clay"].attrs["refers_to"] = "whole soil"
    with pytest.raises(SmgeoError, match="clay refers to whole soil, needed is fine earth"):
        predict_map(model, grid, tmp_path / "m.zarr")
    grid["clay"].attrs["refers_to"] = "fine earth"
    predict_map(model, grid, tmp_path / "m.zarr")
