"""Stations of several sources merged, and their cube.

A variable that a station source gives is taken from there, and from the rasters otherwise.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
import zarr

from smgeo.assemble.extraction import drop_left_out
from smgeo.assemble.slopes import choose_slopes, derive_slopes
from smgeo.catalog import FEATURES, Feature
from smgeo.cube.ledger import seal
from smgeo.cube.regions import Progress
from smgeo.cube.schema import check_units, text_of, units_of, variables_of_kind
from smgeo.cube.tally import Dropped, dropped_before, with_dropped
from smgeo.cube.writing import write_cube
from smgeo.errors import SmgeoError
from smgeo.prepare import derive_features, measure_revisit
from smgeo.recipe.rasters import AnyRaster
from smgeo.sources import open_source

# Writes the lazy values of one source at stations under a name, and opens them again.
Keep = Callable[[str, xr.Dataset], xr.Dataset]


def merge_stations(sources: Sequence[xr.Dataset], period: tuple[dt.date | str, dt.date | str] | None) -> xr.Dataset:
    """Return the stations of several sources in one lazy cube, on every day of the period (or of all sources).

    Raises
    ------
    SmgeoError
        If two sources contain the same station, or one variable in different units.
    """
    for label in ("climate", "group"):
        known = next((ds[label].attrs for ds in sources if label in ds.coords), None)
        if known is not None:  # empty for a source that does not know it
            sources = [ds if label in ds.coords else _with_empty(ds, label, known) for ds in sources]
    ids = [str(s) for ds in sources for s in ds["station"].values]
    twice = sorted({s for s in ids if ids.count(s) > 1})
    if twice:
        raise SmgeoError(f"stations given by two sources: {', '.join(twice[:10])}; leave one of them out")
    units: dict[str, str] = {}
    for ds in sources:
        found = units_of(ds, map(str, ds.data_vars))
        check_units(found, {n: u for n, u in units.items() if n in found}, "the stations' sources")
        units |= found
    merged = (
        sources[0]
        if len(sources) == 1
        else xr.concat(
            list(sources),
            dim="station",
            join="outer",
            data_vars="all",
            coords="minimal",
            compat="override",
            combine_attrs="override",
        )
    )
    left_out = reduce(lambda a, b: a | b, (json.loads(ds.attrs.get("left_out", "{}")) for ds in sources))
    first, last = period if period else (merged["time"].values[0], merged["time"].values[-1])
    days = pd.date_range(pd.Timestamp(first), pd.Timestamp(last), freq="D", name="time")
    if not days.equals(pd.DatetimeIndex(merged.indexes["time"])):
        merged = merged.reindex(time=days)
    return with_dropped(merged.assign_attrs(left_out=json.dumps(left_out)), map(dropped_before, sources[1:]))


def _with_empty(ds: xr.Dataset, label: str, attrs: Mapping[str, object]) -> xr.Dataset:
    return ds.assign_coords({label: ("station", np.full(ds.sizes["station"], "", dtype=object), attrs)})


def build_station_cube(
    stations: xr.Dataset,
    rasters: Sequence[AnyRaster],
    features: Sequence[str],
    target: str,
    root: str | Path,
    catalog: Mapping[str, Feature] = FEATURES,
    *,
    keep: Keep | None = None,
) -> xr.Dataset:
    """Return the lazy station cube of a study: target, features (from the stations or the rasters), diagnostics.

    A variable that the stations give is taken from them; the rasters give the others. Derived features are
    added. Stations outside a raster are left out of the cube and named in `attrs["left_out"]`.

    Parameters
    ----------
    stations : xarray.Dataset
        Station cube with the target.
    rasters : sequence of raster specs
        Of any kind.
    features, target : names
        Variables of the cube.
    root : str or Path
        Where relative paths start.
    catalog : mapping
        Kind and unit of each variable.
    keep : callable, optional
        Called with the name and the lazy values of each source at all stations; writes them and opens them again, so that an
        interrupted build resumes.
    """
    days = pd.DatetimeIndex(stations.indexes["time"])
    needed = {n for f in features for n in (f, *catalog[f].derived_from)} | {target}
    slopes = choose_slopes(features, rasters, stations)
    cube, dropped = stations, list[Dropped]()
    left_out = json.loads(stations.attrs.get("left_out", "{}"))
    for number, source in enumerate(rasters):
        parts = []
        if bands := {n: b for n, b in source.bands.items() if n in needed and n not in cube}:
            spec = source.model_copy(update={"bands": bands})
            period = (days[0], days[-1])
            parts.append(open_source(spec, root=root, stations=stations, period=period, catalog=catalog))
        if slopes and "elevation" in source.bands:
            parts.append(derive_slopes(slopes, source, stations, root, catalog))
        if not parts:
            continue
        values = parts[0].assign({n: v.variable for part in parts[1:] for n, v in part.data_vars.items()})
        values = keep(f"{number}-{source.kind}", values) if keep is not None else values
        values = drop_left_out(values.sel(station=cube["station"]))
        left_out |= json.loads(values.attrs["left_out"])
        dropped.append(dropped_before(values))
        kept = cube.sel(station=values["station"])
        cube = kept.assign({n: v.variable for n, v in values.data_vars.items()})
    cube = derive_features(cube, features)
    diagnostics = [str(n) for n, v in cube.data_vars.items() if v.attrs.get("kind") == "diagnostic"]
    cube = cube[[*features, target, *diagnostics]].assign_attrs(left_out=json.dumps(left_out), title="station cube")
    return with_dropped(cube, dropped)


def write_station_cube(
    ds: xr.Dataset, path: str | Path, *, token: str | None = None, progress: Progress | None = None
) -> Path:
    """Write a station cube, then add the revisit measured at each station to its variables' attributes; return its path.

    `revisit_days` is then a list, and `revisit_stations` the ids that its numbers belong to, so that stations may be
    chosen, sorted or joined to others afterwards.
    """
    path = write_cube(ds, path, token=token, progress=progress)
    group = zarr.open_group(path, mode="r+")
    written = xr.open_zarr(path, consolidated=False, chunks={})
    ids = text_of(written["station"]).tolist()
    for name in variables_of_kind(written, "dynamic"):
        nominal = float(written[name].attrs.get("revisit_days", 1.0))
        days = measure_revisit(written[name]).values
        group[name].attrs["revisit_days"] = [nominal if math.isnan(d) else float(d) for d in days]
        group[name].attrs["revisit_stations"] = ids
    seal(path)
    return path
