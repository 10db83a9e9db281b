"""STAC items as scenes: the asset that contains a variable, the scale of its numbers, and its grid.

Imported only if a recipe names a STAC source: `pystac` and `odc-stac` are an extra.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import pystac
from odc.geo.geobox import GeoBox
from odc.loader.types import RasterSource
from odc.stac import parse_item

from smgeo.catalog import EGM96, EGM2008, MASKS, STAC, Conversion, Mask, StacBand
from smgeo.errors import SmgeoError, nearest
from smgeo.recipe.rasters import StacSource
from smgeo.sources.scenes.files import file_state, read_header, signed_by_planetary_computer
from smgeo.sources.scenes.layers import Layer, Scene
from smgeo.sources.stac.search import item_times

# Sentinel-2 Products Specification: from processing baseline 04.00 (25 January 2022) on, reflectance = (DN - 1000) / 10000.
_BOA_OFFSET = -1000.0
# Assets that contain reflectance, by the names of Planetary Computer and of Earth Search.
_S2_REFLECTANCE = {f"B{n:02d}" for n in range(1, 13)} | {
    "B8A", "coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "nir09", "swir16", "swir22",
}  # fmt: skip

_OFFSET_APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
_BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
# Vertical datum of heights, by collection of Planetary Computer and Earth Search.
_HEIGHTS = {
    "cop-dem-glo-30": EGM2008,
    "cop-dem-glo-90": EGM2008,
    "nasadem": EGM96,
    "alos-dem": EGM96,
}

_PICTURES = {"visual", "preview", "overview", "thumbnail"}


@dataclass(frozen=True)
class Band:
    """One variable to find in items, and the scale of its numbers by the recipe and the catalogue.

    Attributes
    ----------
    name : str
        The variable.
    assets : tuple of str
        Asset keys, band names, or `ASSET:NUMBER` and `ASSET:NAME` of a band in an asset, that may contain it, in order.
    collections : tuple of str
        The collections to search.
    table : StacBand or None
        The catalogue's entry, used if an item has no scale, offset or nodata.
    scale, offset, nodata : float or None
        Values of the recipe, which take precedence.
    convert : str
        Conversion after scale and offset.
    quality : tuple of str
        Assets of the quality band; empty for none.
    mask : Mask or None
        The flags that it leaves out.
    elsewhere : StacBand or None
        The catalogue's entry for the variable in another collection or asset: it does not apply here, so the recipe, the
        item or the file must give the scale.
    """

    name: str
    assets: tuple[str, ...]
    collections: tuple[str, ...]
    table: StacBand | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    convert: Conversion = "none"
    quality: tuple[str, ...] = ()
    mask: Mask | None = None
    elsewhere: StacBand | None = None

    @property
    def needs_scale(self) -> bool:
        """True if the item or the file must give a scale or offset."""
        has_one = self.elsewhere is not None and (self.elsewhere.scale, self.elsewhere.offset) != (1.0, 0.0)
        return has_one and self.scale is None and self.offset is None

    @property
    def of_landsat_8(self) -> bool:
        """True if it is read only from Landsat 8: other satellites of a collection have other bands and thermal constants."""
        return self.name.startswith("l8_") or self.convert.startswith("landsat8") or self.table is STAC["l8_b10"]

    @property
    def listed(self) -> bool:
        """True if the assets are those of the catalogue's table, which have one band each."""
        return self.table is not None and set(self.assets) <= set(self.table.assets)


def bands_of(source: StacSource) -> list[Band]:
    """Return the variables of a source, completed from the catalogue's table."""
    return [_band(source, name, asked) for name, asked in source.bands.items()]


def _band(source: StacSource, name: str, asked: str) -> Band:
    table = STAC.get(asked)
    assets = table.assets if table else (asked,)
    elsewhere = STAC.get(name) if table is None else None
    if elsewhere and (asked in elsewhere.assets or set(source.collections) == {elsewhere.collection}):
        table, elsewhere = elsewhere, None
    quality: tuple[str, ...] = ()
    mask = None
    if source.quality is not None:
        quality, mask = (str(source.quality.band),), source.quality.mask
    elif table and table.mask:
        quality, mask = table.quality, MASKS[table.mask]
    return Band(
        name,
        assets,
        source.collections or ((table.collection,) if table else ()),
        table,
        source.scale.get(name),
        source.offset.get(name),
        source.nodata,
        source.convert.get(name, table.conversion if table else "none"),
        quality if source.mask else (),
        mask if source.mask else None,
        elsewhere,
    )


def scenes_of(item: pystac.Item, bands: Sequence[Band], sign: str | None) -> list[Scene]:
    """Return the scenes of one item, one for each quality rule; none if it has no variable.

    An asset is opened only if the item lacks its projection, or if only the file can give a scale that is needed, or the
    name of a band.

    Raises
    ------
    SmgeoError
        If the item lacks the quality band, an asset has several bands and none is named, or lacks the named one, or the
        scale of a variable that has one in the catalogue is unknown.
    """
    parsed = _Parsed(item, sign)
    found = [
        (band, at)
        for band in bands
        if item.collection_id in (None, *band.collections)
        and not (band.of_landsat_8 and is_other_landsat(item))
        and (at := parsed.find(band.assets))
    ]
    scenes = []
    for quality, mask in dict.fromkeys((b.quality, b.mask) for b, _ in found):
        mine = [(b, at) for b, at in found if (b.quality, b.mask) == (quality, mask)]
        flags = parsed.quality(quality) if quality else None
        layers = tuple((b.name, parsed.layer(b, at)) for b, at in mine)
        hrefs = [*dict.fromkeys(layer.href for _, layer in layers), *([flags.href] if flags else [])]
        scenes.append(
            Scene(
                item.id,
                item_times(item)[0].normalize(),
                layers,
                parsed.box(mine[0][1], layers[0][1].href),
                flags,
                mask if flags else None,
                cloud_of(item, 100.0),
                (item.properties.get("updated"), *(_state(h, item) for h in hrefs)),
            )
        )
    return scenes


def check_files(item: pystac.Item, band: Band, scene: Scene) -> None:
    """Check by their headers that assets have the band that is read, if the item lacks their number of bands.

    The catalogue's own assets are not opened.

    Raises
    ------
    SmgeoError
        If a file has several bands and none is named, or no band of that number.
    """
    named = [] if band.listed else [(band.assets, dict(scene.layers)[band.name])]
    if scene.quality is not None and not (band.table and band.quality == band.table.quality):
        named.append((band.quality, scene.quality))
    for (asked, *_), layer in named:
        key = asked if asked in item.assets else asked.rpartition(":")[0]
        if key not in item.assets or _names_of_bands(item.assets[key]):
            continue
        names = [[n] if n else [] for n in read_header(layer.href).names]
        if layer.band > len(names):
            raise _no_band(item, key, str(layer.band), names)
        if key == asked and len(names) > 1:
            raise _several(item, key, names)


def _several(item: pystac.Item, key: str, names: Sequence[Sequence[str]]) -> SmgeoError:
    example = next((n for band in names for n in band), None)
    by_name = f", or by its name, {key}:{example}" if example else ""
    return SmgeoError(
        f"STAC item {item.id}: asset {key} has {len(names)} bands{_listed(names)}; name one by its number, such as {key}:1"
        f"{by_name}"
    )


def _no_band(item: pystac.Item, key: str, asked: str, names: Sequence[Sequence[str]]) -> SmgeoError:
    return SmgeoError(f"STAC item {item.id}: asset {key} has no band {asked!r}; it has {len(names)}{_listed(names)}")


def _listed(names: Sequence[Sequence[str]]) -> str:
    words = [f"{i} {n[0]}" for i, n in enumerate(names, start=1) if n]
    return f" ({', '.join(words[:20])}{', ...' if len(words) > 20 else ''})" if words else ""


def cloud_of(item: pystac.Item, unknown: float) -> float:
    """Return the percentage of cloud, `eo:cloud_cover`."""
    cover = item.properties.get("eo:cloud_cover")
    return unknown if cover is None else float(cover)


def backscatter_kind(item: pystac.Item) -> str | None:
    """Return `gamma0` for terrain-corrected radar (RTC), `sigma0` for detected (GRD), or None if it is not backscatter."""
    said = str(item.properties.get("product:type") or item.properties.get("sar:product_type") or "").upper()
    words = {said, *str(item.collection_id or "").upper().replace("_", "-").split("-")}
    return "gamma0" if "RTC" in words else "sigma0" if "GRD" in words else None


def is_digital_radar(collection: str | None) -> bool:
    """Return True for collections of Sentinel-1 GRD as ESA distributes it: digital numbers, neither calibrated nor geocoded."""
    name = str(collection or "").lower()
    return re.match(r"sentinel-?1.*grd", name) is not None and not re.search(r"rtc|sigma|gamma", name)


def is_other_landsat(item: pystac.Item) -> bool:
    """Return True if an item is of a Landsat satellite other than Landsat 8, by its platform, else by its name."""
    platform = item.properties.get("platform")
    if platform:
        return re.sub(r"[^a-z0-9]", "", str(platform).lower()) not in ("landsat8", "lc08")
    return re.match(r"L[A-Z]0[1-79]_", item.id, re.IGNORECASE) is not None


def reference_of(item: pystac.Item, variable: str) -> str:
    """Return what a variable of an item refers to: the vertical datum of heights, the kind of backscatter; nothing if not known."""
    if variable == "elevation":
        return _HEIGHTS.get(str(item.collection_id or "").lower(), "")
    return backscatter_kind(item) or "" if variable.startswith("s1_v") else ""


def is_radar(item: pystac.Item) -> bool:
    """Return True if an item is radar, whose passes (`sat:orbit_state`) must not be mixed."""
    return backscatter_kind(item) is not None or any(name.startswith("sar:") for name in item.properties)


def known_assets(items: Sequence[pystac.Item]) -> list[str]:
    """Return the asset keys and band names of items, sorted."""
    names: set[str] = set()
    for item in items:
        names |= {*item.assets, *_Parsed(item, None).aliases}
    return sorted(names)


class _Parsed:
    """An item as odc-stac parses it: bands of its assets, their names, grids and missing values."""

    def __init__(self, item: pystac.Item, sign: str | None) -> None:
        self.item, self.sign = item, sign
        try:
            self.bands = parse_item(item, asset_absolute_paths=False)
        except ValueError:
            # Its projection is incomplete: without it the rest is parsed, and headers give the grids.
            bare = item.clone()
            bare.set_self_href(item.get_self_href())
            bare.stac_extensions = [e for e in bare.stac_extensions if "/projection/" not in e]
            self.bands = parse_item(bare, asset_absolute_paths=False)
        # STAC 1.1 names bands in `bands`, which odc-stac does not read.
        self.aliases: Mapping[str, Sequence[tuple[str, int]]] = {
            **_names_in_bands(item),
            **self.bands.collection.meta.aliases,
        }

    def find(self, names: Sequence[str]) -> tuple[str, int] | None:
        """Return (asset, band) of the first name that the item has: an asset's, that of a band in one, or ASSET:BAND.

        Raises
        ------
        SmgeoError
            If the asset has several bands by the item, or none of that number or name.
        """
        for name in names:
            if name in self.item.assets:
                said = _names_of_bands(self.item.assets[name])
                if len(said) > 1 and not any(name in band for band in said):
                    raise _several(self.item, name, said)
                return name, next((i for i, band in enumerate(said, start=1) if name in band), 1)
            if name in self.aliases:
                return self.aliases[name][0]
            key, _, wanted = name.rpartition(":")
            if key in self.item.assets:
                return key, self._number(key, wanted)
        return None

    def _number(self, key: str, wanted: str) -> int:
        """Return the number of a band of an asset, given as a number or by its name in the item or the file."""
        said = _names_of_bands(self.item.assets[key])
        if wanted.isdecimal():
            number = int(wanted)
            if number < 1 or (said and number > len(said)):
                raise _no_band(self.item, key, wanted, said)
            return number
        if not any(wanted in band for band in said):
            said = [[n] if n else [] for n in read_header(self.href(key)).names]
        for number, names in enumerate(said, start=1):
            if wanted in names:
                return number
        raise _no_band(self.item, key, wanted, said)

    def layer(self, band: Band, at: tuple[str, int]) -> Layer:
        """Return the layer of a variable, with the scale of the recipe, else the item, the catalogue's table or the file."""
        said = _numbers(self.item.assets[at[0]], at[1])
        table = band.table
        scale, offset = said.get("scale"), said.get("offset")
        if scale is None and offset is None and table is not None:
            scale, offset = table.scale, table.offset
        if band.needs_scale and not said:
            self._check_file_says_scale(band, at)
        scale = band.scale if band.scale is not None else scale
        names = {*band.assets, *(table.assets if table is not None else ()), *self._names(at)}
        if _is_sentinel2(self.item) and _S2_REFLECTANCE & names:
            offset = self._boa_offset(scale, offset, given="offset" in said)
        source = self._raster(at)
        nodata = source.meta.nodata if source is not None and source.meta is not None else None
        if nodata is None and table is not None:
            nodata = table.nodata
        return Layer(
            self.href(at[0]),
            at[1],
            band.nodata if band.nodata is not None else nodata,
            scale,
            band.offset if band.offset is not None else offset,
            band.convert,
        )

    def _names(self, at: tuple[str, int]) -> set[str]:
        """Return the names of an asset and its band; bands of pictures are named after what they show, so they are left out."""
        if at[0] in _PICTURES:
            return {at[0]}
        said = _names_of_bands(self.item.assets[at[0]])
        return {at[0], *(said[at[1] - 1] if at[1] <= len(said) else ())}

    def _check_file_says_scale(self, band: Band, at: tuple[str, int]) -> None:
        header, table = read_header(self.href(at[0])), STAC[band.name]
        if at[1] > len(header.names):
            raise _no_band(self.item, at[0], str(at[1]), [[n] if n else [] for n in header.names])
        if (header.scales[at[1] - 1], header.offsets[at[1] - 1]) == (1.0, 0.0):
            raise SmgeoError(
                f"STAC item {self.item.id}: nothing gives the scale of {band.name} in asset {at[0]} of {self.item.collection_id}; "
                f"set scale: {{{band.name}: ...}} and offset: {{{band.name}: ...}} (1 and 0 for numbers in the cube's unit; in "
                f"{table.collection} they are {table.scale:g} and {table.offset:g})"
            )

    def _boa_offset(self, scale: float | None, offset: float | None, *, given: bool) -> float | None:
        """Return Sentinel-2's offset: 0 if it is applied already, else that of the item, else that of its baseline."""
        if any(self.item.properties.get(key) is True for key in _OFFSET_APPLIED):
            return 0.0
        if given:
            return offset
        baseline = max(_baseline(self.item.properties.get(key)) for key in _BASELINES)
        return _BOA_OFFSET * (scale if scale is not None else 1.0) if baseline >= 4 else offset

    def quality(self, names: Sequence[str]) -> Layer:
        """Return the layer of the quality band."""
        at = self.find(names)
        if at is None:
            raise SmgeoError(
                f"STAC item {self.item.id} has no quality asset {' or '.join(names)} "
                f"({nearest(names[0], list(self.item.assets))}); name it in quality, or read all pixels with mask: false"
            )
        return Layer(self.href(at[0]), at[1])

    def box(self, at: tuple[str, int], href: str) -> GeoBox:
        """Return the grid of a band, from the item, or from the file's header if the item lacks it."""
        source = self._raster(at)
        own = source.geobox if source is not None else None
        return own if isinstance(own, GeoBox) and own.crs is not None else read_header(href).box

    def _raster(self, at: tuple[str, int]) -> RasterSource | None:
        # Bands that odc-stac does not know are on the grid of the first.
        source = self.bands.bands.get(at) or self.bands.bands.get((at[0], 1))
        return source if isinstance(source, RasterSource) else None

    def href(self, name: str) -> str:
        """Return the absolute address of an asset, to be signed at each read if `sign` is set."""
        href = self.item.assets[name].get_absolute_href()
        if href is None:
            raise SmgeoError(
                f"STAC item {self.item.id}: asset {name} has a relative address, and the item has no address of its own"
            )
        href = href.removeprefix("file://")
        if "${" in href:  # it would get the value of a secret
            raise SmgeoError(
                f"STAC item {self.item.id}: asset {name} has an address with ${{...}}, which only a recipe may have"
            )
        if self.sign and href.startswith(("http://", "https://")):
            return signed_by_planetary_computer(href, str(self.item.collection_id or ""))
        return href


def _is_sentinel2(item: pystac.Item) -> bool:
    keys = {*_OFFSET_APPLIED, *_BASELINES[:2]}
    words = [item.collection_id, *(item.properties.get(k) for k in ("constellation", "platform", "mission"))]
    return bool(keys & set(item.properties)) or any("sentinel-2" in str(word or "").lower() for word in words)


def _baseline(value: object) -> float:
    """Return a processing baseline of Sentinel-2 as a number; 0 if it is none.

    >>> _baseline("05.09"), _baseline("N0400"), _baseline(None)
    (5.09, 4.0, 0.0)
    """
    found = re.fullmatch(r"N?(\d{1,2})\.?(\d{2})", str(value), re.IGNORECASE)
    return float(f"{found[1]}.{found[2]}") if found else 0.0


def _names_in_bands(item: pystac.Item) -> dict[str, list[tuple[str, int]]]:
    """Return names, and common names, of bands -> (asset, band)."""
    out: dict[str, list[tuple[str, int]]] = {}
    for key, asset in item.assets.items():
        for number, band in enumerate(asset.extra_fields.get("bands") or (), start=1):
            for name in (band.get("name"), band.get("eo:common_name")):
                if name:
                    out.setdefault(name, []).append((key, number))
    return out


def _names_of_bands(asset: pystac.Asset) -> list[list[str]]:
    """Return the names of each band that an asset lists, even if the item does not declare the extension; empty if none."""
    fields = asset.to_dict()
    lists = [fields.get(key) or [] for key in ("bands", "eo:bands", "raster:bands")]
    out: list[list[str]] = [[] for _ in range(max(map(len, lists)))]
    for band, names in ((b, out[i]) for bands in lists for i, b in enumerate(bands)):
        found = (band.get(key) for key in ("name", "eo:common_name", "common_name"))
        names += [str(n) for n in found if n and str(n) not in names]
    return out


def _numbers(asset: pystac.Asset, band: int) -> dict[str, float]:
    """Return the scale and offset that an asset gives: `raster:bands`, `bands` (STAC 1.1), or the asset itself; empty if none."""
    fields = asset.to_dict()
    out: dict[str, float] = {}
    for places in (fields.get("raster:bands"), fields.get("bands"), [fields] * band):
        if not places or len(places) < band:
            continue
        for key in ("scale", "offset"):
            value = places[band - 1].get(f"raster:{key}", places[band - 1].get(key))
            if value is not None:
                out.setdefault(key, float(value))
    return out


def _state(href: str, item: pystac.Item) -> Hashable:
    try:
        return file_state(href)
    except OSError as error:
        raise SmgeoError(f"STAC item {item.id}: {href} cannot be read: {error.strerror}") from None
