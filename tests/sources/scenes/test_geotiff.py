"""GeoTIFFs: dates, days, warping, units, and laziness, on rasters of a few pixels."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import subprocess
import threading

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject

from smgeo.cube.chunks import GRID_SHARD
from smgeo.errors import SmgeoError
from smgeo.sources import open_rasters
from smgeo.sources.scenes import files, layers
from smgeo.sources.scenes.files import _header_of as header_of
from smgeo.sources.scenes.files import read_window
from tests.range_server import RangeServer

TRANSFORM = from_origin(500000, 5600000, 100, 100)
UTM = "EPSG:32632"


def write(path, *bands, crs=UTM, transform=TRANSFORM, nodata=None, names=None, units=None, dtype="float32"):
    bands = [np.asarray(b, dtype=dtype) for b in bands]
    height, width = bands[0].shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=len(bands),
        dtype=dtype,
        crs=crs,
        transform=transform,
        nodata=nodata,
    ) as dst:
        for i, band in enumerate(bands):
            dst.write(band, i + 1)
            if names:
                dst.set_band_description(i + 1, names[i])
            if units:
                dst.set_band_unit(i + 1, units[i])
    return path


def forbid(*args, **kwargs):
    raise AssertionError("computed, where nothing must be")


def plane(value, shape=(2, 3)):
    return np.full(shape, value, dtype="float32")


@pytest.fixture
def series(tmp_path):
    """Precipitation of 1 and 3 January: 1 and 3 mm."""
    for d in (1, 3):
        write(tmp_path / f"p_2020010{d}.tif", plane(d))
    return tmp_path


SPEC = {"path": "p_*.tif", "dates": "p_%Y%m%d.tif", "bands": {"precipitation": 1}}


def days_of(ds):
    return [str(t)[:10] for t in ds["time"].values]


def test_dates_from_file_names(series):
    ds = open_rasters(SPEC, root=series)
    assert ds["precipitation"].dims == ("time", "y", "x")
    assert ds["precipitation"].dtype == "float32"
    assert days_of(ds) == ["2020-01-01", "2020-01-03"]
    assert ds["precipitation"].values[:, 0, 0].tolist() == [1.0, 3.0]
    assert ds["x"].values.tolist() == [500050.0, 500150.0, 500250.0]
    assert ds["y"].values.tolist() == [5599950.0, 5599850.0]
    assert ds.odc.geobox.crs.epsg == 32632
    assert ds["precipitation"].attrs["units"] == "mm d-1"


def test_day_of_the_year_in_a_name(tmp_path):
    write(tmp_path / "p_2020060.tif", plane(1))
    assert days_of(open_rasters({**SPEC, "dates": "p_%Y%j.tif"}, root=tmp_path)) == ["2020-02-29"]


def test_dates_from_a_table(series):
    (series / "dates.csv").write_text("file,date\np_20200101.tif,2021-05-01\np_20200103.tif,2021-05-02 10:30\n")
    ds = open_rasters({**SPEC, "dates": None, "dates_table": "dates.csv"}, root=series)
    assert days_of(ds) == ["2021-05-01", "2021-05-02"]
    assert ds["precipitation"].values[:, 0, 0].tolist() == [1.0, 3.0]


def test_file_that_the_table_of_dates_lacks(series):
    (series / "dates.csv").write_text("file,date\np_20200101.tif,2021-05-01\n")
    with pytest.raises(SmgeoError, match=r"p_20200103\.tif"):
        open_rasters({**SPEC, "dates": None, "dates_table": "dates.csv"}, root=series)


def test_table_of_dates_that_is_missing(series):
    with pytest.raises(SmgeoError, match=r"dates\.csv"):
        open_rasters({**SPEC, "dates": None, "dates_table": "dates.csv"}, root=series)


def test_table_of_dates_with_a_date_that_is_none(series):
    (series / "dates.csv").write_text("file,date\np_20200101.tif,soon\np_20200103.tif,2020-01-03\n")
    with pytest.raises(SmgeoError, match="soon"):
        open_rasters({**SPEC, "dates": None, "dates_table": "dates.csv"}, root=series)


def test_one_date_for_a_file(series):
    ds = open_rasters({**SPEC, "path": "p_20200101.tif", "dates": dt.date(2019, 7, 4)}, root=series)
    assert days_of(ds) == ["2019-07-04"]


def test_name_without_a_date_is_refused(series):
    write(series / "p_old.tif", plane(9))
    with pytest.raises(SmgeoError, match=r"p_old\.tif"):
        open_rasters(SPEC, root=series)


def test_period_gives_all_days_missing_where_there_is_no_file(series):
    values = open_rasters(SPEC, root=series, period=("2019-12-31", "2020-01-02"))["precipitation"]
    assert days_of(values) == ["2019-12-31", "2020-01-01", "2020-01-02"]
    np.testing.assert_array_equal(values.values[:, 1, 2], [np.nan, 1.0, np.nan])


def test_files_of_a_day_are_averaged_over_what_they_have(tmp_path):
    write(tmp_path / "a_20200101.tif", [[1.0, 2.0, np.nan]])
    write(tmp_path / "b_20200101.tif", [[3.0, np.nan, np.nan]])
    (tmp_path / "dates.csv").write_text("file,date\na_20200101.tif,2020-01-01\nb_20200101.tif,2020-01-01\n")
    ds = open_rasters({"path": "*.tif", "dates_table": "dates.csv", "bands": {"precipitation": 1}}, root=tmp_path)
    np.testing.assert_array_equal(ds["precipitation"].values, [[[2.0, 2.0, np.nan]]])


def test_decibels_are_averaged_in_linear_power(tmp_path):
    write(tmp_path / "a.tif", [[-10.0]])
    write(tmp_path / "b.tif", [[-20.0]])
    ds = open_rasters({"path": "*.tif", "dates": dt.date(2020, 1, 1), "bands": {"s1_vv": 1}}, root=tmp_path)
    # (0.1 + 0.01) / 2 = 0.055; 10 log10(0.055) = -12.596 dB, not -15.
    np.testing.assert_allclose(ds["s1_vv"].values, [[[-12.596373]]], rtol=1e-6)
    assert "linear power" in ds["s1_vv"].attrs["daily_rule"]


@pytest.mark.parametrize("in_file", [True, False])
def test_scale_offset_and_nodata(tmp_path, in_file):
    write(tmp_path / "t_20200101.tif", [[0, 100, -999]], dtype="int16", nodata=-999 if in_file else None)
    spec = {
        "path": "t_*.tif",
        "dates": "t_%Y%m%d.tif",
        "bands": {"temperature": 1},
        "scale": {"temperature": 0.5},
        "offset": {"temperature": -20},
        "nodata": None if in_file else -999,
    }
    np.testing.assert_allclose(open_rasters(spec, root=tmp_path)["temperature"].values, [[[-20.0, 30.0, np.nan]]])


@pytest.mark.parametrize(
    ("method", "crs", "resolution"),
    [
        ("nearest", "EPSG:32632", 60),
        ("bilinear", "EPSG:32632", 60),
        ("average", "EPSG:32632", 250),
        ("bilinear", "EPSG:32631", 100),
        ("nearest", "EPSG:4326", 0.001),
    ],
)
@pytest.mark.parametrize("missing", ["nodata", "nan"])
def test_warp_is_what_rasterio_does(tmp_path, method, crs, resolution, missing):
    rng = np.random.default_rng(0)
    values = rng.uniform(1, 9, (12, 10)).astype("float32")
    values[3:5, 2:4] = -9999 if missing == "nodata" else np.nan
    nodata = -9999 if missing == "nodata" else None
    write(tmp_path / "p_20200101.tif", values, nodata=nodata)
    # The target reaches beyond the source on every side.
    left, bottom, right, top = rasterio.warp.transform_bounds(UTM, crs, 499800, 5598500, 501300, 5600200)
    width, height = int((right - left) / resolution), int((top - bottom) / resolution)
    transform = from_origin(left, top, resolution, resolution)
    got = open_rasters({**SPEC, "resampling": method}, root=tmp_path, geobox=GeoBox((height, width), transform, crs))
    expected = np.full((height, width), np.nan, dtype="float32")
    reproject(
        values,
        expected,
        src_transform=TRANSFORM,
        src_crs=UTM,
        src_nodata=nodata if nodata else np.nan,
        dst_transform=transform,
        dst_crs=crs,
        dst_nodata=np.nan,
        resampling=Resampling[method],
        tolerance=0,  # GDAL is off by up to an eighth of a pixel otherwise
    )
    assert np.isnan(expected).any()
    assert np.isfinite(expected).any()
    values = got["precipitation"].values[0]
    if method == "average":
        # GDAL gives the source's last row and column a wrong weight where the target's pixel reaches beyond it.
        values, expected = values[:5, :4], expected[:5, :4]
    np.testing.assert_allclose(values, expected, rtol=1e-4)


def test_warp_keeps_zero_and_leaves_the_outside_missing(tmp_path):
    write(tmp_path / "p_20200101.tif", plane(0, (4, 4)))
    box = GeoBox((8, 8), from_origin(499800, 5600200, 100, 100), UTM)
    values = open_rasters(SPEC, root=tmp_path, geobox=box)["precipitation"].values[0]
    expected = np.full((8, 8), np.nan)
    expected[2:6, 2:6] = 0
    np.testing.assert_array_equal(values, expected)


def test_band_by_name_and_by_number(tmp_path):
    write(tmp_path / "l.tif", plane(1), plane(2), plane(3), names=["sand", "silt", "clay"])
    ds = open_rasters({"path": "l.tif", "bands": {"clay": "clay", "sand": 1}}, root=tmp_path)
    assert ds["clay"].dims == ("y", "x")
    assert (ds["clay"].values == 3).all()
    assert (ds["sand"].values == 1).all()
    assert "time" not in ds.coords


def test_wrong_band_names_the_nearest(tmp_path):
    write(tmp_path / "l.tif", plane(1), plane(2), names=["sand", "silt"])
    with pytest.raises(SmgeoError, match="did you mean 'silt'"):
        open_rasters({"path": "l.tif", "bands": {"silt": "sillt"}}, root=tmp_path)
    with pytest.raises(SmgeoError, match="bands 1 to 2"):
        open_rasters({"path": "l.tif", "bands": {"silt": 3}}, root=tmp_path)


def test_bands_in_another_order_in_a_later_file_are_found_by_name(tmp_path):
    write(tmp_path / "s1_20200101.tif", plane(-10), plane(-20), names=["vv", "vh"])
    write(tmp_path / "s1_20200102.tif", plane(-21), plane(-11), names=["vh", "vv"])
    spec = {"path": "s1_*.tif", "dates": "s1_%Y%m%d.tif", "bands": {"s1_vv": "vv"}}
    try:
        ds = open_rasters(spec, root=tmp_path)
    except SmgeoError as error:
        assert "s1_20200102.tif" in str(error)
    else:
        assert ds["s1_vv"].values[:, 0, 0].tolist() == [-10.0, -11.0]


def test_layer_that_does_not_change_has_one_file(tmp_path):
    write(tmp_path / "clay_1.tif", plane(1))
    write(tmp_path / "clay_2.tif", plane(2))
    with pytest.raises(SmgeoError, match="clay_2"):
        open_rasters({"path": "clay_*.tif", "bands": {"clay": 1}}, root=tmp_path)


def test_raster_without_crs_is_refused(tmp_path):
    write(tmp_path / "p_20200101.tif", plane(1), crs=None)
    with pytest.raises(SmgeoError, match=r"p_20200101\.tif has no CRS"):
        open_rasters(SPEC, root=tmp_path)


def test_unit_of_a_band_must_be_the_cubes_unless_converted(tmp_path):
    write(tmp_path / "t_20200101.tif", plane(283.15), units=["K"])
    spec = {"path": "t_*.tif", "dates": "t_%Y%m%d.tif", "bands": {"temperature": 1}}
    with pytest.raises(SmgeoError, match="'K'.*'degC'"):
        open_rasters(spec, root=tmp_path)
    converted = open_rasters({**spec, "offset": {"temperature": -273.15}}, root=tmp_path)
    np.testing.assert_allclose(converted["temperature"].values, plane(10)[None], atol=1e-4)


@pytest.mark.parametrize("unit", ["metre", "m", "Meters"])
def test_a_unit_has_several_names(tmp_path, unit):
    """GDAL says metre of a DEM whose CRS has a vertical part."""
    write(tmp_path / "dem.tif", plane(7), units=[unit])
    ds = open_rasters({"path": "dem.tif", "bands": {"elevation": 1}}, root=tmp_path)
    assert ds["elevation"].values[0, 0] == 7
    assert ds["elevation"].attrs["units"] == "m"


@pytest.mark.parametrize(("key", "value"), [("bands", {}), ("path", []), ("path", "")])
def test_a_source_names_files_and_bands(key, value):
    with pytest.raises(SmgeoError, match=f"{key} is empty"):
        open_rasters({**SPEC, key: value})


def test_headers_of_remote_files_are_read_many_at_a_time(series, monkeypatch):
    threads = set()
    monkeypatch.setattr(files, "_header_of", lambda *a: threads.add(threading.get_ident()) or header_of(*a))
    with RangeServer(series) as server:
        urls = [f"{server.url}/{name}" for name in ("p_20200101.tif", "p_20200103.tif")]
        ds = open_rasters({**SPEC, "path": urls})
        assert ds["precipitation"].values[:, 0, 0].tolist() == [1, 3]
        assert len(threads) == 2
        assert threading.get_ident() not in threads
        with pytest.raises(SmgeoError, match=r"p_20200104\.tif cannot be opened as a raster"):
            open_rasters({**SPEC, "path": [*urls, f"{server.url}/p_20200104.tif"]})


def test_grids_that_differ_need_a_target(series):
    write(series / "p_20200105.tif", plane(5), transform=from_origin(0, 0, 90, 90))
    with pytest.raises(SmgeoError, match=r"p_20200105\.tif is on another grid"):
        open_rasters(SPEC, root=series)


def test_no_file(tmp_path):
    with pytest.raises(SmgeoError, match=r"no raster matches .*p_\*\.tif"):
        open_rasters(SPEC, root=tmp_path)


def band_files(folder, *bands):
    for band in bands:
        for day in ("20180131", "20180201"):
            write(folder / f"LC08_{day}_T1_{band}.TIF", plane(1))
    return {"bands": {"l8_b10": "B10"}, "path": "LC08_*_{band}.TIF", "dates": "LC08_%Y%m%d_*_{band}.TIF"}


def test_band_that_no_file_has_names_those_that_are_there(tmp_path):
    spec = band_files(tmp_path, "B10", "B11")
    with pytest.raises(SmgeoError, match=r"no raster matches .*_B12\.TIF .*; files have B10, B11 in place of \{band\}"):
        open_rasters({**spec, "bands": {"l8_b10": "B12"}}, root=tmp_path)
    (tmp_path / "B10").mkdir()
    write(tmp_path / "B10" / "x_B10.TIF", plane(1))
    with pytest.raises(SmgeoError, match=r"; files have B10 in place of \{band\}"):
        open_rasters({**spec, "path": "{band}/*_{band}.TIF", "bands": {"l8_b10": "B12"}}, root=tmp_path)
    with pytest.raises(SmgeoError, match=r"no raster matches .*_B10\.tiff \(relative paths start at --data\)$"):
        open_rasters({**spec, "path": "LC08_*_{band}.tiff"}, root=tmp_path)


def test_refused_date_names_a_file_that_is_there(tmp_path):
    spec = band_files(tmp_path, "B10")
    with pytest.raises(
        SmgeoError, match=r"^LC08_20180131_T1_B10\.TIF does not match dates 'LC09.*place of its date, and"
    ):
        open_rasters({**spec, "dates": "LC09_%Y%m%d_*_{band}.TIF"}, root=tmp_path)
    with pytest.raises(SmgeoError, match=r"^LC08_20180131_T1_B10\.TIF .*\{band\} in place of the name of a band"):
        open_rasters({**spec, "dates": "LC08_%Y%m%d_*_B10.TIF"}, root=tmp_path)
    with pytest.raises(SmgeoError, match=r"^LC08_20180131_T1_B10\.TIF .*would be year 2018, day 01, month 31"):
        open_rasters({**spec, "dates": "LC08_%Y%d%m_*_{band}.TIF"}, root=tmp_path)


def test_file_that_is_no_raster(tmp_path):
    (tmp_path / "p_20200101.tif").write_text("text")
    with pytest.raises(SmgeoError, match=r"p_20200101\.tif cannot be opened"):
        open_rasters(SPEC, root=tmp_path)


def test_opening_computes_nothing_and_has_one_task_a_block(series, monkeypatch):
    box = GeoBox((GRID_SHARD["y"] + 1, 2 * GRID_SHARD["x"] + 1), TRANSFORM, UTM)
    read = []
    with dask.config.set(scheduler=forbid), monkeypatch.context() as patched:
        # Samples show the unit: one of each of a few files.
        patched.setattr(layers, "read_window", lambda *args: read.append(args) or read_window(*args))
        ds = open_rasters(SPEC, root=series, geobox=box, period=("2020-01-01", "2020-03-01"))
    assert len(read) == 2
    array = ds["precipitation"].data
    assert array.shape == (61, 257, 513)
    assert array.numblocks == (3, 2, 3)
    # One that reads all variables, and one that picks this one.
    assert len(array.__dask_graph__().to_dict()) == 2 * 3 * 2 * 3
    assert float(array[0, 0, 0].compute()) == 1.0


def test_scale_and_offset_tags_of_a_file_hold_unless_the_recipe_says_otherwise(tmp_path):
    with rasterio.open(
        tmp_path / "t.tif", "w", driver="GTiff", count=1, dtype="int16", height=2, width=2, crs="EPSG:32632",
        transform=from_origin(0, 20, 10, 10), nodata=-1,
    ) as dst:  # fmt: skip
        dst.write(np.array([[100, 200], [300, -1]], dtype="int16"), 1)
        dst.scales, dst.offsets = (0.1,), (5.0,)
    spec = {"path": "t.tif", "bands": {"elevation": 1}}
    tagged = open_rasters(spec, root=tmp_path)["elevation"].values
    np.testing.assert_allclose(tagged, [[15, 25], [35, np.nan]], rtol=1e-6)
    said = open_rasters({**spec, "scale": {"elevation": 2}, "offset": {"elevation": 0}}, root=tmp_path)[
        "elevation"
    ].values
    np.testing.assert_allclose(said, [[200, 400], [600, np.nan]], rtol=1e-6)


# Rasters without a grid on Earth


def advised(message, tool):
    """Return the command that a message advises, from the name of the tool on."""
    return re.search(rf"{tool} .*?\.tif [^ ,]+\.tif", message).group(0)


def by_control_points(path, **profile):
    values = np.repeat(np.arange(4, dtype="float32"), 4).reshape(4, 4)
    with rasterio.open(path, "w", driver="GTiff", height=4, width=4, count=1, dtype="float32", **profile) as dst:
        dst.write(values[None])
        points = [GroundControlPoint(row=r, col=c, x=8 + c * 1e-3, y=50 - r * 1e-3) for r in (0, 4) for c in (0, 4)]
        dst.gcps = (points, "EPSG:4326")


@pytest.mark.skipif(shutil.which("gdalwarp") is None, reason="needs GDAL's programs")
def test_the_advice_for_control_points_works(tmp_path):
    path = tmp_path / "p_20200101.tif"
    by_control_points(path)
    with pytest.raises(
        SmgeoError, match=r"placed by ground control points and has no grid; make one first: gdalwarp"
    ) as refused:
        open_rasters(SPEC, root=tmp_path)
    assert "rio edit-info" not in str(refused.value)
    words = advised(str(refused.value), "gdalwarp").split()
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    spec = {**SPEC, "path": words[-1], "dates": dt.date(2020, 1, 1)}
    stations = xr.Dataset(
        coords={
            "station": ["a", "b"],
            "latitude": ("station", [49.9995, 49.9965]),
            "longitude": ("station", [8.0005, 8.0035]),
        }
    )
    got = open_rasters(spec, root=tmp_path, stations=stations)["precipitation"].values
    np.testing.assert_array_equal(got, [[0], [3]])


@pytest.mark.skipif(shutil.which("gdal_translate") is None, reason="needs GDAL's programs")
@pytest.mark.parametrize("crs", [None, "EPSG:4326"])
def test_a_raster_without_a_transform_gets_one(tmp_path, crs):
    write(tmp_path / "p_20200101.tif", [[1, 2], [3, 4]], crs=crs, transform=None)
    with pytest.raises(
        SmgeoError, match="has no grid: its transform is the identity.*gdal_translate -a_srs"
    ) as refused:
        open_rasters(SPEC, root=tmp_path)
    command = advised(str(refused.value), "gdal_translate").replace("EPSG:...", "EPSG:4326")
    command = command.replace("LEFT TOP RIGHT BOTTOM", "8 50 9 49")
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    spec = {**SPEC, "path": command.split()[-1], "dates": dt.date(2020, 1, 1)}
    assert open_rasters(spec, root=tmp_path).odc.geobox.affine[:6] == (0.5, 0, 8, 0, -0.5, 50)


def test_a_raster_placed_by_coefficients(tmp_path):
    terms = [1.0] + [0.0] * 19
    rpc = rasterio.rpc.RPC(
        height_off=0, height_scale=1, lat_off=50, lat_scale=1, line_off=0, line_scale=1, long_off=8, long_scale=1,
        samp_off=0, samp_scale=1, line_num_coeff=terms, line_den_coeff=terms, samp_num_coeff=terms, samp_den_coeff=terms,
    )  # fmt: skip
    with rasterio.open(
        tmp_path / "p_20200101.tif", "w", driver="GTiff", height=2, width=2, count=1, dtype="float32", rpcs=rpc
    ) as dst:
        dst.write(np.zeros((1, 2, 2), "float32"))
    with pytest.raises(SmgeoError, match=r"placed by rational polynomial coefficients .*gdalwarp -rpc -t_srs"):
        open_rasters(SPEC, root=tmp_path)


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_numbers_are_refused(tmp_path, dtype):
    with rasterio.open(
        tmp_path / "p_20200101.tif",
        "w",
        driver="GTiff",
        height=2,
        width=2,
        count=1,
        dtype=dtype,
        crs=UTM,
        transform=TRANSFORM,
    ) as dst:
        dst.write(np.full((1, 2, 2), 3 + 4j, "complex64"))
    with pytest.raises(SmgeoError, match=rf"contains complex numbers \({dtype}\).*abs\(A\)"):
        open_rasters(SPEC, root=tmp_path)


def test_rows_that_are_no_latitudes_are_refused(tmp_path):
    write(tmp_path / "p_20200101.tif", plane(1), crs="EPSG:4326")
    with pytest.raises(SmgeoError, match=r"its CRS is EPSG:4326, but its rows reach from .* which are no latitudes"):
        open_rasters(SPEC, root=tmp_path)
    # A globe may go half a pixel beyond the poles.
    write(tmp_path / "p_20200101.tif", np.ones((181, 360)), crs="EPSG:4326", transform=from_origin(-180.5, 90.5, 1, 1))
    assert open_rasters(SPEC, root=tmp_path)["precipitation"].shape == (1, 181, 360)


def test_columns_that_are_no_longitudes_are_refused(tmp_path):
    write(tmp_path / "p_20200101.tif", plane(1), crs="EPSG:4326", transform=from_origin(1.5e20, 50, 0.1, 0.1))
    with pytest.raises(SmgeoError, match=r"its columns reach from 1.5e\+20 to .*, which are no longitudes"):
        open_rasters(SPEC, root=tmp_path)
    write(tmp_path / "p_20200101.tif", np.ones((2, 360)), crs="EPSG:4326", transform=from_origin(179.5, 50, 1, 1))
    assert open_rasters(SPEC, root=tmp_path)["precipitation"].shape == (1, 2, 360)


def test_a_file_that_is_far_from_the_others_makes_no_huge_grid(tmp_path):
    """One damaged byte of a file's place: the grid of all files would have had 1e17 pixels, and was begun."""
    write(tmp_path / "p_20200101.tif", plane(1))
    write(
        tmp_path / "p_20200102.tif", plane(2), transform=from_origin(TRANSFORM.c + 100e9, TRANSFORM.f + 100e9, 100, 100)
    )
    with pytest.raises(
        SmgeoError, match=r"p_20200102.tif .* and .*p_20200101.tif .* so far apart that a grid of both has"
    ):
        open_rasters(SPEC, root=tmp_path)


def test_transforms_that_differ_by_rounding_are_one_grid(tmp_path):
    write(tmp_path / "p_20200101.tif", plane(1), crs="EPSG:4326", transform=from_origin(8, 50, 0.1, 0.1))
    rounded = from_origin(8, 50, float(np.float32(0.1)), float(np.float32(0.1)))
    write(tmp_path / "p_20200102.tif", plane(2), crs="EPSG:4326", transform=rounded)
    write(tmp_path / "p_20200103.tif", plane(3), crs="EPSG:4326", transform=from_origin(8.0004, 50, 0.1, 0.1))
    for where in ({}, {"geobox": GeoBox((2, 3), from_origin(8, 50, 0.1, 0.1), "EPSG:4326")}):
        p = open_rasters({**SPEC, "daily": "sum"}, root=tmp_path, **where)["precipitation"]
        np.testing.assert_array_equal(p.values[:, 0, 0], [1, 2, 3])


def test_stations_that_are_no_place_are_refused(series):
    stations = xr.Dataset(coords={"station": ["a"], "latitude": ("station", [100.0]), "longitude": ("station", [9.0])})
    with pytest.raises(SmgeoError, match="station a is at latitude 100, longitude 9, which is no place on Earth"):
        open_rasters(SPEC, root=series, stations=stations)
