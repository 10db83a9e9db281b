"""Scenes each on a grid of their own: mosaics, masks, stations, on rasters of a few pixels with truth by hand."""

from __future__ import annotations

import os
import pickle

import dask
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer
from rasterio.transform import from_origin

from smgeo import extract
from smgeo.cube.chunks import GRID_SHARD
from smgeo.cube.reading import open_cube
from smgeo.cube.schema import DAY_INPUTS
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.recipe.rasters import RasterSource
from smgeo.sources import open_rasters
from smgeo.sources.scenes import blocks as scenes
from smgeo.sources.scenes import files
from smgeo.sources.scenes.files import read_header, read_window
from smgeo.sources.scenes.geotiff import geotiff_files
from smgeo.sources.scenes.layers import read_layers

UTM32, UTM33 = "EPSG:32632", "EPSG:32633"
TRANSFORM = from_origin(500000, 5600000, 100, 100)


def write(path, *bands, crs=UTM32, transform=TRANSFORM, nodata=None, names=None, dtype="float32", **options):
    bands = [np.asarray(b, dtype=dtype) for b in bands]
    height, width = bands[0].shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": len(bands), "dtype": dtype}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, nodata=nodata, **options) as dst:
        for i, band in enumerate(bands):
            dst.write(band, i + 1)
            if names:
                dst.set_band_description(i + 1, names[i])
    return path


def places(*lonlat):
    lons, lats = zip(*lonlat, strict=True)
    return xr.Dataset(
        coords={
            "station": [f"N/{i}" for i in range(len(lons))],
            "longitude": ("station", list(lons)),
            "latitude": ("station", list(lats)),
        }
    )


def lonlat(crs, x, y):
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)


# A scene of three files a date, Landsat's way: QA bit 4 is cloud (Collection 1).
LANDSAT = {
    "path": "LC08_*_{band}.TIF",
    "bands": {"l8_b10": "B10", "l8_b11": "B11"},
    "dates": "LC08_%Y%m%d_*.TIF",
    "scale": {"l8_b10": 2, "l8_b11": 2},
    "offset": {"l8_b10": 200, "l8_b11": 200},
    "mask": {"band": "BQA", "rule": "landsat_c1"},
}


@pytest.fixture
def landsat(tmp_path):
    """Two dates; on the first, two scenes that overlap by two columns, each with other clouds."""
    east = from_origin(500200, 5600000, 100, 100)
    for name, transform, b10, qa in (
        ("20200101_a", TRANSFORM, [[10, 11, 12, 13]], [[0, 16, 16, 0]]),
        ("20200101_b", east, [[22, 23, 24, 25]], [[0, 16, 0, 1]]),
        ("20200103_a", TRANSFORM, [[30, 31, 32, 33]], [[0, 0, 0, 0]]),
    ):
        write(tmp_path / f"LC08_{name}_B10.TIF", b10, transform=transform, dtype="uint16", nodata=0)
        write(tmp_path / f"LC08_{name}_B11.TIF", np.add(b10, 40), transform=transform, dtype="uint16", nodata=0)
        write(tmp_path / f"LC08_{name}_BQA.TIF", qa, transform=transform, dtype="uint16")
    return tmp_path


def test_a_file_for_every_band_with_its_clouds_left_out(landsat):
    ds = open_rasters(LANDSAT, root=landsat)
    # Columns of a: 0 to 3, of b: 2 to 5; clouds at a's 1 and 2, b's 3; b's 5 is fill. Every valid pixel of a day is kept.
    first = [10, np.nan, 22, 13, 24, np.nan]
    np.testing.assert_array_equal(ds["l8_b10"].values[0, 0], np.multiply(first, 2) + 200)
    np.testing.assert_array_equal(ds["l8_b11"].values[0, 0], np.multiply(np.add(first, 40), 2) + 200)
    np.testing.assert_array_equal(ds["l8_b10"].values[1, 0], np.multiply([30, 31, 32, 33, np.nan, np.nan], 2) + 200)
    assert ds["l8_b10"].attrs["daily_rule"].startswith("the clearest")
    assert ds.sizes == {"time": 2, "y": 1, "x": 6}
    assert ds["x"].values[[0, -1]].tolist() == [500050, 500550]


def test_a_scene_lacks_its_quality_band(landsat):
    (landsat / "LC08_20200103_a_BQA.TIF").unlink()
    with pytest.raises(SmgeoError, match=r"LC08_20200103_a.*no quality band 'BQA'"):
        open_rasters(LANDSAT, root=landsat)


def test_all_files_are_named(landsat):
    spec = RasterSource(kind="geotiff", **LANDSAT)
    assert {f.name for f in geotiff_files(spec, landsat)} == {f.name for f in landsat.iterdir()}


def test_a_quality_band_of_coarser_pixels(tmp_path):
    values = np.arange(16).reshape(4, 4) / 16
    write(tmp_path / "b_20200101_B4.tif", values)
    write(
        tmp_path / "b_20200101_SCL.tif",
        [[4, 9], [3, 5]],
        transform=from_origin(500000, 5600000, 200, 200),
        dtype="uint8",
    )
    spec = {
        "path": "b_*_{band}.tif",
        "bands": {"s2_b4": "B4"},
        "dates": "b_%Y%m%d_*.tif",
        "mask": {"band": "SCL", "rule": "s2_scl"},
    }
    expected = values.astype(float)
    expected[:2, 2:] = np.nan  # 9: cloud
    expected[2:, :2] = np.nan  # 3: cloud shadow
    np.testing.assert_array_equal(open_rasters(spec, root=tmp_path)["s2_b4"].values[0], expected)


def test_where_the_quality_band_ends_nothing_is_clear(tmp_path):
    write(tmp_path / "b_20200101_B4.tif", np.ones((2, 4)))
    write(tmp_path / "b_20200101_QA.tif", np.zeros((2, 3)), dtype="uint8")
    spec = {
        "path": "b_*_{band}.tif",
        "bands": {"s2_b4": "B4"},
        "dates": "b_%Y%m%d_*.tif",
        "mask": {"band": "QA", "bits": [0]},
    }
    values = open_rasters(spec, root=tmp_path)["s2_b4"].values[0]
    np.testing.assert_array_equal(values, [[1, 1, 1, np.nan]] * 2)


def test_interpolation_does_not_reach_under_a_cloud(tmp_path):
    write(tmp_path / "b_20200101_B4.tif", [[0.25, 0.5, 100, 100]])
    write(tmp_path / "b_20200101_QA.tif", [[0, 0, 1, 1]], dtype="uint8")
    spec = {
        "path": "b_*_{band}.tif",
        "bands": {"s2_b4": "B4"},
        "dates": "b_%Y%m%d_*.tif",
        "mask": {"band": "QA", "bits": [0]},
        "resampling": "bilinear",
    }
    box = GeoBox((1, 8), Affine(50, 0, 500000, 0, -100, 5600000), UTM32)
    values = open_rasters(spec, root=tmp_path, geobox=box)["s2_b4"].values[0, 0]
    np.testing.assert_allclose(values, [0.25, 0.3125, 0.4375, 0.5, *[np.nan] * 4])


def test_a_stack_of_dates_in_one_file(tmp_path):
    names = ["VV", "VH", "VV_1", "VH_1", "VV_2", "VH_2", "elevation"]
    write(tmp_path / "chip.tif", *(np.full((2, 2), -i) for i in range(1, 8)), names=names)
    spec = {
        "path": "chip.tif",
        "bands": {"s1_vv": "VV{step}", "s1_vh": "VH{step}"},
        "dates": ["2020-01-15", "2020-02-15", "2020-03-15"],
    }
    ds = open_rasters(spec, root=tmp_path)
    assert [str(t)[:10] for t in ds["time"].values] == spec["dates"]
    assert ds["s1_vv"].values[:, 0, 0].tolist() == [-1, -3, -5]
    assert ds["s1_vh"].values[:, 0, 0].tolist() == [-2, -4, -6]
    both = open_rasters({**spec, "bands": {"s1_vv": "VV{step}", "elevation": "elevation"}}, root=tmp_path)
    assert both["s1_vv"].values[:, 0, 0].tolist() == [-1, -3, -5]
    assert both["elevation"].values[0, 0] == -7
    with pytest.raises(SmgeoError, match="there are 3 dates, so s1_vh needs a band for each"):
        open_rasters({**spec, "bands": {"s1_vv": "VV{step}", "s1_vh": "VH"}}, root=tmp_path)


def test_brackets_in_paths(landsat):
    """Those of a folder's name are no pattern; those of a recipe are, for all files of a scene alike."""
    folder = landsat / "run [1]"
    folder.mkdir()
    for file in landsat.glob("*.TIF"):
        file.rename(folder / file.name)
    expected = open_rasters({**LANDSAT, "path": "LC08_20200101_*_{band}.TIF"}, root=folder)["l8_b10"].values
    for path in ("LC08_2020010[12]_[ab]_{band}.TIF", "LC08_2020010?_?_{band}.TIF"):
        found = open_rasters({**LANDSAT, "path": path}, root=folder)["l8_b10"]
        np.testing.assert_array_equal(found.values[0], expected[0])
    one = open_rasters({**LANDSAT, "path": "run [1]/LC08_20200103_a_{band}.TIF"}, root=landsat)["l8_b10"]
    assert one.values[0, 0, 0] == 260


def test_tiles_of_what_does_not_change_are_put_together(tmp_path):
    write(tmp_path / "dem_w.tif", [[1, -32767], [3, 4]], nodata=-32767)
    write(tmp_path / "dem_e.tif", [[5, 6], [7, 8]], nodata=-32767, transform=from_origin(500200, 5600000, 100, 100))
    ds = open_rasters({"path": "dem_*.tif", "bands": {"elevation": 1}}, root=tmp_path)
    np.testing.assert_array_equal(ds["elevation"].values, [[1, np.nan, 5, 6], [3, 4, 7, 8]])


def test_radiance_and_power_are_converted(tmp_path):
    write(tmp_path / "r_20200101.tif", [[10.0, 0.0]])
    spec = {"path": "r_*.tif", "dates": "r_%Y%m%d.tif"}
    kelvin = open_rasters(
        {**spec, "bands": {"l8_b10": 1}, "convert": {"l8_b10": "landsat8_b10_to_kelvin"}}, root=tmp_path
    )["l8_b10"].values[0, 0]
    # K2 / ln(K1 / L + 1) with K1 774.8853 and K2 1321.0789.
    np.testing.assert_allclose(kelvin, [302.7947, np.nan], atol=2e-4)
    decibels = open_rasters({**spec, "bands": {"s1_vv": 1}, "convert": {"s1_vv": "power_to_db"}}, root=tmp_path)
    np.testing.assert_allclose(decibels["s1_vv"].values[0, 0], [10, np.nan])


def test_decibels_are_resampled_in_power(tmp_path):
    write(tmp_path / "v_20200101.tif", [[0.0, 10.0]])
    spec = {"path": "v_*.tif", "dates": "v_%Y%m%d.tif", "bands": {"s1_vv": 1}, "resampling": "average"}
    box = GeoBox((1, 1), Affine(200, 0, 500000, 0, -100, 5600000), UTM32)
    np.testing.assert_allclose(
        open_rasters(spec, root=tmp_path, geobox=box)["s1_vv"].values[0, 0], 10 * np.log10((1 + 10) / 2), rtol=1e-6
    )


@pytest.mark.parametrize("convert", ["none", "power_to_db"])
def test_scenes_of_a_day_meet_in_power_whatever_their_grids(tmp_path, convert):
    """One scene has the target's pixels, the other lies half a pixel to the east and is interpolated."""
    db = np.array([[-20.0, -10, -7, -3], [-18, -12, -9, -1]])
    files = db if convert == "none" else 10 ** (db / 10)
    write(tmp_path / "v_20200101_a.tif", files[:1])
    write(tmp_path / "v_20200101_b.tif", files[1:], transform=from_origin(500050, 5600000, 100, 100))
    spec = {"path": "v_*.tif", "dates": "v_%Y%m%d_*.tif", "bands": {"s1_vv": 1}, "convert": {"s1_vv": convert}}
    got = open_rasters({**spec, "resampling": "bilinear"}, root=tmp_path, geobox=GeoBox((1, 4), TRANSFORM, UTM32))
    power = 10 ** (db / 10)
    moved = [power[1, 0], *(power[1, 1:] + power[1, :-1]) / 2]  # the first centre is on the edge of the first pixel
    expected = 10 * np.log10((power[0] + moved) / 2)
    np.testing.assert_allclose(got["s1_vv"].values[0, 0], expected, atol=2e-6)


@pytest.fixture
def world(tmp_path):
    """One day: a scene in zone 32, one in zone 33 a few hundred kilometres east, 4 x 4 pixels of 100 m; another day in 32."""
    values = np.arange(16.0).reshape(4, 4)
    write(tmp_path / "p_20200101_32.tif", values)
    write(tmp_path / "p_20200101_33.tif", values + 100, crs=UTM33, nodata=105)
    write(tmp_path / "p_20200131_32.tif", values + 200)
    return tmp_path


PAIR = {"path": "p_*.tif", "dates": "p_%Y%m%d_*.tif", "bands": {"precipitation": 1}}


def test_stations_in_different_zones_need_no_common_grid(world):
    stations = places(
        lonlat(UTM32, 500150, 5599950),  # row 0, column 1
        lonlat(UTM33, 500399, 5599601),  # row 3, column 3
        lonlat(UTM33, 500150, 5599850),  # row 1, column 1: missing there
        (0.0, 0.0),
    )
    ds = open_rasters(PAIR, root=world, stations=stations, period=("2020-01-01", "2020-01-31"))
    p = ds["precipitation"]
    assert p.dims == ("station", "time")
    assert p.shape == (4, 31)
    assert p.data.chunks == ((4,), (30, 1))
    assert p.values[:, 0].tolist()[:2] == [1, 115]
    assert p.values[0, 30] == 201
    assert np.isfinite(p.values).sum() == 3
    assert ds.attrs["left_out"] == '{"N/3": "outside p_*.tif"}'


def test_extract_takes_a_spec(world, monkeypatch):
    monkeypatch.chdir(world)
    stations = places(lonlat(UTM32, 500150, 5599950), lonlat(UTM33, 500350, 5599650), (0.0, 0.0))
    with pytest.warns(SmgeoWarning, match="N/2"):
        values = extract(PAIR, stations)
    assert values["station"].values.tolist() == ["N/0", "N/1"]
    np.testing.assert_array_equal(values["precipitation"].values, [[1, 201], [115, np.nan]])


def test_a_footprint_is_the_mean_of_the_pixels_around(tmp_path):
    rng = np.random.default_rng(1)
    values = rng.normal(-12, 4, (9, 9))
    values[4, 3] = np.nan
    write(tmp_path / "v_20200101.tif", values, transform=from_origin(500000, 5600000, 10, 10))
    station = lonlat(UTM32, 500047, 5599951)
    spec = {"path": "v_*.tif", "dates": "v_%Y%m%d.tif", "bands": {"s1_vv": 1}, "radius_m": 22.0}
    got = open_rasters(spec, root=tmp_path, stations=places(station))["s1_vv"]
    total, count = 0.0, 0
    for row in range(9):
        for column in range(9):
            centre = lonlat(UTM32, 500005 + 10 * column, 5599995 - 10 * row)
            _, _, metres = Geod(ellps="WGS84").inv(*station, *centre)
            if metres <= 22 and np.isfinite(values[row, column]):
                total, count = total + 10 ** (values[row, column] / 10), count + 1
    assert count > 10
    np.testing.assert_allclose(got.values, [[10 * np.log10(total / count)]], rtol=1e-5)
    cube = open_rasters({**spec, "radius_m": None}, root=tmp_path)
    np.testing.assert_allclose(extract(cube, places(station), radius_m=22.0)["s1_vv"].values, got.values, rtol=1e-6)
    with pytest.raises(SmgeoError, match="radius_m"):
        extract(cube, places(station), method="mean")


def test_aspect_has_no_mean(tmp_path):
    write(tmp_path / "a.tif", [[350.0, 10.0, 20.0]], [[35.0, 10.0, 20.0]])
    spec = {"path": "a.tif", "bands": {"aspect": 1, "slope": 2}, "radius_m": 120}
    ds = open_rasters(spec, root=tmp_path, stations=places(lonlat(UTM32, 500150, 5599950)))
    assert ds["aspect"].values.tolist() == [10]
    np.testing.assert_allclose(ds["slope"].values, [65 / 3], rtol=1e-6)


def test_a_task_carries_its_own_days_and_its_own_scenes_alone(tmp_path):
    # 40 scenes side by side, a day each; blocks of 256 columns see their own only.
    for i in range(4):
        transform = from_origin(500000 + 25600 * i, 5600000, 100, 100)
        write(tmp_path / f"p_2020010{i + 1}.tif", np.full((4, 256), i), transform=transform)
    box = GeoBox((4, 1024), TRANSFORM, UTM32)
    spec = {"path": "p_*.tif", "dates": "p_%Y%m%d.tif", "bands": {"precipitation": 1}, "resampling": "nearest"}
    ds = open_rasters(spec, root=tmp_path, geobox=box)
    graph = dict(ds["precipitation"].data.__dask_graph__())
    sizes = [len(pickle.dumps(v)) for k, v in graph.items() if k[0].startswith("scenes-")]
    assert len(sizes) == 4
    named = [pickle.dumps(v).count(b"p_202001") for k, v in graph.items() if k[0].startswith("scenes-")]
    assert max(named) <= 3 * 3  # the scene's own name, its file, its state; and those whose edge it shares
    values = ds["precipitation"].values
    for i in range(4):
        assert np.isfinite(values[i]).sum() == 4 * 256
        assert (values[i, :, 256 * i : 256 * (i + 1)] == i).all()


def test_new_scenes_rewrite_the_regions_of_their_days_alone(tmp_path, monkeypatch):
    for d in (1, 2, 40, 70):
        day = pd.Timestamp("2020-01-01") + pd.Timedelta(days=d - 1)
        write(tmp_path / f"p_{day:%Y%m%d}.tif", np.full((2, 2), d))
    spec = {"path": "p_*.tif", "dates": "p_%Y%m%d.tif", "bands": {"precipitation": 1}}
    period = ("2020-01-01", "2020-03-30")  # three regions of 30 days
    read: list[str] = []
    plain = read_window

    def counted(href, *args):
        read.append(href.rsplit("_")[-1])
        return plain(href, *args)

    monkeypatch.setattr("smgeo.sources.scenes.layers.read_window", counted)
    store = tmp_path / "c.zarr"

    def built(period):
        """The files that writing reads, beyond the samples that opening reads."""
        ds = open_rasters(spec, root=tmp_path, period=period)
        read.clear()
        write_cube(ds, store)
        return sorted(read)

    with dask.config.set(scheduler="synchronous"):
        assert built(period) == ["20200101.tif", "20200102.tif", "20200209.tif", "20200310.tif"]
        assert DAY_INPUTS not in open_cube(store).variables
        write(tmp_path / "p_20200320.tif", np.full((2, 2), 80))
        assert built(period) == ["20200310.tif", "20200320.tif"]
        longer = ("2020-01-01", "2020-04-29")
        assert built(longer) == []
        # The second region begins on 31 January, whose sum over 30 days reaches back to 2 January and no further.
        write(tmp_path / "p_20200101.tif", np.full((2, 2), 3))
        assert built(longer) == ["20200101.tif", "20200102.tif"]
        write(tmp_path / "p_20200102.tif", np.full((2, 2), 4))
        assert built(longer) == ["20200101.tif", "20200102.tif", "20200209.tif"]
    values = open_cube(store)["precipitation"].values
    assert [int(values[i, 0, 0]) for i in (0, 1, 39, 69, 79)] == [3, 4, 40, 70, 80]
    assert np.isfinite(values[:, 0, 0]).sum() == 5


def test_a_copy_of_the_same_size_and_time_is_another_file(tmp_path):
    path = write(tmp_path / "p_20200101.tif", [[1.0, 2.0]])
    before = path.stat()
    spec = {"path": "p_*.tif", "dates": "p_%Y%m%d.tif", "bands": {"precipitation": 1}}
    write_cube(open_rasters(spec, root=tmp_path), tmp_path / "c.zarr")
    write(tmp_path / "other.tif", [[3.0, 2.0]])
    os.utime(tmp_path / "other.tif", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(tmp_path / "other.tif", path)  # as rsync -t does
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    write_cube(open_rasters(spec, root=tmp_path), tmp_path / "c.zarr")
    assert open_cube(tmp_path / "c.zarr")["precipitation"].values[0].tolist() == [[3.0, 2.0]]


def test_a_damaged_file_is_named(tmp_path):
    path = write(tmp_path / "p_20200101.tif", np.random.default_rng(0).random((300, 300)), compress="deflate")
    ds = open_rasters({"path": "p_*.tif", "dates": "p_%Y%m%d.tif", "bands": {"precipitation": 1}}, root=tmp_path)
    size = path.stat().st_size
    with path.open("r+b") as f:
        f.seek(size // 2)
        f.write(b"\0" * 2000)
    with pytest.raises(SmgeoError, match=r"p_20200101\.tif cannot be read"):
        ds["precipitation"].compute()


def test_headers_are_read_once_while_a_file_stays(tmp_path, monkeypatch):
    path = str(write(tmp_path / "a.tif", [[1.0]]))
    assert read_header(path) is read_header(path)
    write(path, [[1.0, 2.0]])
    assert read_header(path).box.shape == (1, 2)
    assert read_window(path, [1], ((0, 1), (1, 2))).tolist() == [[[2.0]]]
    assert len(files._opened.files) <= 64


# Any target


@pytest.mark.parametrize("left", [177, 177.5, 200, -200])
def test_a_target_beyond_the_180th_meridian(tmp_path, left):
    """A globe in pixels of one degree, each of which holds its longitude and latitude; the target goes round the Earth."""
    lons, lats = np.meshgrid(np.arange(-179.5, 180), np.arange(9.5, -10, -1))
    path = write(
        tmp_path / "globe.tif", (lons + 180) * 20 + lats, crs="EPSG:4326", transform=from_origin(-180, 10, 1, 1)
    )
    target = GeoBox((4, 6), Affine(1, 0, left, 0, -1, 2), "EPSG:4326")
    spec = {"path": str(path), "bands": {"elevation": 1}, "resampling": "nearest"}
    found = open_rasters(spec, geobox=target)["elevation"].values
    centres = (np.floor(left + np.arange(6) + 0.5) + 0.5 + 180) % 360 - 180
    np.testing.assert_array_equal(found, (centres + 180) * 20 + np.array([[1.5], [0.5], [-0.5], [-1.5]]))


def test_longitudes_of_0_to_360(tmp_path):
    path = write(tmp_path / "a.tif", np.arange(360)[None], crs="EPSG:4326", transform=from_origin(0, 1, 1, 1))
    spec = {"path": str(path), "bands": {"elevation": 1}, "resampling": "nearest"}
    for left in (-70, -70.25):
        target = GeoBox((1, 3), Affine(1, 0, left, 0, -1, 1), "EPSG:4326")
        np.testing.assert_array_equal(open_rasters(spec, geobox=target)["elevation"].values, [[290, 291, 292]])


@pytest.mark.parametrize("resolution", [0.0163, 0.017, 0.0175])
def test_the_method_is_one_for_all_blocks(tmp_path, monkeypatch, resolution):
    """Degrees are narrower in the north, so that blocks of their own would not all average."""
    rng = np.random.default_rng(0)
    laea = from_origin(4_000_000, 3_300_000, 1000, 1000)
    path = write(tmp_path / "a.tif", rng.random((600, 600)), crs="EPSG:3035", transform=laea)
    box = GeoBox((360, 500), Affine(resolution, 0, 7, 0, -resolution, 52.5), "EPSG:4326")
    spec = {"path": str(path), "bands": {"elevation": 1}}
    found = []
    for size in (64, 256, 1000):
        monkeypatch.setitem(GRID_SHARD, "y", size)
        monkeypatch.setitem(GRID_SHARD, "x", size)
        found.append(open_rasters(spec, geobox=box)["elevation"].values)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("method", ["nearest", "bilinear", "average", "cubic"])
def test_a_wide_window_is_read_in_pieces(tmp_path, monkeypatch, method):
    values = np.random.default_rng(0).random((300, 300))
    values[100:130, 50:200] = np.nan
    path = write(tmp_path / "a.tif", values)
    box = GeoBox((17, 23), Affine(0.018, 0, 9.01, 0, -0.011, 50.55), "EPSG:4326")
    spec = {"path": str(path), "bands": {"elevation": 1}, "resampling": method}
    whole = open_rasters(spec, geobox=box)["elevation"].values
    read = []
    monkeypatch.setattr(scenes, "_TOGETHER", 2000)
    monkeypatch.setattr(scenes, "read_layers", lambda *args: read.append(args[-1]) or read_layers(*args))
    np.testing.assert_array_equal(open_rasters(spec, geobox=box)["elevation"].values, whole)
    assert max((r[1] - r[0]) * (c[1] - c[0]) for r, c in read) <= 2000
    assert np.isfinite(whole).any()


# Sums of a day


@pytest.fixture
def hours(tmp_path):
    """Rain of three times a day; one file of the second day is missing."""
    for day, hour in ((1, 0), (1, 8), (1, 16), (2, 0), (2, 8)):
        write(tmp_path / f"rain_2020010{day}{hour:02d}.tif", [[1, hour]])
    return tmp_path


RAIN = {"path": "rain_*.tif", "bands": {"precipitation": 1}, "dates": "rain_%Y%m%d%H.tif", "daily": "sum"}


def test_a_day_that_lacks_a_time_has_no_sum(hours):
    ds = open_rasters(RAIN, root=hours)
    np.testing.assert_array_equal(ds["precipitation"].values[:, 0], [[3, 24], [np.nan, np.nan]])
    at = open_rasters(RAIN, root=hours, stations=places(lonlat(UTM32, 500150, 5599950)))
    np.testing.assert_array_equal(at["precipitation"].values, [[24, np.nan]])


def test_a_sum_of_tiles_is_refused(hours):
    write(hours / "rain_2020010300.tif", [[1, 1]], transform=from_origin(500100, 5600000, 100, 100))
    with pytest.raises(
        SmgeoError, match=r"sum of precipitation needs all its files on one grid; .*rain_2020010300.tif"
    ):
        open_rasters(RAIN, root=hours)
