"""Small valid inputs of every kind, and a program that reads them: run in a process of its own, because damaged files may end it.

`python -m tests.fuzz.inputs` reads lines `kind<TAB>folder` and answers each with a line of JSON: `outcome` is "read", "refused" (one of smgeo's
errors, or a wrong file that is said to be one) or "traceback"; `values` are what was read, `other` what an independent reader reads.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio.transform import from_origin

from smgeo.catalog import FEATURES

DAYS = pd.date_range("2020-01-01", periods=4)
LAT, LON = [50.3, 50.2, 50.1, 50.0], [8.0, 8.1, 8.2, 8.3]
SQUARE = np.linspace(-20, -5, 16, dtype="float32").reshape(4, 4)


class Kind(NamedTuple):
    """An input: how it is written into a folder, the files that are damaged, and how it is read (as named arrays)."""

    write: Callable[[Path], object]
    damaged: str
    read: Callable[[Path], dict[str, np.ndarray]]


def _arrays(ds: xr.Dataset) -> dict[str, np.ndarray]:
    return {str(n): np.asarray(v.values) for n, v in ds.data_vars.items() if v.dtype.kind in "fiub"}


# Stations

_CSV = "station;date;latitude;longitude;sm\n" + "".join(
    f"{name};{day:%d.%m.%Y};{lat:.2f};8.05;{0.1 + 0.01 * i:.3f}\n"
    for name, lat in (("a1", 50.05), ("0017", 50.25))
    for i, day in enumerate(pd.date_range("2020-01-01", periods=20))
)


def _write_ismn(folder: Path) -> None:
    path = folder / "ismn" / "NET" / "A" / "NET_NET_A_sm_0.050000_0.050000_Probe-A_20200101_20200104.stm"
    path.parent.mkdir(parents=True)
    rows = [f"{day:%Y/%m/%d} {hour:02d}:00 {0.2 + 0.001 * hour:.4f} G M" for day in DAYS for hour in range(24)]
    path.write_text("NET NET A 50.05000 8.05000 100.00 0.0500 0.0500 Probe A\n" + "\n".join(rows) + "\n")


def _read_stations(spec: dict[str, object]) -> Callable[[Path], dict[str, np.ndarray]]:
    def read(folder: Path) -> dict[str, np.ndarray]:
        import smgeo

        return _arrays(smgeo.open_stations(root=folder, **spec))

    return read


# Rasters


def _write_geotiff(folder: Path) -> None:
    profile = {
        "driver": "GTiff",
        "count": 1,
        "dtype": "float32",
        "height": 4,
        "width": 4,
        "crs": "EPSG:4326",
        "nodata": -99,
    }
    for day in DAYS:
        with rasterio.open(
            folder / f"vv_{day:%Y%m%d}.tif",
            "w",
            **profile,
            compress="deflate",
            transform=from_origin(8, 50.4, 0.1, 0.1),
        ) as dst:
            dst.write(SQUARE, 1)


def _read_rasters(spec: dict[str, object]) -> Callable[[Path], dict[str, np.ndarray]]:
    def read(folder: Path) -> dict[str, np.ndarray]:
        import smgeo

        return _arrays(smgeo.open_rasters(spec, root=folder))

    return read


def _grid() -> xr.Dataset:
    values = np.broadcast_to(SQUARE, (4, 4, 4)) + np.arange(4, dtype="float32")[:, None, None] / 8
    return xr.Dataset(
        {"v": (("time", "lat", "lon"), values, {"units": "dB"})},
        {
            "time": DAYS,
            "lat": ("lat", LAT, {"units": "degrees_north"}),
            "lon": ("lon", LON, {"units": "degrees_east"}),
        },
    )


def _write_catalogue(folder: Path) -> None:
    """A static STAC catalogue of two items, each with a Sentinel-2 band and its scene classification."""

    def put(name: str, content: dict[str, object]) -> None:
        (folder / name).write_text(json.dumps(content))

    profile = {"driver": "GTiff", "count": 1, "height": 4, "width": 4, "crs": "EPSG:4326", "nodata": 0}
    about = {"stac_version": "1.0.0", "description": "small"}
    for day in DAYS[:2]:
        name = f"S2_{day:%Y%m%d}"
        for band, values in (("B04", np.arange(1000, 1016, dtype="uint16")), ("SCL", np.full(16, 4, "uint8"))):
            with rasterio.open(
                folder / f"{name}_{band}.tif",
                "w",
                **profile,
                dtype=values.dtype,
                transform=from_origin(8, 50.4, 0.1, 0.1),
            ) as dst:
                dst.write(values.reshape(4, 4), 1)
        asset = {"type": "image/tiff; application=geotiff", "roles": ["data"], "proj:shape": [4, 4]}
        asset |= {"proj:transform": [0.1, 0, 8.0, 0, -0.1, 50.4]}
        put(
            f"{name}.json",
            {
                **about,
                "type": "Feature",
                "id": name,
                "collection": "sentinel-2-l2a",
                "bbox": [8.0, 50.0, 8.4, 50.4],
                "geometry": {"type": "Polygon", "coordinates": [[[8, 50], [8.4, 50], [8.4, 50.4], [8, 50.4], [8, 50]]]},
                "properties": {
                    "datetime": f"{day:%Y-%m-%d}T10:00:00Z",
                    "proj:epsg": 4326,
                    "eo:cloud_cover": 3.5,
                    "s2:processing_baseline": "03.01",
                },
                "links": [],
                "assets": {b: {**asset, "href": f"./{name}_{b}.tif"} for b in ("B04", "SCL")},
            },
        )
    items = [{"rel": "item", "href": f"./S2_{day:%Y%m%d}.json"} for day in DAYS[:2]]
    extent = {"spatial": {"bbox": [[8, 50, 8.4, 50.4]]}, "temporal": {"interval": [[None, None]]}}
    put(
        "collection.json",
        {**about, "type": "Collection", "id": "sentinel-2-l2a", "license": "other", "extent": extent, "links": items},
    )
    links = [{"rel": "child", "href": "./collection.json"}]
    put("catalog.json", {**about, "type": "Catalog", "id": "root", "links": links})


def _read_catalogue(folder: Path) -> dict[str, np.ndarray]:
    import smgeo

    spec = {"url": "catalog.json", "bands": {"s2_b4": "s2_b4"}, "collections": ["sentinel-2-l2a"]}
    return _arrays(smgeo.open_stac(spec, root=folder, period=("2020-01-01", "2020-01-02")))


# What smgeo writes


def _cube() -> xr.Dataset:
    random = np.random.default_rng(0)
    return xr.Dataset(
        {
            "s1_vv": (("station", "time"), random.uniform(-20, -5, (3, 40)).astype("float32"), {"units": "dB"}),
            "sm": (("station", "time"), random.uniform(0.1, 0.4, (3, 40)).astype("float32"), {"units": "m3 m-3"}),
        },
        {
            "station": ["N/a", "N/b", "N/c"],
            "time": pd.date_range("2020-01-01", periods=40),
            "latitude": ("station", [50.0, 50.1, 50.2]),
            "longitude": ("station", [8.0, 8.1, 8.2]),
        },
    )


def _write_cube(folder: Path) -> None:
    import smgeo

    smgeo.write_cube(_cube(), folder / "cube.zarr")


def _read_cube(folder: Path) -> dict[str, np.ndarray]:
    import smgeo

    return _arrays(smgeo.open_cube(folder / "cube.zarr").compute())


def _write_model(kind: str, **params: object) -> Callable[[Path], object]:
    def write(folder: Path) -> object:
        import smgeo

        x = np.random.default_rng(0).random((60, 3))
        return smgeo.make_model(kind, **params).fit(x, x[:, 0] + np.sin(5 * x[:, 1])).save(folder / "model")

    return write


def _write_pipeline(folder: Path) -> None:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    import smgeo

    x = np.random.default_rng(0).random((60, 3))
    smgeo.make_model(make_pipeline(StandardScaler(), Ridge())).fit(x, x[:, 0]).save(folder / "model")


def _read_model(folder: Path) -> dict[str, np.ndarray]:
    import smgeo

    x = np.random.default_rng(1).random((20, 3))
    return {"estimate": np.asarray(smgeo.load_model(folder / "model").predict(x))}


def _named(dims: tuple[str, ...], shape: tuple[int, ...], coords: dict[str, object], names: list[str]) -> xr.Dataset:
    rng = np.random.default_rng(2)
    fields = {n: rng.uniform(*FEATURES[n].valid_range, shape).astype("float32") for n in names}
    return xr.Dataset({n: (dims, v, FEATURES[n].attrs()) for n, v in fields.items()}, coords)


def _stations() -> xr.Dataset:
    coords = {
        "station": np.array([f"N/s{i}" for i in range(10)], dtype=object),
        "time": pd.date_range("2020-01-01", periods=20),
        "latitude": ("station", 48.0 + 0.1 * np.arange(10)),
        "longitude": ("station", 9.0 + 0.1 * np.arange(10)),
    }
    return _named(("station", "time"), (10, 20), coords, ["s1_vv", "temperature", "sm"])


def _split() -> object:
    from smgeo.prepare import Split

    return Split(("N/s0", "N/s1"), tuple(f"N/s{i}" for i in range(2, 8)), ("N/s8", "N/s9"))


def _write_prepared(folder: Path) -> None:
    """Write a forest of windows whose features are filled and scaled, with intervals and an area of applicability."""
    import smgeo

    cube, names = _stations(), ["s1_vv", "temperature"]
    scaled = smgeo.Scaler("standard").fit_transform(smgeo.fill_gaps(cube, 3).sel(station=["N/s0", "N/s1"]))
    model = smgeo.make_model("rf", trees=3, threads=1).fit(smgeo.Windows(scaled, names, length=2))
    smgeo.find_applicability(model, cube, _split(), dict.fromkeys(names, 1.0))
    smgeo.calibrate(model, cube, _split(), nearest=2)
    model.save(folder / "model")


def _read_prepared(folder: Path) -> dict[str, np.ndarray]:
    """Return a score, and a map with all that a model's file adds to it."""
    import smgeo

    model = smgeo.load_model(folder / "model")
    scores = smgeo.evaluate(model, _stations(), _split()).scores["test"]
    box = GeoBox((4, 5), Affine(100, 0, 500_000, 0, -100, 5_000_000), "EPSG:32632")
    grid = _named(
        ("time", "y", "x"),
        (4, 4, 5),
        {"time": DAYS, **xr_coords(box, dims=("y", "x"))},
        ["s1_vv", "temperature"],
    )
    for variable in grid.data_vars.values():
        variable.attrs["grid_mapping"] = "spatial_ref"
    layers = ["dissimilarity", "local_point_density", "expected_error"]
    smgeo.predict_map(model, grid, folder / "map.zarr", intervals=0.5, layers=layers)
    with xr.open_zarr(folder / "map.zarr") as ds:
        return {"rmse": np.array([scores["rmse"]]), **_arrays(ds)}


# Recipes and results

_RECIPE = """
name: small
seed: 3
stations:
  - {kind: csv, path: sm.csv, separator: ';', columns: {station: station, time: date, sm: {column: sm, depth: 0.05}}}
rasters:
  - {kind: geotiff, path: 'vv_*.tif', dates: vv_%Y%m%d.tif, bands: [s1_vv]}
features: [s1_vv, day_of_year]
prepare:
  fill: {limit: 3}
  outliers: {z: 4}
  split: {fractions: [0.6, 0.2, 0.2]}
  window: {length: 5, missing: 0.5}
models:
  rf: {trees: 10}
  ann: {layers: 1, units: 8, epochs: 2}
search:
  ann: {trials: 2, epochs: 1, space: {units: [4, 8]}}

"""


def _read_recipe(folder: Path) -> dict[str, np.ndarray]:
    from smgeo.recipe.study import read_recipe

    read_recipe(folder / "recipe.yaml")
    return {}


KINDS: dict[str, Kind] = {
    "csv": Kind(
        lambda folder: (folder / "sm.csv").write_text(_CSV),
        "sm.csv",
        _read_stations(
            {
                "kind": "csv",
                "path": "sm.csv",
                "columns": {
                    "station": "station",
                    "time": "date",
                    "latitude": "latitude",
                    "longitude": "longitude",
                    "sm": {"column": "sm", "depth": 0.05},
                },
            }
        ),
    ),
    "ismn": Kind(_write_ismn, "ismn/NET/A/*.stm", _read_stations({"kind": "ismn", "path": "ismn"})),
    "geotiff": Kind(
        _write_geotiff,
        "vv_*.tif",
        _read_rasters({"kind": "geotiff", "path": "vv_*.tif", "dates": "vv_%Y%m%d.tif", "bands": {"s1_vv": 1}}),
    ),
    "netcdf": Kind(
        lambda folder: _grid().to_netcdf(folder / "v.nc", engine="h5netcdf"),
        "v.nc",
        _read_rasters({"kind": "netcdf", "path": "v.nc", "bands": {"s1_vv": "v"}}),
    ),
    "netcdf3": Kind(
        lambda folder: _grid().to_netcdf(folder / "v.nc", format="NETCDF3_CLASSIC"),
        "v.nc",
        _read_rasters({"kind": "netcdf", "path": "v.nc", "bands": {"s1_vv": "v"}}),
    ),
    "zarr": Kind(
        lambda folder: _grid().to_zarr(folder / "v.zarr", zarr_format=3, consolidated=False),
        "v.zarr/**/*",
        _read_rasters({"kind": "zarr", "path": "v.zarr", "bands": {"s1_vv": "v"}}),
    ),
    "stac": Kind(_write_catalogue, "*.json", _read_catalogue),
    "cube": Kind(_write_cube, "cube.zarr/**/*", _read_cube),
    "rf": Kind(_write_model("rf", trees=3, threads=1), "model/*", _read_model),
    "boosting": Kind(_write_model("HistGradientBoostingRegressor", max_iter=3), "model/*", _read_model),
    "extra_trees": Kind(_write_model("extra_trees", trees=3, threads=1), "model/*", _read_model),
    "boosted": Kind(_write_model("boosting", trees=3, min_examples=3, spread=True), "model/*", _read_model),
    "ensemble": Kind(
        _write_model(
            "ensemble", members=[{"kind": "extra_trees", "trees": 3}, "Ridge", {"kind": "ann", "units": 4, "epochs": 1}]
        ),
        "model/**/*",
        _read_model,
    ),
    "neighbours": Kind(_write_model("KNeighborsRegressor"), "model/*", _read_model),
    "svr": Kind(_write_model("SVR"), "model/*", _read_model),
    "pipeline": Kind(_write_pipeline, "model/*", _read_model),
    "ridge": Kind(_write_model("Ridge"), "model/*", _read_model),
    "forest": Kind(_write_model("ExtraTreesRegressor", n_estimators=3), "model/*", _read_model),
    "kernels": Kind(_write_model("GaussianProcessRegressor"), "model/*", _read_model),
    "ann": Kind(_write_model("ann", units=4, epochs=1), "model/*", _read_model),
    "prepared": Kind(_write_prepared, "model/*", _read_prepared),
    "recipe": Kind(lambda folder: (folder / "recipe.yaml").write_text(_RECIPE), "recipe.yaml", _read_recipe),
}


def _answer(kind: str, folder: Path) -> dict[str, object]:
    from smgeo.errors import SmgeoError

    try:
        values = KINDS[kind].read(folder)
    except SmgeoError as error:
        return {"outcome": "refused", "says": str(error)}
    except Exception:
        return {"outcome": "traceback", "says": traceback.format_exc()}
    return {"outcome": "read", "values": {n: v.astype("float64").ravel().tolist() for n, v in values.items()}}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        asked, _, place = line.rstrip("\n").partition("\t")
        print(json.dumps(_answer(asked, Path(place))), flush=True)
