"""STAC: items of an API or a static catalogue as a lazy Dataset, on a grid or at stations."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr
from odc.geo.geobox import GeoBox

from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError, SmgeoWarning, missing_extra, nearest
from smgeo.recipe.rasters import StacSource
from smgeo.recipe.spec import parse_spec
from smgeo.sources.pixels.dates import day_axis, period_days
from smgeo.sources.pixels.footprint import check_target, station_places
from smgeo.sources.scenes.blocks import own_grid
from smgeo.sources.scenes.datasets import Variable, dataset_at_stations, dataset_on_grid
from smgeo.sources.scenes.layers import Scene

if TYPE_CHECKING:
    import pystac

    from smgeo.sources.stac.items import Band
    from smgeo.sources.stac.search import Area


def open_stac(
    spec: StacSource | Mapping[str, Any],
    *,
    root: str | Path = ".",
    geobox: GeoBox | None = None,
    stations: xr.Dataset | None = None,
    period: tuple[Any, Any] | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Items of a STAC API or a static catalogue, lazily: on a grid, at stations, or as they lie.

    Parameters
    ----------
    spec : StacSource or mapping
        `url` (an API's root, or a static catalogue at a URL or path), `bands` (features that `smgeo.catalog.STAC` knows, or
        variable -> asset, or ASSET:BAND by number or name), and optionally `collections`, `orbit` (Sentinel-1: ascending or descending), `max_cloud_cover`
        (percent; items that say more are left out), `query`, `bbox`, `mask`, `quality`, `units`, `scale`, `offset`,
        `convert`, `nodata`, `resampling`, `daily`, `radius_m`, `sign`.
    root : str or Path
        Where a relative path starts.
    geobox : odc.geo.geobox.GeoBox, optional
        Target grid; without it and without stations, the items' own, which must then be the same for all.
    stations : xarray.Dataset, optional
        With latitude and longitude on `station`: each gets, of every item on the item's own grid, the pixel it lies in, or
        with `radius_m` the mean of its footprint.
    period : (date, date), optional
        UTC days that are searched, all of which the result has; by default those that have items.
    catalog : mapping
        Kind and unit of each variable.

    Returns
    -------
    xarray.Dataset
        float32, lazy. (time, y, x) or (y, x) in blocks of at most (30, 256, 256), CRS in `spatial_ref`; with stations
        (station, time) or (station,) in blocks of 30 days, and `attrs["left_out"]` (JSON) names the stations that no item
        covers. A day's items become one by `daily`, every valid pixel kept: the clearest (by `eo:cloud_cover`) where there
        is a quality band, else their mean (in linear power for decibels). The catalogue is searched at once; assets are
        read when values are computed, but for headers of those whose item does not say its projection, and of the first item
        where it does not say how many bands an asset has that is none of the catalogue's.

    Raises
    ------
    SmgeoError
        If `pystac-client` or `odc-stac` is not installed, the catalogue does not answer, it has no such collection, items
        or assets, an asset has several bands and none is named, nothing says the scale of a variable that has one in the
        catalogue, or items do not go together (both passes of Sentinel-1; sigma0 and gamma0).
    """
    source = spec if isinstance(spec, StacSource) else parse_spec(StacSource, {"kind": "stac", **spec}, "open_stac")
    check_target("open_stac", geobox, stations)
    if unknown := [n for n in source.bands if n not in catalog]:
        raise SmgeoError(f"{source.label}: {unknown[0]!r} is no known variable; {nearest(unknown[0], list(catalog))}")
    try:
        from smgeo.sources.stac.items import bands_of
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("pystac", "pystac_client", "odc"):
            raise
        raise missing_extra("open_stac", "stac") from None
    bands = bands_of(source)
    items = _search(source, bands, Path(root), _areas(source, geobox, stations), period, catalog)
    scenes = _scenes(source, bands, items)
    moving = [s for s in scenes if any(catalog[n].kind != "static" for n, _ in s.layers)]
    days = day_axis([s.day for s in moving if s.day is not None], period) if moving else None
    _warn_of_no_mask(source, bands)
    variables = [_variable(source, band, catalog) for band in bands]
    if stations is not None:
        return dataset_at_stations(scenes, variables, stations, days, source.radius_m, source.label)
    box = geobox if geobox is not None else own_grid(scenes)
    return dataset_on_grid(scenes, variables, box, days, source.resampling)


def _areas(source: StacSource, geobox: GeoBox | None, stations: xr.Dataset | None) -> tuple[Area, ...]:
    """Where to search."""
    from smgeo.sources.stac.search import areas_of_grid, areas_of_stations

    if source.bbox is not None:
        return (source.bbox,)
    if geobox is not None:
        return areas_of_grid(geobox)
    return areas_of_stations(*station_places(stations)) if stations is not None else ()


def _search(
    source: StacSource,
    bands: Sequence[Band],
    root: Path,
    areas: tuple[Area, ...],
    period: tuple[Any, Any] | None,
    catalog: Mapping[str, Feature],
) -> dict[str, list[pystac.Item]]:
    """Items of each collection; of those that hold only what does not change, of all days."""
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
                + _looked_for(source, areas, days if moving else None, len(found))
            )
        out[collection] = kept
    return out


def _looked_for(source: StacSource, areas: Sequence[Area], days: tuple[Any, Any] | None, found: int) -> str:
    """What was looked for, in words."""
    when = f"from {days[0]:%Y-%m-%d} to {days[1]:%Y-%m-%d}" if days else "of any day"
    where = f" within {tuple(round(v, 4) for v in areas[0])}" if areas else ""
    more = f" and {len(areas) - 1} more areas" if len(areas) > 1 else ""
    rules = [f"{k}: {v}" for k in ("orbit", "max_cloud_cover", "query") if (v := getattr(source, k)) not in (None, {})]
    left = f"; {found} left out by {', '.join(rules)}" if found else f" with {', '.join(rules)}" if rules else ""
    return f"{when}{where}{more}{left}; widen the period, the area or the rules"


def _chosen(source: StacSource, items: Sequence[pystac.Item]) -> list[pystac.Item]:
    """Items clear enough, and of Sentinel-1 those of one kind of pass."""
    from smgeo.sources.stac.items import cloud_of, is_radar

    worst = source.max_cloud_cover
    kept = [i for i in items if worst is None or cloud_of(i, 0.0) <= worst]
    radar = [i for i in kept if is_radar(i)]
    passes = {i.id: i.properties.get("sat:orbit_state") for i in radar}
    if source.orbit is None:
        if {"ascending", "descending"} <= set(passes.values()):
            raise SmgeoError(
                f"{source.label}: there are ascending and descending passes, which look at slopes from opposite sides and are "
                "not mixed; say orbit: ascending or descending"
            )
        return kept
    if silent := [i for i, state in passes.items() if state is None]:
        raise SmgeoError(
            f"{source.label}: item {silent[0]} says no sat:orbit_state, so orbit: {source.orbit} cannot be chosen"
        )
    return [i for i in kept if i.id not in passes or passes[i.id] == source.orbit]


def _scenes(source: StacSource, bands: Sequence[Band], items: Mapping[str, list[pystac.Item]]) -> list[Scene]:
    """Scenes of all items, checked: every variable is in some, and none mixes kinds of backscatter."""
    from smgeo.sources.stac.items import backscatter_kind, check_files, known_assets, scenes_of

    scenes: list[Scene] = []
    kinds: dict[str, set[str | None]] = {band.name: set() for band in bands}
    checked: set[tuple[str | None, str]] = set()
    for item in (i for found in items.values() for i in found):
        made = scenes_of(item, bands, source.sign)
        scenes += made
        for band, scene in ((b, s) for b in bands for s in made if b.name in dict(s.layers)):
            if (item.collection_id, band.name) not in checked:  # the files of a collection are alike
                checked.add((item.collection_id, band.name))
                check_files(item, band, scene)
        for name in {n for s in made for n, _ in s.layers}:
            kinds[name].add(backscatter_kind(item))
    for band in bands:
        if not kinds[band.name]:
            known = known_assets([i for c in band.collections for i in items[c][:10]])
            raise SmgeoError(
                f"{source.label}: no item of {', '.join(band.collections)} has an asset {' or '.join(band.assets)} for "
                f"{band.name}; {nearest(band.assets[0], known)}"
            )
        if {"gamma0", "sigma0"} <= kinds[band.name]:
            raise SmgeoError(
                f"{source.label}: {band.name} would mix sigma0 (GRD) and gamma0 (RTC), which differ by the terrain's slope; "
                f"name one of the collections {', '.join(band.collections)}"
            )
    return scenes


def _warn_of_no_mask(source: StacSource, bands: Sequence[Band]) -> None:
    """Say of which variables the catalogue's quality rule does not hold, where no other is given."""
    unmasked = [b for b in bands if b.elsewhere is not None and b.elsewhere.mask and not b.quality]
    if unmasked and source.mask:
        names = ", ".join(f"{b.name} ({b.assets[0]})" for b in unmasked)
        warnings.warn(
            f"{source.label}: {names} of {', '.join(source.collections)} is read without a quality rule, clouds and all: the "
            "catalogue has none for it. Name an asset and a rule in quality, or say mask: false",
            SmgeoWarning,
        )


def _variable(source: StacSource, band: Band, catalog: Mapping[str, Feature]) -> Variable:
    words = [f"{', '.join(band.collections)} ({source.label})"]
    if source.orbit is not None and band.name.startswith("s1_"):
        words.append(f"{source.orbit} passes")
    if band.table is not None and band.table.note:
        words.append(band.table.note)
    return Variable(catalog[band.name], "; ".join(words), masked=bool(band.quality), daily=source.daily)
