"""The layout of a map store: variables, chunks, CF and GeoZarr attributes."""

from __future__ import annotations

import json
from pathlib import Path

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  registers `.rio`
import xarray as xr
from odc.geo.geobox import GeoBox

from smgeo.cube.chunks import GRID_CHUNK, Encoding
from smgeo.errors import SmgeoError
from smgeo.files import JsonObject
from smgeo.maps.block import APPLICABLE
from smgeo.maps.request import MapRequest
from smgeo.models.protocol import Model
from smgeo.recipe.output import DENSITY, DISSIMILARITY, EXPECTED_ERROR

MAP_CHUNK = GRID_CHUNK
# Tag of a map's GeoTIFFs, and after `smgeo_` attribute of its store: digest of model, place and outputs, the same for all days of a map.
IDENTITY = "map"
# Stand for "no value": in numbers of stores and GeoTIFFs, and in flags of stores (a GeoTIFF has one data type, so its flags are numbers too).
NODATA = np.float32(np.nan)
NO_FLAG = 255
_LAYERS: dict[str, JsonObject] = {
    DISSIMILARITY: {"long_name": "dissimilarity index to the training data", "units": "1", "kind": "layer"},
    DENSITY: {"long_name": "local point density: training places that are similar", "units": "1", "kind": "layer"},
    EXPECTED_ERROR: {"long_name": "RMSE expected at the dissimilarity index", "kind": "layer"},
}
# The registered names of conventions of Zarr stores: https://github.com/zarr-conventions
CONVENTIONS = [
    {
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "name": "proj:",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/proj/refs/tags/v0.1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/proj/blob/v0.1/README.md",
        "description": "Coordinate reference system information for geospatial data",
    },
    {
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "name": "spatial:",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v0.1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v0.1/README.md",
        "description": "Spatial coordinate information",
    },
]


def describe_map_store(model: Model, request: MapRequest, identity: str) -> xr.Dataset:
    """Return dims, coordinates and attributes of a map; its values are zeros that are not used."""
    cube, preparation, outputs, target = request.cube, request.preparation, request.outputs, request.outputs.target
    shape = (len(request.days), cube.sizes["y"], cube.sizes["x"])
    coords = {"time": ("time", request.days), "y": cube["y"], "x": cube["x"]}
    kind = getattr(model, "kind", type(model).__name__)
    quantity = "soil moisture" if target == "sm" else target
    shared = {
        "units": preparation["target_units"] or "",
        "grid_mapping": "spatial_ref",
        "source": f"smgeo model {kind}",
    }
    attrs: dict[str, JsonObject] = {target: {**shared, "long_name": f"estimated {quantity}", "kind": "target"}}
    if len(outputs.names) > 1:
        attrs[target]["ancillary_variables"] = " ".join(outputs.names[1:])
    if outputs.level is not None:
        percent = f"{100 * outputs.level:g} % prediction interval of {quantity}"
        for end in ("lower", "upper"):
            about = {"long_name": f"{end} end of the {percent}", "coverage": outputs.level, "kind": "interval"}
            attrs[f"{target}_{end}"] = {**shared, **about}
    if outputs.applicable:
        attrs[APPLICABLE] = {
            "grid_mapping": "spatial_ref",
            "source": shared["source"],
            "long_name": "inside the area of applicability of the model",
            "flag_values": [0, 1],
            "flag_meanings": "outside inside",
            "kind": "flag",
        }
    # The target's unit, unless the layer has another.
    attrs |= {layer: {**shared, **_LAYERS[layer]} for layer in outputs.layers}
    types = {name: "uint8" if name == APPLICABLE else "float32" for name in outputs.names}
    empty = {n: (("time", "y", "x"), da.zeros(shape, dtype=types[n]), attrs[n]) for n in outputs.names}
    made = xr.Dataset(
        empty, coords, {**_provenance(model, kind), f"smgeo_{IDENTITY}": identity, **geozarr_attrs(request.box)}
    )
    return write_place(made, request.box).drop_encoding()


def write_place(made: xr.Dataset, box: GeoBox) -> xr.Dataset:
    """Return a map with the CRS and GeoTransform of its grid in `spatial_ref`, by rioxarray."""
    placed: xr.Dataset = made.rio.write_crs(str(box.crs), "spatial_ref").rio.write_transform(box.affine, "spatial_ref")
    return placed


def _provenance(model: Model, kind: str) -> dict[str, str]:
    """Return attributes that describe the model of a map, so that the map can be checked at stations that the model never saw."""
    training = getattr(model, "training_", None) or {}
    out = {"Conventions": "CF-1.11", "title": "map of soil moisture", "smgeo_model": kind}
    if "versions" in training:
        out["smgeo_versions"] = json.dumps(training["versions"], sort_keys=True)
    for name in ("stations", "places", "validation_stations", "validation_places"):
        if name in training:
            out[f"smgeo_{name if name.startswith('validation') else f'training_{name}'}"] = json.dumps(training[name])
    return out


def geozarr_attrs(box: GeoBox) -> JsonObject:
    """Return the attributes of a group whose arrays have one grid, by the conventions `proj:` and `spatial:`."""
    assert box.crs is not None
    code = box.crs.authority
    place = {"proj:code": f"{code[0]}:{code[1]}"} if code and code[1] else {"proj:wkt2": box.crs.to_wkt()}
    return {
        "zarr_conventions": CONVENTIONS,
        **place,
        "spatial:dimensions": ["y", "x"],
        "spatial:transform": list(box.affine)[:6],
        "spatial:shape": list(box.shape.yx),
        "spatial:bbox": list(box.boundingbox.bbox),
    }


def plan_map(template: xr.Dataset) -> dict[str, Encoding]:
    """Return the encoding of each variable: a shard is all days of a block, since these are made together.

    Examples
    --------
    >>> sm = (("time", "y", "x"), np.zeros((45, 300, 100), "float32"))
    >>> plan_map(xr.Dataset({"sm": sm}))["sm"]
    {'chunks': (30, 128, 100), 'shards': (60, 128, 100), '_FillValue': np.float32(nan)}
    """
    out: dict[str, Encoding] = {}
    for name, variable in template.data_vars.items():
        chunk = tuple(min(MAP_CHUNK[str(d)], n) for d, n in variable.sizes.items())
        days = -(-variable.sizes["time"] // chunk[0]) * chunk[0]
        fill = NODATA if variable.dtype.kind == "f" else np.uint8(NO_FLAG)
        out[str(name)] = {"chunks": chunk}
        if days > chunk[0]:
            out[str(name)]["shards"] = (days, *chunk[1:])
        out[str(name)]["_FillValue"] = fill
    return out


def map_variables(ds: xr.Dataset, path: str | Path) -> list[str]:
    """Return the names of the variables of a map at `path`, the estimate first: stores give their variables in any order.

    Raises
    ------
    SmgeoError
        If no variable has the dims of a map.
    """
    names = [str(n) for n in ds.data_vars if ds[n].dims == ("time", "y", "x")]
    if not names:
        raise SmgeoError(
            f"{path} contains no map (no variable with dims time, y, x); give a store that predict_map wrote"
        )
    # The estimate names the others.
    first = next((n for n in names if "ancillary_variables" in ds[n].attrs), names[0])
    return list(dict.fromkeys([first, *str(ds[first].attrs.get("ancillary_variables", "")).split()]))
