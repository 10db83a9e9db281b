"""The built-in world at toy size: reproducible, read by the tools users have, and no easier than it says."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray  # noqa: F401  (gives `.rio`)
import xarray as xr

from smgeo.catalog import FEATURES
from smgeo.errors import SmgeoError
from smgeo.sources.world.simulation import simulate

SIZE = {"stations": 16, "days": 60, "shape": (24, 24)}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("world") / "w", **SIZE, seed=3, start="2019-05-01")


@pytest.fixture(scope="module")
def table(world):
    return pd.DataFrame(json.loads((world / "world.json").read_text())["stations"])


def _truth(path):
    with xr.open_zarr(path / "truth.zarr", decode_coords="all") as ds:
        return ds.load()


def _rasters(world, product):
    """All scenes of a product, `(scene, band, y, x)`."""
    return np.stack([rasterio.open(p).read() for p in sorted((world / "rasters" / product).glob("*.tif"))])


def test_truth_opens_with_its_grid(world):
    ds = _truth(world)
    assert ds.sm.dims == ("time", "y", "x")
    assert ds.sm.shape == (60, 24, 24)
    assert ds.sm.dtype == np.float32
    assert ds.rio.crs.to_epsg() == 32632
    assert ds.rio.resolution() == (1000.0, -1000.0)
    assert str(ds.time.values[0])[:10] == "2019-05-01"
    assert ds.sm.attrs["units"] == "m3 m-3"
    assert ds.sm.attrs["kind"] == "target"
    assert ds.sm.attrs["source"] == "smgeo built-in world"
    assert ds.sm.min() > 0.0
    assert ds.sm.max() < 0.8
    scene = next((world / "rasters" / "s2").glob("*.tif"))
    with rasterio.open(scene) as file:
        assert file.crs.to_epsg() == 32632
        np.testing.assert_allclose(file.bounds, ds.rio.bounds())


def test_same_arguments_same_values(world, tmp_path):
    again = simulate(tmp_path / "again", **SIZE, seed=3, start="2019-05-01")
    files = sorted(p.relative_to(world) for p in world.rglob("*") if p.is_file() and "truth.zarr" not in p.parts)
    assert files == sorted(
        p.relative_to(again) for p in again.rglob("*") if p.is_file() and "truth.zarr" not in p.parts
    )
    assert [f for f in files if (world / f).read_bytes() != (again / f).read_bytes()] == []
    assert _truth(world).sm.values.tobytes() == _truth(again).sm.values.tobytes()


def test_seed_changes_the_world_and_stations_do_not(world, tmp_path):
    more = simulate(tmp_path / "more", **SIZE | {"stations": 24, "days": 30}, seed=3, start="2019-05-01")
    other = simulate(tmp_path / "other", **SIZE | {"days": 30}, seed=4, start="2019-05-01")
    truth = _truth(world).sm.values[:30]
    assert truth.tobytes() == _truth(more).sm.values.tobytes()
    assert np.abs(truth - _truth(other).sm.values).mean() > 0.02
    for product in ("s1", "s2", "temperature"):
        np.testing.assert_array_equal(_rasters(world, product)[:3], _rasters(more, product)[:3])


def test_archive_is_read_by_the_ismn_package(world, table):
    handlers, base = pytest.importorskip("ismn.filehandlers"), pytest.importorskip("ismn.base")
    root, truth = base.IsmnRoot(world / "ismn"), _truth(world).sm
    differences, correlations = [], []
    for station in table.itertuples():
        folder = world / "ismn" / station.network / station.station
        path = next(folder.glob("*_sm_0.050000_0.050000_*.stm")).relative_to(world / "ismn")
        file = handlers.DataFile(root, str(path))
        assert file.metadata["latitude"].val == pytest.approx(station.latitude)
        assert file.metadata["longitude"].val == pytest.approx(station.longitude)
        assert file.metadata["station"].val == station.station
        assert file.metadata["variable"].val == "soil_moisture"
        data = file.read_data()
        good = data[data["soil_moisture_flag"] == "G"]["soil_moisture"]
        daily = good.resample("D").mean()[good.resample("D").count() > 20]
        pixel = truth[:, station.row, station.col].to_series().reindex(daily.index)
        if len(daily) > 20 and pixel.std() > 0.01:
            differences.append((daily - pixel).mean())
            correlations.append(daily.corr(pixel))
    # offsets of point, network and probe add to 0.04 m3 m-3; the rest of a probe's error is near 0.012
    assert 0.02 < np.sqrt(np.mean(np.square(differences))) < 0.07
    assert np.median(correlations) > 0.9


def test_station_names_flags_and_statics(world, table):
    handlers, base = pytest.importorskip("ismn.filehandlers"), pytest.importorskip("ismn.base")
    station = table.iloc[0]
    assert re.fullmatch(r"R\d\d-S\d{3}", station.station)
    folder = world / "ismn" / station.network / station.station
    statics = next(folder.glob("*_static_variables.csv")).relative_to(world / "ismn")
    meta = handlers.StaticMetaFile(base.IsmnRoot(world / "ismn"), str(statics)).read_metadata()
    texture = [float(meta[k].val) for k in ("clay_fraction", "sand_fraction", "silt_fraction")]
    assert sum(texture) == pytest.approx(100.0, abs=0.05)
    stem = f"{station.network}_{station.network}_{station.station}"
    line = re.compile(r"\d{4}/\d\d/\d\d \d\d:00 (-?\d\.\d{3} (G|C0[123]|D01|D06|C03,D01)|-9999 M) M")
    for path in (world / "ismn").rglob("*.stm"):
        lines = path.read_text().splitlines()
        assert len(lines) > 100
        assert all(line.fullmatch(text) for text in lines[1:])
        assert lines[1] < lines[-1]
    assert any(p.name.startswith(f"{stem}_sm_0.050000_0.050000_") for p in folder.iterdir())
    assert set(np.concatenate(table.sensors.to_numpy())) > {0.05}


def test_flags_name_impossible_values_and_frost(tmp_path):
    winter = simulate(tmp_path / "winter", **SIZE | {"days": 45, "stations": 40}, seed=1, start="2018-01-01")
    rows = [p.read_text().splitlines()[1:] for p in (winter / "ismn").rglob("*_sm_0.05*.stm")]
    data = pd.DataFrame([text.split() for lines in rows for text in lines], columns=["day", "hour", "sm", "flag", "m"])
    value = data.sm.astype(float)
    assert (value[data.flag == "G"].between(0.0, 0.6)).all()
    assert (value[data.flag == "C01"] < 0).all()
    assert (value[data.flag == "C02"] > 0.6).all()
    assert (value[data.flag == "M"] == -9999).all()
    assert {"G", "C01", "C02", "D01", "D06"} <= set(data.flag)
    assert data.groupby("flag").size()["D01"] > 0.1 * len(data)  # January in the north and on the plateau


@pytest.mark.parametrize(
    ("product", "bands", "low", "high"),
    [
        ("s1", 3, 0.75, 0.90),  # a pass every 6 days, and a fifth of the pixels on two tracks
        ("s2", 5, 0.85, 0.97),  # every 5 days, half of it cloud
        ("l8", 2, 0.93, 0.99),  # every 16 days
        ("precipitation", 1, 0.0, 0.0),
        ("temperature", 1, 0.20, 0.75),
    ],
)
def test_share_of_missing_days(world, product, bands, low, high):
    scenes = _rasters(world, product)
    assert scenes.shape[1] == bands
    assert low <= 1.0 - np.isfinite(scenes).mean() * len(scenes) / 60 <= high


def test_rasters_name_their_bands_and_keep_in_range(world):
    seen = set()
    for folder in (world / "rasters").iterdir():
        for path in folder.glob("*.tif"):
            with rasterio.open(path) as file:
                assert file.dtypes[0] == "float32"
                assert np.isnan(file.nodata)
                for name, unit, band in zip(file.descriptions, file.units, file.read(), strict=True):
                    seen.add(name)
                    assert unit == FEATURES[name].units
                    low, high = FEATURES[name].valid_range
                    assert not ((band < low) | (band > high)).any(), (path.name, name)
    assert len(seen) == 19
    with rasterio.open(world / "rasters" / "static" / "soil.tif") as file:
        np.testing.assert_allclose(file.read([1, 2, 3]).sum(axis=0), 100.0, atol=1e-3)


def test_coarse_products_have_their_own_grid(tmp_path):
    world = simulate(tmp_path / "odd", stations=12, days=30, shape=(17, 22))
    with rasterio.open(next((world / "rasters" / "precipitation").glob("*.tif"))) as file:
        assert file.shape == (5, 6)  # 17 / 4 and 22 / 4, rounded up
        assert file.res == (4000.0, 4000.0)
        assert (file.bounds.left, file.bounds.top) == (372_000.0, 5_700_000.0)


def test_progress_and_the_part_folder(tmp_path):
    calls, parts = [], []

    def watch(done, total):
        calls.append((done, total))
        parts.append((tmp_path / "w.part").is_dir() and not (tmp_path / "w").exists())

    assert simulate(str(tmp_path / "w"), stations=12, days=30, shape=(16, 16), progress=watch) == tmp_path / "w"
    assert calls == [(i, 30) for i in range(1, 31)]
    assert all(parts)
    assert not (tmp_path / "w.part").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"days": 29}, "days must be a whole number from 30"),
        ({"stations": 11}, "stations must be a whole number from 12"),
        ({"stations": 1000}, "has room for 144"),
        ({"shape": (15, 64)}, "shape must be a whole number from 16"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"start": "yesterday"}, "a day is a date from 1900 to 2200, such as 2020-01-31; got 'yesterday'"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(tmp_path, changes, words):
    with pytest.raises(SmgeoError, match=re.escape(words)):
        simulate(tmp_path / "w", **SIZE | changes)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_world_is_kept(world):
    with pytest.raises(SmgeoError, match="not an empty folder"):
        simulate(world, **SIZE)
