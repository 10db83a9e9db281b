"""What stands beside the estimate in a map: intervals, the area of applicability, regions, and what is told of it all."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  (gives `.rio`)
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import smgeo
from smgeo.cube.reading import open_cube
from smgeo.errors import SmgeoError
from smgeo.maps import write_cogs
from smgeo.polygons import write_geojson
from smgeo.prepare import Split, derive_features, prepare_cube
from smgeo.recipe.preparation import PrepareSpec

FEATURES = ["s1_vv", "precipitation", "clay"]
SPLIT = Split(
    tuple(f"N/s{i}" for i in range(8)), tuple(f"N/s{i}" for i in range(8, 20)), tuple(f"N/s{i}" for i in range(20, 24))
)
DAYS = ["2020-01-05", "2020-01-14"]


@pytest.fixture(scope="module")
def cube(make_station_cube):
    return make_station_cube(stations=24, days=20, gaps=0.1)


@pytest.fixture(scope="module")
def grid(make_grid_cube):
    return make_grid_cube(days=20, height=6, width=7, seed=1, gaps=0.3)


def _fit(cube, kind="rf", length=1, **params):
    spec = PrepareSpec.model_validate({"fill": {"limit": 2}, "outliers": None, "scale": "minmax"})
    prepared = prepare_cube(derive_features(cube, FEATURES), spec, FEATURES, "sm", SPLIT.train)
    return smgeo.make_model(kind, **params).fit(prepared.windows(SPLIT.train, length, 0.0))


@pytest.fixture(scope="module")
def model(cube, tmp_path_factory):
    """A forest that was calibrated, knows its area, was saved and read."""
    made = _fit(cube, trees=10, threads=1)
    smgeo.calibrate(made, cube, SPLIT)
    smgeo.find_applicability(made, cube, SPLIT, dict(zip(FEATURES, (1.0, 0.5, 2.0), strict=True)), folds=4)
    return smgeo.load_model(made.save(tmp_path_factory.mktemp("model") / "rf"))


def test_intervals_are_those_of_the_model_at_each_pixel(model, cube, grid, tmp_path):
    got = open_cube(smgeo.predict_map(model, grid, tmp_path / "m.zarr", intervals=0.8)).load()
    plain = open_cube(smgeo.predict_map(model, grid, tmp_path / "p.zarr", intervals=False, applicability=False)).load()
    assert set(plain.data_vars) == {"sm"}
    assert set(got.data_vars) == {"sm", "sm_lower", "sm_upper", "applicable"}
    xr.testing.assert_allclose(got["sm"], plain["sm"], rtol=1e-6)
    known = np.isfinite(got["sm"].values)
    assert 0.2 < known.mean() < 1
    for name in ("sm_lower", "sm_upper", "applicable"):
        assert (np.isfinite(got[name].values) == known).all()
    assert (got["sm_lower"].values[known] <= got["sm"].values[known]).all()
    width = (got["sm_upper"] - got["sm_lower"]).values[known]
    assert width.std() > 0
    wider = open_cube(smgeo.predict_map(model, grid, tmp_path / "w.zarr", intervals=0.9)).load()
    assert ((wider["sm_upper"] - wider["sm_lower"]).values[known] >= width - 1e-6).all()
    assert got["sm_lower"].attrs["coverage"] == 0.8
    assert got["sm"].attrs["ancillary_variables"] == "sm_lower sm_upper applicable"
    assert set(np.unique(got["applicable"].values[known])) <= {0.0, 1.0}
    share = got["applicable"].values[known].mean()
    assert got["applicable"].attrs["share_inside"] == pytest.approx(share, abs=1e-6)
    assert got["applicable"].attrs["flag_meanings"] == "outside inside"


def test_a_place_like_no_station_is_outside(model, grid, tmp_path):
    odd = grid.copy(deep=True)
    odd["clay"][2, 3] = 5000.0
    got = open_cube(smgeo.predict_map(model, odd, tmp_path / "m.zarr"))["applicable"].values
    same = open_cube(smgeo.predict_map(model, grid, tmp_path / "s.zarr"))["applicable"].values
    assert set(got[np.isfinite(got[:, 2, 3]), 2, 3]) == {0.0}
    others = np.ones(got.shape, dtype=bool)
    others[:, 2, 3] = False
    np.testing.assert_array_equal(got[others], same[others])
    assert (same == 1).any()


def test_intervals_of_networks_are_as_wide_as_they_err_around_the_estimate(cube, grid, tmp_path):
    model = _fit(cube, "ann", units=4, epochs=1)
    smgeo.calibrate(model, cube, SPLIT)
    got = open_cube(smgeo.predict_map(model, grid, tmp_path / "m.zarr", intervals=0.5)).load()
    assert set(got.data_vars) == {"sm", "sm_lower", "sm_upper"}
    free = (got["sm_lower"] > 0) & (got["sm_upper"] < 1)
    width = (got["sm_upper"] - got["sm_lower"]).where(free).values
    learned = model.calibration_
    assert len(learned.knots) == 2  # twelve validation stations, five for each range of the estimate
    spread = np.interp(got["sm"].values, learned.knots, learned.spreads)
    expected = np.where(free, 2 * learned.widths[499] * spread, np.nan)
    np.testing.assert_allclose(width, expected, rtol=1e-4)


def test_intervals_hold_at_stations_that_nobody_saw(model, cube):
    table = smgeo.interval_coverage(model, cube, SPLIT, level=0.9)
    assert list(table.index) == list(SPLIT.test)
    assert (table["rows"] > 5).all()
    assert table["covered"].between(0, 1).all()
    assert table["covered"].mean() > 0.5
    with pytest.raises(SmgeoError, match="calibrated on the validation part"):
        smgeo.interval_coverage(model, cube, SPLIT, "validation")


def test_stations_of_the_training_calibrate_nothing(cube):
    model = _fit(cube, trees=3)
    with pytest.raises(SmgeoError, match=r"trained on 8 of the train stations \(N/s0, N/s1, N/s2\)"):
        smgeo.calibrate(model, cube, SPLIT, "train")


def test_what_the_model_does_not_know_is_refused(cube, grid, tmp_path):
    model, out = _fit(cube, trees=3), tmp_path / "m.zarr"
    with pytest.raises(SmgeoError, match=r"not calibrated; smgeo\.calibrate"):
        smgeo.predict_map(model, grid, out, intervals=0.9)
    with pytest.raises(SmgeoError, match=r"does not know its area of applicability; smgeo\.find_applicability"):
        smgeo.predict_map(model, grid, out, applicability=True)
    smgeo.calibrate(model, cube, SPLIT)
    with pytest.raises(SmgeoError, match="intervals of 99 % need 99 stations"):
        smgeo.predict_map(model, grid, out, intervals=0.99)
    with pytest.raises(SmgeoError, match="level must be a number above 0 and below 1; got 90"):
        smgeo.predict_map(model, grid, out, intervals=90)
    with pytest.raises(SmgeoError, match="importance must have exactly one number for each feature.*clay"):
        smgeo.find_applicability(model, cube, SPLIT, {"s1_vv": 1.0, "precipitation": 1.0})
    assert not list(tmp_path.iterdir())


def test_a_new_fit_forgets_what_was_learned_of_the_old_one(cube):
    model = _fit(cube, trees=3)
    smgeo.calibrate(model, cube, SPLIT)
    model.fit(np.zeros((5, 3), dtype="float32"), np.zeros(5, dtype="float32"))
    assert model.calibration_ is None


def test_cogs_have_a_band_for_each(model, grid, tmp_path):
    store = open_cube(smgeo.predict_map(model, grid, tmp_path / "m.zarr", DAYS)).load()
    folder = smgeo.predict_map(model, grid, tmp_path / "maps", DAYS)
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".json", ".json", ".tif", ".tif"]
    for day in DAYS:
        with rasterio.open(folder / f"sm_{day}.tif") as src:
            assert src.descriptions == ("sm", "sm_lower", "sm_upper", "applicable")
            assert src.units[:3] == ("m3 m-3",) * 3
            for band, name in enumerate(src.descriptions, 1):
                np.testing.assert_array_equal(src.read(band), store[name].sel(time=day).values)
            assert json.loads(src.tags()["training_stations"]) == list(SPLIT.train)


def test_cogs_are_valid_and_their_overviews_are_means(tmp_path):
    """A map of 700 x 1100 pixels, from its store; the overview's pixel is the mean of 2 x 2."""
    from rio_cogeo.cogeo import cog_validate

    rng = np.random.default_rng(0)
    box = GeoBox.from_bbox((500_000, 5_000_000, 511_000, 5_007_000), "EPSG:32632", resolution=10)
    values = rng.random((2, 700, 1100), dtype="float32")
    values[:, :300, :300] = np.nan
    attrs = {"units": "m3 m-3", "long_name": "estimate", "source": "test", "grid_mapping": "spatial_ref"}
    time = np.array(["2020-01-01", "2020-01-03"], dtype="datetime64[ns]")
    ds = xr.Dataset({"sm": (("time", "y", "x"), values, attrs)}, {"time": time, **xr_coords(box, dims=("y", "x"))})
    ds.to_zarr(tmp_path / "m.zarr", zarr_format=3, consolidated=False)
    folder = write_cogs(tmp_path / "m.zarr", tmp_path / "maps")
    for t, day in enumerate(("2020-01-01", "2020-01-03")):
        file = folder / f"sm_{day}.tif"
        assert cog_validate(file, strict=True) == (True, [], [])
        with rasterio.open(file) as src:
            np.testing.assert_array_equal(src.read(1), values[t])
            assert src.overviews(1) == [2, 4]
        with rasterio.open(file, overview_level=0) as src:
            expected = values[t].reshape(350, 2, 550, 2).mean(axis=(1, 3))
            np.testing.assert_allclose(src.read(1), expected, rtol=1e-5)


def test_a_store_with_overviews(model, make_grid_cube, tmp_path):
    """Their pixels are means of those of 2 x 2 that hold a value, by hand; odd sizes reach beyond the map's edge."""
    grid = make_grid_cube(days=20, height=301, width=520, seed=1, gaps=0.3)
    path = smgeo.predict_map(model, grid, tmp_path / "m.zarr", DAYS, overviews=True)
    attrs = json.loads((path / "zarr.json").read_text())["attributes"]
    assert {c["name"] for c in attrs["zarr_conventions"]} == {"proj:", "spatial:", "multiscales"}
    names = {"sm", "sm_lower", "sm_upper", "applicable"}
    layout = {level["asset"]: level for level in attrs["multiscales"]["layout"]}
    assert set(layout) == {*names, *(f"2/{n}" for n in names), *(f"4/{n}" for n in names)}
    assert layout["4/sm"]["derived_from"] == "2/sm"
    whole = xr.open_zarr(path, consolidated=False, decode_coords="all").load()
    assert set(whole.data_vars) == names
    assert np.isnan(whole["sm"]).any()
    for factor in (2, 4):
        with xr.open_zarr(path, group=str(factor), consolidated=False, decode_coords="all") as ds:
            assert ds.rio.transform().to_gdal() == (500_000, 100 * factor, 0, 5_000_000, 0, -100 * factor)
            assert ds["sm"].attrs["units"] == "m3 m-3"
            for name in names:
                padded = np.pad(whole[name].values, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan)
                with np.errstate(invalid="ignore"):
                    four = padded.reshape(2, padded.shape[1] // 2, 2, padded.shape[2] // 2, 2)
                    count = np.isfinite(four).sum(axis=(2, 4))
                    expected = np.nansum(four, axis=(2, 4)) / count
                np.testing.assert_allclose(ds[name].values, expected, rtol=1e-6)
            whole = ds.load()
    # Again without them: they are gone, and the map is the same.
    again = smgeo.predict_map(model, grid, path, DAYS)
    assert not (again / "2").exists()
    assert "multiscales" not in json.loads((path / "zarr.json").read_text())["attributes"]


def test_a_region_by_its_bounds(model, grid, tmp_path):
    whole = open_cube(smgeo.predict_map(model, grid, tmp_path / "w.zarr", DAYS)).load()
    # Pixels of 100 m from 500,000 E and 5,000,000 N on: columns 2 to 4, rows 1 to 3.
    bounds = (500_200, 4_999_600, 500_500, 4_999_900)
    part = open_cube(smgeo.predict_map(model, grid, tmp_path / "p.zarr", DAYS, region=bounds)).load()
    xr.testing.assert_equal(part["sm"], whole["sm"][:, 1:4, 2:5])
    assert part.rio.bounds() == bounds


def test_a_region_by_a_polygon(model, grid, tmp_path):
    whole = open_cube(smgeo.predict_map(model, grid, tmp_path / "w.zarr", DAYS)).load()
    triangle = shapely.Polygon([(500_100, 4_999_500), (500_630, 4_999_500), (500_100, 5_000_030)])
    write_geojson(triangle, "EPSG:32632", tmp_path / "field.geojson")
    got = open_cube(smgeo.predict_map(model, grid, tmp_path / "p.zarr", DAYS, region=tmp_path / "field.geojson")).load()
    x, y = np.meshgrid(got["x"], got["y"])
    inside = shapely.contains_xy(triangle, x, y)
    assert 0 < inside.sum() < inside.size
    expected = whole["sm"].sel(x=got["x"], y=got["y"]).where(xr.DataArray(inside, dims=("y", "x")))
    np.testing.assert_array_equal(got["sm"], expected)
    known = np.isfinite(got["sm"].values).sum()
    assert got["sm"].attrs["nodata_share"] == pytest.approx(1 - known / (2 * inside.sum()), abs=1e-6)


def test_regions_that_are_none(model, grid, tmp_path):
    for region, said in (
        ((0, 0, 1, 1), "contains no pixel of the grid"),
        ((5, 0, 1, 1), "left must be less than right"),
        ((1, 2, 3), "left, bottom, right, top"),
        (tmp_path / "none.gpkg", "not found"),
    ):
        with pytest.raises(SmgeoError, match=said):
            smgeo.predict_map(model, grid, tmp_path / "m.zarr", DAYS, region=region)


def test_the_store_says_where_it_lies(model, grid, tmp_path):
    """CF and GeoZarr (https://github.com/zarr-conventions): the same place, said in two ways."""
    path = smgeo.predict_map(model, grid, tmp_path / "m.zarr", DAYS)
    attrs = json.loads((path / "zarr.json").read_text())["attributes"]
    assert attrs["proj:code"] == "EPSG:32632"
    assert attrs["spatial:transform"] == [100, 0, 500_000, 0, -100, 5_000_000]
    assert attrs["spatial:shape"] == [6, 7]
    assert {c["name"] for c in attrs["zarr_conventions"]} == {"proj:", "spatial:"}
    assert attrs["Conventions"] == "CF-1.11"
    with xr.open_zarr(path, consolidated=False, decode_coords="all") as ds:
        assert ds.rio.crs.to_epsg() == 32632
        assert ds["sm"].rio.transform().to_gdal() == (500_000, 100, 0, 5_000_000, 0, -100)


def test_layers_of_the_area_of_applicability(model, cube, grid, tmp_path):
    asked = ["expected_error", "dissimilarity", "local_point_density"]
    clay = grid["clay"].where((grid["y"] != grid["y"][0]) | (grid["x"] != grid["x"][2]), 90.0)
    grid = grid.assign(clay=clay.assign_attrs(grid["clay"].attrs))  # a place like no station
    path = smgeo.predict_map(model, grid, tmp_path / "m.zarr", DAYS, layers=asked)
    got = open_cube(path).load()
    known = np.isfinite(got["sm"].values)
    area, inside = model.applicability_, got["applicable"].values == 1
    index, density, error = (got[n].values for n in ("dissimilarity", "local_point_density", "expected_error"))
    assert (np.isfinite(index) == known).all()
    assert (np.isfinite(density) == known).all()
    assert ((index <= np.float32(area.threshold)) == inside)[known].all()
    assert ((density > 0) == inside)[known].all()
    assert density[known].max() <= 8
    assert (np.isfinite(error) == inside).all()
    assert 0 < inside.sum() < known.sum()
    np.testing.assert_allclose(error[inside], np.interp(index[inside], area.error_index, area.error), rtol=1e-5)
    assert got["expected_error"].attrs["units"] == got["sm"].attrs["units"]
    # In one order, whatever order they are asked for, and in GeoTIFFs too.
    folder = smgeo.predict_map(model, grid, tmp_path / "cogs", DAYS[:1], layers=asked, intervals=False)
    with rasterio.open(folder / f"sm_{DAYS[0]}.tif") as src:
        assert src.descriptions == ("sm", "applicable", "dissimilarity", "local_point_density", "expected_error")
        north_up = got["dissimilarity"].sel(time=DAYS[0]).sortby("y", ascending=False).values
        np.testing.assert_array_equal(src.read(3), north_up)


def test_layers_that_cannot_be_made_are_refused(model, cube, grid, tmp_path):
    out = tmp_path / "m.zarr"
    with pytest.raises(SmgeoError, match="layers: a list of some of dissimilarity, .*; got 'density', 3"):
        smgeo.predict_map(model, grid, out, layers=["density", 3])
    with pytest.raises(SmgeoError, match="layers must be a list of names; got 'dissimilarity'"):
        smgeo.predict_map(model, grid, out, layers="dissimilarity")
    plain = _fit(cube, trees=3)
    with pytest.raises(
        SmgeoError, match="layers: dissimilarity tell of the area of applicability, which the model does not know"
    ):
        smgeo.predict_map(plain, grid, out, layers=["dissimilarity"])
    parts = Split((*SPLIT.train, *SPLIT.validation), (), SPLIT.test)
    smgeo.find_applicability(plain, cube, parts, dict.fromkeys(FEATURES, 1.0), folds=4)
    with pytest.raises(SmgeoError, match="expected_error: the model's area of applicability knows no errors"):
        smgeo.predict_map(plain, grid, out, layers=["expected_error"])
    assert not out.exists()
