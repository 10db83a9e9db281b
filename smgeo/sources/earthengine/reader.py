"""Google Earth Engine as a lazy Dataset: computed pixels on the target grid, or values at stations, each requested once.

The modules `expressions`, `plan` and `requests` of this package write the expressions, cut them into requests, and send
them. They use Earth Engine's own client rather than xee, whose workers have no credentials (xee #99, #345) and whose
chunks come back missing when a quota is exceeded (xee #115).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from smgeo.bounds import check_period
from smgeo.catalog import EARTHENGINE, FEATURES, Feature, reference_attr
from smgeo.cube.schema import DAY_INPUTS, PIXEL_SIZE
from smgeo.errors import SmgeoError
from smgeo.recipe.rasters import EarthEngineSource, read_source
from smgeo.sources.earthengine.grid import open_grid
from smgeo.sources.earthengine.products import Product, list_products
from smgeo.sources.earthengine.session import find_access
from smgeo.sources.earthengine.stations import open_places
from smgeo.sources.pixels.daily import rule_in_words
from smgeo.sources.pixels.footprint import station_places, stations_dataset
from smgeo.terrain import TERRAIN


def open_earthengine(
    spec: EarthEngineSource | Mapping[str, object],
    *,
    root: str | Path = ".",
    geobox: GeoBox | None = None,
    stations: xr.Dataset | None = None,
    period: tuple[str | dt.date, str | dt.date] | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Open features of Google Earth Engine lazily, on a grid or at stations.

    Opening signs in and lists the days that have images of the place; values are requested when they are computed.

    Parameters
    ----------
    spec : EarthEngineSource or mapping
        `bands` (features of the catalogue, or variable -> feature), `project`, and optionally `credentials`, `orbit`
        (needed for Sentinel-1), `mask`, `resampling`, `daily`, `radius_m`, `requests_in_flight`, `budget`, `timeout_s`,
        `retries`, `url`.
    root : str or Path
        Folder that a relative path of a key file starts from.
    geobox : odc.geo.geobox.GeoBox, optional
        Target grid; give either this or stations.
    stations : xarray.Dataset, optional
        With latitude and longitude on `station`: each gets, of every image in the image's own projection, its own
        pixel, or with `radius_m` the mean of the pixels whose centres are within the radius.
    period : (date, date)
        First and last day, UTC; the result has every day of it, missing where there is no image.
    catalog : mapping
        Kind and unit of each variable.

    Returns
    -------
    xarray.Dataset
        float32, lazy, missing is NaN. (time, y, x) and (y, x) in blocks of at most (30, 256, 256) with the CRS in
        `spatial_ref`; or (station, time) and (station,) in blocks of at most 256 stations and 512 days. All variables
        of a block come from the same requests: one a day that has images, or one for 64 stations and up to 64 days of
        each product. A day's images become one value by the catalogue's rule (`daily_rule`); Sentinel-1 is averaged in
        linear power and given in dB; a day of IMERG that lacks a half hour is missing, and the attribute `run` names the runs
        (final, late) of its images. Values outside a variable's valid range are missing and counted. Slope and aspect are
        computed from resampled elevation (Horn 1981), at stations from elevations 30 m around. The coordinate
        `day_inputs` on `time` is a digest of the inputs of each day.
        `attrs["requests"]`: requests of the listing and of all values, without retries and without those of
        signing in (a few for each process).

    Raises
    ------
    SmgeoError
        If the spec is invalid, credentials or project are missing or refused, the plan exceeds the budget, or (when
        values are computed) a request fails for good.
    """
    check_period("open_earthengine", period)
    source = read_source(EarthEngineSource, spec, "open_earthengine", catalog)
    if (geobox is None) == (stations is None):
        raise SmgeoError("earthengine: give either a grid or stations; the source covers the whole Earth")
    if period is None:
        raise SmgeoError("earthengine: give a period (first day, last day); the source covers decades")
    _check_units(source, catalog)
    days = pd.date_range(pd.Timestamp(period[0]), pd.Timestamp(period[1]), freq="D", name="time")
    if not len(days):
        raise SmgeoError(f"earthengine: the period ends before it begins: {period[0]} to {period[1]}")
    access = find_access(source, root)
    if geobox is not None:
        opened = open_grid(source, access, catalog, geobox, days)
    else:
        assert stations is not None
        opened = open_places(source, access, catalog, *station_places(stations), days)
    products = {p.asset: p for p in list_products(source, None)}
    data = {}
    for name, feature in source.bands.items():
        product = products[EARTHENGINE[feature].asset]
        time = () if product.static else ("time",)
        dims = (*time, "y", "x") if geobox is not None else ("station", *time)
        data[name] = xr.Variable(dims, opened.arrays[name], _attrs(source, name, feature, product, catalog))
        if run := opened.runs.get(product.asset):
            data[name].attrs["run"] = run
        if geobox is not None:
            data[name].attrs["grid_mapping"] = "spatial_ref"
        elif product.static and feature not in TERRAIN:
            # Slope and aspect are of the station's own place, and no pixel's.
            data[name].attrs[PIXEL_SIZE] = EARTHENGINE[feature].pixel_m
    if geobox is not None:
        ds = xr.Dataset(data, xr_coords(geobox, dims=("y", "x")))
    else:
        assert stations is not None
        ds = stations_dataset(data, stations, np.ones(stations.sizes["station"], dtype=bool), source.label)
    if "time" in ds.dims:
        axis = xr.DataArray(days, dims="time", name="time")
        ds = ds.assign_coords({"time": axis, DAY_INPUTS: ("time", opened.day_inputs)})
    return ds.assign_attrs(requests=opened.requests)


def _check_units(source: EarthEngineSource, catalog: Mapping[str, Feature]) -> None:
    for name, feature in source.bands.items():
        if catalog[name].units != FEATURES[feature].units:
            raise SmgeoError(
                f"earthengine: {name} is in {catalog[name].units!r}, but {feature} is given in {FEATURES[feature].units!r}"
            )


def _attrs(
    source: EarthEngineSource, name: str, feature: str, product: Product, catalog: Mapping[str, Feature]
) -> dict[str, object]:
    entry = EARTHENGINE[feature]
    asked = f"Google Earth Engine, {entry.asset}, {entry.band}" + (f"; {entry.note}" if entry.note else "")
    attrs: dict[str, object] = {**catalog[name].attrs(), "source": asked}
    if entry.mask and source.mask:
        attrs["mask"] = entry.mask
    if feature.startswith("s1_"):
        attrs["orbit"] = source.orbit
    if refers_to := source.refers_to.get(name, entry.refers_to):
        attrs[reference_attr(name)] = refers_to
    if (product.images_a_day or 1) > 1:
        attrs["daily_rule"] = "sum of a day (UTC): mean of its half hours times 24 h; missing where one of them is"
    elif product.quality_band:
        attrs["daily_rule"] = f"the clearest of a day's images (UTC) by {product.quality_band}, pixel by pixel"
    elif product.quality_property:
        attrs["daily_rule"] = (
            f"of a day's images (UTC) that of least {product.quality_property}; where it has no value, the next one"
        )
    elif not product.static:
        attrs["daily_rule"] = rule_in_words("mean", catalog[name])
    if feature not in TERRAIN and product.footprint_m(source.radius_m):
        attrs["footprint"] = f"mean of the pixels within {source.radius_m:g} m"
    return attrs
