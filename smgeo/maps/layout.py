"""What a map store is: variables, chunks, CF and GeoZarr attributes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from smgeo.catalog import FEATURES
from smgeo.cube.chunks import GRID_CHUNK
from smgeo.errors import SmgeoWarning
from smgeo.maps.block import APPLICABLE, Outputs
from smgeo.maps.place import IDENTITY
from smgeo.maps.request import MapRequest

MAP_CHUNK = GRID_CHUNK
NO_FLAG = 255
# The names under which conventions of Zarr stores are registered: https://github.com/zarr-conventions
_CONVENTIONS = [
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


def describe_map_store(model: Any, request: MapRequest, outputs: Outputs, identity: str) -> xr.Dataset:
    """Dims, coordinates and attributes of a map; its values are zeros that nobody looks at."""
    cube, preparation, target = request.cube, request.preparation, outputs.target
    shape = (len(request.days), cube.sizes["y"], cube.sizes["x"])
    place = xr_coords(request.box, dims=("y", "x"))
    coords = {"time": ("time", request.days), "y": cube["y"], "x": cube["x"], "spatial_ref": place["spatial_ref"]}
    kind = getattr(model, "kind", type(model).__name__)
    said = "soil moisture" if target == "sm" else target
    shared = {
        "units": preparation["target_units"] or "",
        "grid_mapping": "spatial_ref",
        "source": f"smgeo model {kind}",
    }
    attrs: dict[str, dict[str, Any]] = {target: {**shared, "long_name": f"estimated {said}", "kind": "target"}}
    if len(outputs.names) > 1:
        attrs[target]["ancillary_variables"] = " ".join(outputs.names[1:])
    if outputs.level is not None:
        percent = f"{100 * outputs.level:g} % prediction interval of {said}"
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
    types = {name: "uint8" if name == APPLICABLE else "float32" for name in outputs.names}
    empty = {n: (("time", "y", "x"), da.zeros(shape, dtype=types[n]), attrs[n]) for n in outputs.names}
    made = xr.Dataset(
        empty, coords, {**_provenance(model, kind), f"smgeo_{IDENTITY}": identity, **geozarr_attrs(request.box)}
    )
    return made.drop_encoding()


def _provenance(model: Any, kind: str) -> dict[str, Any]:
    """What a map says of the model that made it, so that it can be checked at stations that the model never saw."""
    training = getattr(model, "training_", None) or {}
    out = {"Conventions": "CF-1.11", "title": "map of soil moisture", "smgeo_model": kind}
    if "versions" in training:
        out["smgeo_versions"] = json.dumps(training["versions"], sort_keys=True)
    for name, stations in (("training_stations", "stations"), ("validation_stations", "validation_stations")):
        if stations in training:
            out[f"smgeo_{name}"] = json.dumps(training[stations])
    return out


def geozarr_attrs(box: GeoBox) -> dict[str, Any]:
    """Attributes of a group whose arrays lie on one grid, by the conventions `proj:` and `spatial:`."""
    assert box.crs is not None
    code = box.crs.authority
    place = {"proj:code": f"{code[0]}:{code[1]}"} if code and code[1] else {"proj:wkt2": box.crs.to_wkt()}
    return {
        "zarr_conventions": _CONVENTIONS,
        **place,
        "spatial:dimensions": ["y", "x"],
        "spatial:transform": list(box.affine)[:6],
        "spatial:shape": list(box.shape.yx),
        "spatial:bbox": list(box.boundingbox.bbox),
    }


def plan_map(template: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Encoding of each variable: a shard is all days of a block, since these are made together.

    Examples
    --------
    >>> sm = (("time", "y", "x"), np.zeros((45, 300, 100), "float32"))
    >>> plan_map(xr.Dataset({"sm": sm}))["sm"]
    {'chunks': (30, 128, 100), 'shards': (60, 128, 100), '_FillValue': np.float32(nan)}
    """
    out: dict[str, dict[str, Any]] = {}
    for name, variable in template.data_vars.items():
        chunk = tuple(min(MAP_CHUNK[str(d)], n) for d, n in variable.sizes.items())
        days = -(-variable.sizes["time"] // chunk[0]) * chunk[0]
        fill = np.float32(np.nan) if variable.dtype.kind == "f" else np.uint8(NO_FLAG)
        out[str(name)] = {"chunks": chunk, **({"shards": (days, *chunk[1:])} if days > chunk[0] else {})}
        out[str(name)]["_FillValue"] = fill
    return out


def say_shares(store: Path, outputs: Outputs, inside: xr.DataArray | None) -> None:
    """Write into the attributes of a finished map which share of its region has no value, and lies in the area of applicability.

    A map without any value, and values that the variable can't have, are warned of.
    """
    ds = xr.open_zarr(store, consolidated=False, chunks={})
    days, *size = ds[outputs.target].shape
    pixels = days * (int(np.prod(size)) if inside is None else int(inside.sum()))
    held = ds[outputs.names].count()
    if outputs.applicable:
        held["inside"] = ds[APPLICABLE].sum()
    low, high = FEATURES[outputs.target].valid_range if outputs.target in FEATURES else (-np.inf, np.inf)
    held["impossible"] = ((ds[outputs.target] < low) | (ds[outputs.target] > high)).sum()
    found = held.compute()
    group = zarr.open_group(store, mode="r+")
    count = int(found[outputs.target])
    group[outputs.target].attrs["nodata_share"] = round(1 - count / pixels, 6)
    group[outputs.target].attrs["impossible_share"] = impossible = round(int(found["impossible"]) / max(count, 1), 6)
    if not count:
        warnings.warn(
            "no pixel of the map has a value: features are missing everywhere in it", SmgeoWarning, stacklevel=2
        )
    if impossible:
        said = f"{impossible:.3%} of the map's values of {outputs.target} lie outside {low:g} to {high:g}"
        warnings.warn(f"{said}: the model is asked for what it has not learned", SmgeoWarning, stacklevel=2)
    if outputs.applicable:
        known = int(found[APPLICABLE])
        group[APPLICABLE].attrs["share_inside"] = round(int(found["inside"]) / known, 6) if known else None
