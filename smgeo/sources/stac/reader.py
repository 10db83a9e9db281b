"""STAC: items of an API or a static catalogue as a lazy Dataset, on a grid or at stations."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox

from smgeo.bounds import check_period
from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError, SmgeoWarning, missing_extra, nearest
from smgeo.recipe.rasters import StacSource, read_source
from smgeo.sources.pixels.dates import day_axis, period_days
from smgeo.sources.pixels.footprint import check_target, station_places
from smgeo.sources.pixels.references import one_reference
from smgeo.sources.scenes.blocks import own_grid
from smgeo.sources.scenes.datasets import Variable, dataset_at_stations, dataset_on_grid
from smgeo.sources.scenes.layers import Scene

if TYPE_CHECKING:
    import pystac

    from smgeo.sources.stac.items import Band
    from smgeo.sources.stac.search import Area


def open_stac(
    spec: StacSource | Mapping[str, object],
    *,
    root: str | Path = ".",
    geobox: GeoBox | None = None,
    stations: xr.Dataset | None = None,
    period: tuple[object, object] | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Open items of a STAC API or a static catalogue lazily: on a grid, at stations, or on their own grid.

    Parameters
    ----------
    spec : StacSource or mapping
        `url` (an API's root, or a static catalogue at a URL or path), `bands` (features in `smgeo.catalog.STAC`, or
        variable -> asset, or ASSET:BAND by number or name), and optionally `collections`, `orbit` (Sentinel-1: ascending or descending), `max_cloud_cover`
        (percent; items with more are left out), `query`, `bbox`, `mask`, `quality`, `units`, `scale`, `offset`,
        `convert`, `nodata`, `resampling`, `daily`, `radius_m`, `sign`.
    root : str or Path
        Folder that a relative path starts from.
    geobox : odc.geo.geobox.GeoBox, optional
        Target grid; without it and without stations, the items' own, which must then be the same for all.
    stations : xarray.Dataset, optional
        With latitude and longitude on `station`: each gets, of every item on the item's own grid, its pixel, or
        with `radius_m` the mean of its footprint.
    period : (date, date), optional
        UTC days to search, all of which the result has; by default the days that have items.
    catalog : mapping
        Kind and unit of each variable.

    Returns
    -------
    xarray.Dataset
        float32, lazy. (time, y, x) or (y, x) in blocks of at most (30, 256, 256), CRS in `spatial_ref`; with stations
        (station, time) or (station,) in blocks of 30 days, and `attrs["left_out"]` (JSON) names the stations that no item
        covers. A day's items become one by `daily`, every valid pixel kept: the clearest (by `eo:cloud_cover`) if there
        is a quality band, else their mean (in linear power for decibels). The catalogue is searched at once; assets are
        read when values are computed. Before, only samples of two items are read, which show the unit, and headers: of assets
        whose item lacks its projection, and of the first item if it lacks the number of bands of an asset that is not in the
        catalogue.

    Raises
    ------
    SmgeoError
        If `pystac-client` or `odc-stac` is not installed, the catalogue does not answer, it has no such collection, items
        or assets, an asset has several bands and none is named, the scale of a variable that has one in the catalogue
        is unknown, or items cannot be combined (both passes of Sentinel-1; sigma0 and gamma0; heights above
        two surfaces), or a collection has no backscatter but digital numbers (`sentinel-1-grd`).
    """
    check_period("open_stac", period)
    source = read_source(StacSource, spec, "open_stac", catalog)
    check_target("open_stac", geobox, stations)
    try:
        from smgeo.sources.stac.items import bands_of
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("pystac", "pystac_client", "odc"):
            raise
        raise missing_extra("open_stac", "stac") from None
    bands = bands_of(source)
    _refuse_digital_radar(source, bands)
    items = _search(source, bands, Path(root), _areas(source, geobox, stations), period, catalog)
    scenes, references = _scenes(source, bands, items)
    moving = [s for s in scenes if any(catalog[n].kind != "static" for n, _ in s.layers)]
    days = day_axis([s.day for s in moving if s.day is not None], period) if moving else None
    _warn_of_no_mask(source, bands)
    variables = [_variable(source, band, catalog, references[band.name]) for band in bands]
    if stations is not None:
        return dataset_at_stations(scenes, variables, stations, days, source.radius_m, source.label)
    box = geobox if geobox is not None else own_grid(scenes)
    return dataset_on_grid(scenes, variables, box, days, source.resampling)


def _refuse_digital_radar(source: StacSource, bands: Sequence[Band]) -> None:
    from smgeo.sources.stac.items import is_digital_radar

    if found := [c for band in bands for c in band.collections if is_digital_radar(c)]:
        raise SmgeoError(
            f"{source.label}: {found[0]} has digital numbers that are neither calibrated nor corrected for terrain, not backscatter; read "
            "collections: [sentinel-1-rtc] (gamma0 in linear power, of Planetary Computer with sign: planetary_computer), or GRD "
            "calibrated and geocoded by ESA SNAP or Earth Engine"
        )


def _areas(source: StacSource, geobox: GeoBox | None, stations: xr.Dataset | None) -> tuple[Area, ...]:
    """Return the areas to search."""
    from smgeo.sources.stac.search import areas_of_grid, areas_of_stations, split_area

    if source.bbox is not None:
        return split_area(*source.bbox)
    if geobox is not None:
        return areas_of_grid(geobox)
    return areas_of_stations(*station_places(stations)) if stations is not None else ()


def _search(
    source: StacSource,
    bands: Sequence[Band],
    root: Path,
    areas: tuple[Area, ...],
    period: tuple[object, object] | None,
    catalog: Mapping[str, Feature],
) -> dict[str, list[pystac.Item]]:
    """Return the items of each collection; of all days, if it has only static variables."""
    from smgeo.sources.stac.search import Search, find_items, local_or_remote, open_catalogue

    root_catalogue = open_catalogue(local_or_remote(source.url, root))
    days = period_days(period) if period is not None else None
    out = {}
    for collection in dict.fromkeys(c for band in bands for c in band.collections):
        moving = any(catalog[b.name].kind != "static" for b in bands if collection in b.collections)
        found = find_items(root_catalogue, Search(collection, areas, days if moving else None, source.query))
        kept = _chosen(source, found)
        if not kept:
            raise SmgeoError(
                f"{source.label}: no items of {collection} "
                + _describe_search(source, areas, days if moving else None, len(found))
            )
        out[collection] = kept
    return out


def _describe_search(
    source: StacSource, areas: Sequence[Area], days: tuple[pd.Timestamp, pd.Timestamp] | None, found: int
) -> str:
    """Return a description of a search, for its error message."""
    when = f"from {days[0]:%Y-%m-%d} to {days[1]:%Y-%m-%d}" if days else "of any day"
    where = f" within {tuple(round(v, 4) for v in areas[0])}" if areas else ""
    more = f" and {len(areas) - 1} more areas" if len(areas) > 1 else ""
    rules = [f"{k}: {v}" for k in ("orbit", "max_cloud_cover", "query") if (v := getattr(source, k)) not in (None, {})]
    left = f"; {found} left out by {', '.join(rules)}" if found else f" with {', '.join(rules)}" if rules else ""
    return f"{when}{where}{more}{left}; widen the period, the area or the rules"


def _chosen(source: StacSource, items: Sequence[pystac.Item]) -> list[pystac.Item]:
    """Return the items that are clear enough, and of Sentinel-1 only those of one kind of pass."""
    from smgeo.sources.stac.items import cloud_of, is_radar

    worst = source.max_cloud_cover
    kept = [i for i in items if worst is None or cloud_of(i, 0.0) <= worst]
    radar = [i for i in kept if is_radar(i)]
    passes = {i.id: i.properties.get("sat:orbit_state") for i in radar}
    if source.orbit is None:
        if {"ascending", "descending"} <= set(passes.values()):
            raise SmgeoError(
                f"{source.label}: there are ascending and descending passes, which see slopes from opposite sides and are "
                "not mixed; set orbit: ascending or descending"
            )
        return kept
    if silent := [i for i, state in passes.items() if state is None]:
        raise SmgeoError(
            f"{source.label}: item {silent[0]} has no sat:orbit_state, so orbit: {source.orbit} cannot be applied; leave it out"
        )
    return [i for i in kept if i.id not in passes or passes[i.id] == source.orbit]


def _scenes(
    source: StacSource, bands: Sequence[Band], items: Mapping[str, list[pystac.Item]]
) -> tuple[list[Scene], dict[str, str]]:
    """Return the scenes of all items, and what each variable refers to.

    Checked: each variable is in some item, and none mixes kinds of backscatter or vertical datums.
    """
    from smgeo.sources.stac.items import backscatter_kind, check_files, known_assets, reference_of, scenes_of

    scenes: list[Scene] = []
    kinds: dict[str, set[str | None]] = {band.name: set() for band in bands}
    references: dict[str, dict[str, str]] = {band.name: {} for band in bands}
    checked: set[tuple[str | None, str]] = set()
    for item in (i for found in items.values() for i in found):
        try:
            made = scenes_of(item, bands, source.sign)
        except SmgeoError:
            raise
        except Exception as error:  # of an item that is no valid STAC; pystac, odc-stac and shapely each have their own
            raise SmgeoError(f"{source.label}: item {item.id} is damaged ({type(error).__name__}: {error})") from error
        scenes += made
        for band, scene in ((b, s) for b in bands for s in made if b.name in dict(s.layers)):
            if (item.collection_id, band.name) not in checked:  # the files of a collection are alike
                checked.add((item.collection_id, band.name))
                check_files(item, band, scene)
        for name in {n for s in made for n, _ in s.layers}:
            kinds[name].add(backscatter_kind(item))
            references[name].setdefault(reference_of(item, name), item.id)
    for band in bands:
        if not kinds[band.name]:
            known = known_assets([i for c in band.collections for i in items[c][:10]])
            raise SmgeoError(
                f"{source.label}: no item of {', '.join(band.collections)} has an asset {' or '.join(band.assets)} for "
                f"{band.name}; {nearest(band.assets[0], known)}"
                + ("; items of other satellites than Landsat 8 are left out for it" if band.of_landsat_8 else "")
            )
        if {"gamma0", "sigma0"} <= kinds[band.name]:
            raise SmgeoError(
                f"{source.label}: {band.name} would mix sigma0 (GRD) and gamma0 (RTC), which differ by the terrain's slope; "
                f"name one of the collections {', '.join(band.collections)}"
            )
    return scenes, {
        band.name: source.refers_to.get(band.name) or one_reference(references[band.name], band.name, source.label)
        for band in bands
    }


def _warn_of_no_mask(source: StacSource, bands: Sequence[Band]) -> None:
    """Warn of variables that the catalogue's quality rule does not apply to, if no other is given."""
    unmasked = [b for b in bands if b.elsewhere is not None and b.elsewhere.mask and not b.quality]
    if unmasked and source.mask:
        names = ", ".join(f"{b.name} ({b.assets[0]})" for b in unmasked)
        warnings.warn(
            f"{source.label}: {names} of {', '.join(source.collections)} is read without a quality rule, clouds included: the "
            "catalogue has none for it. Name an asset and a rule in quality, or set mask: false",
            SmgeoWarning,
        )


def _variable(source: StacSource, band: Band, catalog: Mapping[str, Feature], refers_to: str) -> Variable:
    words = [f"{', '.join(band.collections)} ({source.label})"]
    if source.orbit is not None and band.name.startswith("s1_"):
        words.append(f"{source.orbit} passes")
    # The note of another collection would give its numbers a name that they do not have.
    if band.table is not None and band.table.note and set(band.collections) == {band.table.collection}:
        words.append(band.table.note)
    return Variable(catalog[band.name], "; ".join(words), bool(band.quality), source.daily, refers_to)
