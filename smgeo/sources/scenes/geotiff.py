"""GeoTIFFs and COGs as a lazy Dataset: scenes with a date, or static layers, on disk or remote."""

from __future__ import annotations

import datetime as dt
import fnmatch
import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox

from smgeo.addresses import is_remote, plain
from smgeo.catalog import FEATURES, Feature
from smgeo.errors import SmgeoError, nearest
from smgeo.recipe.rasters import RasterSource, read_source
from smgeo.sources.pixels.dates import date_in_name, day_axis
from smgeo.sources.pixels.footprint import check_target
from smgeo.sources.pixels.references import NAMED, known_reference, one_reference
from smgeo.sources.pixels.units import conversion_in_words, known_unit
from smgeo.sources.scenes.blocks import own_grid
from smgeo.sources.scenes.datasets import Variable, dataset_at_stations, dataset_on_grid
from smgeo.sources.scenes.files import Header, file_state, read_header, read_headers
from smgeo.sources.scenes.layers import Layer, Scene

# Product names of Landsat (USGS): sensor and satellite first.
_OTHER_LANDSAT = re.compile(r"(?:^|[^A-Za-z0-9])L[CEOMT]0([1-79])_", re.IGNORECASE)


def open_geotiffs(
    spec: RasterSource | Mapping[str, object],
    *,
    root: str | Path = ".",
    geobox: GeoBox | None = None,
    stations: xr.Dataset | None = None,
    period: tuple[object, object] | None = None,
    catalog: Mapping[str, Feature] = FEATURES,
) -> xr.Dataset:
    """Open the GeoTIFFs of one source lazily: on a grid, at stations, or on their own grid.

    Parameters
    ----------
    spec : RasterSource or mapping
        `path` (a file or URL, a glob pattern, or a list of them; `{band}` stands for each band's name if every band is
        a file of its own), `bands` (variable -> band number or name in the file, or the text for `{band}`), `dates` (a
        strptime pattern for the file's name, such as `s1_%Y%m%d.tif`, with `*` for any text; the one date of a file; or
        the dates of a stack whose band names contain `{step}`) or `dates_table` (CSV with columns file, date), and optionally
        `units`, `scale`, `offset`, `convert`, `nodata`, `mask`, `resampling`, `daily`, `radius_m`.
    root : str or Path
        Folder that relative paths start from.
    geobox : odc.geo.geobox.GeoBox, optional
        Target grid; without it and without stations, the files' own, which must then be the same for all.
    stations : xarray.Dataset, optional
        With latitude and longitude on `station`: each gets, of every scene on the scene's own grid, its pixel,
        or with `radius_m` the mean of its footprint within the scene's own file.
    period : (date, date), optional
        The result has every day of the period, missing where there is no file; by default the days that have files.
    catalog : mapping
        Kind and unit of each variable.

    Returns
    -------
    xarray.Dataset
        float32, lazy. (time, y, x) or (y, x) in blocks of at most (30, 256, 256), CRS in `spatial_ref`; with stations
        (station, time) or (station,) in blocks of 30 days, and `attrs["left_out"]` (JSON) names the stations that no file
        covers, whose values are missing. A day's scenes become one by `daily`: the clearest if there is a mask, else
        their mean (in linear power for decibels); of static files, the first (by name) that has a value.

    Raises
    ------
    SmgeoError
        If no file matches, a file has no CRS or no such band, grids differ with no target given, a file's unit is
        not that of the cube, or a name has no date.
    """
    source = read_source(RasterSource, spec, "open_rasters", catalog)
    check_target("open_rasters", geobox, stations)
    scenes = _scenes(source, Path(root), catalog)
    moving = [n for n in source.bands if catalog[n].kind != "static"]
    lasting = [n for n in source.bands if catalog[n].kind == "static"]
    if moving and scenes[0].day is None:
        raise SmgeoError(
            f"rasters {source.label!r}: {', '.join(moving)} varies in time, so it needs dates; set dates or dates_table"
        )
    if lasting:
        _check_tiles(source, [s for s in scenes if any(n in lasting for n, _ in s.layers)], lasting[0])
    if isinstance(source.dates, tuple) and len(source.dates) > 1:
        _check_steps(source, moving, len(source.dates))
    days = day_axis([s.day for s in scenes if s.day is not None], period) if moving else None
    variables = [
        Variable(
            catalog[n],
            f"{catalog[n].source}; {Path(source.patterns[0]).name}",
            masked=source.mask is not None,
            daily=source.daily,
            refers_to=source.refers_to.get(n) or _reference(source, n, scenes),
        )
        for n in source.bands
    ]
    if stations is not None:
        return dataset_at_stations(scenes, variables, stations, days, source.radius_m, source.label)
    box = geobox if geobox is not None else own_grid(scenes)
    return dataset_on_grid(scenes, variables, box, days, source.resampling)


def _reference(source: RasterSource, name: str, scenes: Sequence[Scene]) -> str:
    """Return what a variable's numbers refer to by its files, which must be the same for all."""
    if name not in NAMED:
        return ""
    found: dict[str, str] = {}
    for layer in (layer for scene in scenes for n, layer in scene.layers if n == name):
        header = read_header(layer.href)
        band = header.names[layer.band - 1] or ""
        found.setdefault(known_reference(name, (_file_name(layer.href), band), header.box), plain(layer.href))
    return one_reference(found, name, f"rasters {source.label!r}")


def _check_steps(source: RasterSource, moving: Sequence[str], dates: int) -> None:
    """Check that in a stack each date has a band of its own."""
    if same := [n for n in moving if "{step}" not in str(source.bands[n])]:
        raise SmgeoError(
            f"rasters {source.label!r}: there are {dates} dates, so {same[0]} needs a band for each: its name in the file with "
            "{step} in place of _1, _2, ..., which follow from the second date on"
        )


def _check_tiles(source: RasterSource, scenes: list[Scene], name: str) -> None:
    """Check that the files of a static variable are tiles, each of its own area."""
    seen: dict[object, str] = {}
    for scene in scenes:
        key = (scene.box.crs, scene.box.boundingbox)
        if key in seen:
            raise SmgeoError(
                f"rasters {source.label!r}: {name} does not vary in time, but {seen[key]} and {scene.name} cover the same "
                "area; name one"
            )
        seen[key] = scene.name


# Files


def _find(source: RasterSource, root: Path, band: str | int) -> dict[str, str]:
    """Return the files that contain a band: scene (the path, with `{band}` as in the pattern) -> file or URL."""
    out: dict[str, str] = {}
    for pattern in source.patterns:
        filled = pattern.replace("{band}", str(band))
        if is_remote(filled):
            out[pattern] = filled
            continue
        if (root / filled).is_file():  # also if its name has brackets
            out[str(root / pattern)] = str(root / filled)
            continue
        # Only the recipe's part is a pattern.
        start = "" if Path(pattern).is_absolute() else glob.escape(str(root / "x"))[:-1]
        files = [f for f in sorted(glob.glob(start + filled)) if Path(f).is_file()]
        if not files:
            known = _band_texts(start + pattern)
            hint = f"; files have {known} in place of {{band}}" if known else ""
            raise SmgeoError(f"no raster matches {root / filled} (relative paths start at --data){hint}")
        out |= {scene_name(f, start + pattern, str(band)): f for f in files}
    return out


def _band_texts(pattern: str) -> str:
    """Return the first few texts that files have in place of `{band}`."""
    if "{band}" not in pattern:
        return ""
    before, *between, after = (fnmatch.translate(p)[:-2] for p in pattern.split("{band}"))
    whole = re.compile(before + "(?P<band>[^/]+?)" + "".join(p + "(?P=band)" for p in between) + after)
    found = {m["band"] for f in glob.glob(pattern.replace("{band}", "*")) if (m := whole.fullmatch(f))}
    return ", ".join(sorted(found)[:8]) + (", ..." if len(found) > 8 else "")


def scene_name(file: str, pattern: str, band: str) -> str:
    """Return a file's path with `{band}` as in the pattern, which is the same for all bands of a scene.

    >>> scene_name("s/LC08_1_B10.TIF", "s/LC08_*_{band}.TIF", "B10")
    's/LC08_1_{band}.TIF'
    """
    if "{band}" not in pattern:
        return file
    pieces = [fnmatch.translate(p)[:-2] for p in pattern.split("{band}")]  # without the end of text, \\Z
    match = re.fullmatch(re.escape(band).join(f"({p})" for p in pieces), file)
    return "{band}".join(match.groups()) if match else file


def geotiff_files(source: RasterSource, root: str | Path) -> list[Path]:
    """Return the local files that a source reads, including its table of dates."""
    bands = [*source.bands.values(), *([source.mask.band] if source.mask else [])]
    per_band = bands if _file_per_band(source) else bands[:1]
    files = {f: None for b in per_band for f in _find(source, Path(root), b).values() if not is_remote(f)}
    table = [Path(root) / source.dates_table] if source.dates_table else []
    return [*map(Path, files), *table]


def _file_per_band(source: RasterSource) -> bool:
    return any("{band}" in p for p in source.patterns)


# Scenes


def _scenes(source: RasterSource, root: Path, catalog: Mapping[str, Feature]) -> list[Scene]:
    """Read and check the headers of all files; return every scene with its day, in order of names."""
    apart = _file_per_band(source)
    files = {n: _find(source, root, b) for n, b in source.bands.items()}
    flags = _find(source, root, source.mask.band) if source.mask else {}
    names = list(dict.fromkeys(s for found in files.values() for s in sorted(found)))
    dates = _dates(source, names, files, root)
    read_headers([href for found in (*files.values(), flags) for href in found.values()])
    bands: dict[str, int] = {}
    scenes = []
    for scene in names:
        here = {n: found[scene] for n, found in files.items() if scene in found}
        for day, step in _steps(source, dates[scene]):
            layers = []
            for name, href in here.items():
                if step and catalog[name].kind == "static":
                    continue  # once in a stack of dates
                header = read_header(href)
                asked = source.bands[name]
                number = 1 if apart else _band_number(header, _of_step(asked, step), name)
                _check_band_units(header, number, name, source, catalog)
                if step is None and bands.setdefault(name, number) != number:
                    raise SmgeoError(
                        f"{plain(href)}: {name} is band {number}, in {plain(next(iter(files[name].values())))} it is band "
                        f"{bands[name]}; write all files with the same bands"
                    )
                layers.append((name, _layer(source, name, href, number)))
            if layers:
                scenes.append(_scene(source, scene, day, layers, flags, apart))
    return scenes


def _scene(
    source: RasterSource,
    name: str,
    day: pd.Timestamp | None,
    layers: list[tuple[str, Layer]],
    flags: Mapping[str, str],
    apart: bool,
) -> Scene:
    quality = None
    if source.mask is not None:
        if name not in flags:
            raise SmgeoError(f"rasters {source.label!r}: {plain(name)} has no quality band {source.mask.band!r}")
        header = read_header(flags[name])
        quality = Layer(flags[name], 1 if apart else _band_number(header, source.mask.band, "mask.band"))
    hrefs = [*dict.fromkeys(layer.href for _, layer in layers), *([quality.href] if quality else [])]
    return Scene(
        name,
        day,
        tuple(layers),
        read_header(layers[0][1].href).box,
        quality,
        source.mask.mask if source.mask else None,
        state=tuple(file_state(h) for h in hrefs),
    )


def _layer(source: RasterSource, name: str, href: str, band: int) -> Layer:
    scale, offset = source.scale.get(name), source.offset.get(name)
    convert = source.convert.get(name, "none")
    if convert.startswith("landsat8") and (other := _OTHER_LANDSAT.search(_file_name(href))):
        raise SmgeoError(
            f"{plain(href)} is of Landsat {other[1]}, whose thermal constants differ from those of Landsat 8 that convert: {convert} uses; "
            f"leave it out of path, or give brightness temperature and leave convert of {name} out"
        )
    return Layer(href, band, source.nodata, scale, offset, convert)


def _steps(source: RasterSource, day: pd.Timestamp | None) -> list[tuple[pd.Timestamp | None, int | None]]:
    """Return (day, position in the stack) of a file's dates; no position if a file has one date."""
    if isinstance(source.dates, tuple):
        return [(pd.Timestamp(d), i) for i, d in enumerate(source.dates)]
    return [(day, None)]


def _of_step(asked: int | str, step: int | None) -> int | str:
    """Return the name of a stack's band: `{step}` is empty for the first date, then `_1`, `_2`, ..."""
    return asked.replace("{step}", f"_{step}" if step else "") if isinstance(asked, str) else asked


def _band_number(header: Header, band: int | str, name: str) -> int:
    where = plain(header.href)
    if isinstance(band, int):
        if not 1 <= band <= len(header.names):
            raise SmgeoError(f"{where} has bands 1 to {len(header.names)}; {name} is set to band {band}")
        return band
    known = [d or f"band {i + 1}" for i, d in enumerate(header.names)]
    if band not in known:
        raise SmgeoError(f"{where} has no band named {band!r} (for {name}); {nearest(band, known)}; or give its number")
    return known.index(band) + 1


def _check_band_units(
    header: Header, band: int, name: str, source: RasterSource, catalog: Mapping[str, Feature]
) -> None:
    found = header.units[band - 1]
    if not found:
        return
    units, convert = catalog[name].units, source.convert.get(name, "none")
    same = known_unit(found) == known_unit(units)
    if same and convert == "power_to_db":
        raise SmgeoError(
            f"{plain(header.href)}: {name} is in {found!r} already, and convert would take it for linear power; leave convert out"
        )
    if not same and convert == "none" and name not in source.scale and name not in source.offset:
        hint = conversion_in_words(found, units).replace("%s", name)
        if units == "dB":
            hint = f"if it is linear power, set convert: {{{name}: power_to_db}}"
        raise SmgeoError(f"{plain(header.href)}: {name} is in {found!r}, but the cube stores {units!r}; {hint}")


def _dates(
    source: RasterSource, scenes: Sequence[str], files: Mapping[str, Mapping[str, str]], root: Path
) -> dict[str, pd.Timestamp | None]:
    """Return the day of each scene; None if the source has no dates, or lists all of them."""
    if source.dates_table is not None:
        return _dates_of_table(source, scenes, files, root)
    if isinstance(source.dates, dt.date):
        return dict.fromkeys(scenes, pd.Timestamp(source.dates))
    if not isinstance(source.dates, str):
        return dict.fromkeys(scenes)
    # A pattern may contain `{band}` as the name does, or any text (`*`).
    one_of = {s: f[s] for f in files.values() for s in f}
    return {s: date_in_name(_file_name(s), source.dates, _file_name(one_of[s])) for s in scenes}


def _file_name(href: str) -> str:
    return href.rsplit("/", 1)[-1].split("?", 1)[0]


def _dates_of_table(
    source: RasterSource, scenes: Sequence[str], files: Mapping[str, Mapping[str, str]], root: Path
) -> dict[str, pd.Timestamp | None]:
    path = root / str(source.dates_table)
    if not path.is_file():
        raise SmgeoError(f"dates_table {path} not found (relative paths start at --data)")
    try:
        table = pd.read_csv(path)
    except ValueError as error:
        raise SmgeoError(f"dates_table {path} cannot be read as a table: {error}") from None
    if not {"file", "date"} <= set(table):
        raise SmgeoError(f"{path} needs columns file, date; it has {', '.join(map(str, table))}")
    parsed = pd.to_datetime(table["date"].astype(str), format="ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
    if parsed.isna().any():
        line = int(np.flatnonzero(parsed.isna().to_numpy())[0])
        raise SmgeoError(f"{path}, line {line + 2}: {table['date'].iloc[line]!r} is not a date; write 2012-03-25")
    by_name = dict(zip(table["file"].astype(str), parsed, strict=True))
    # A table lists the file of any one band of a scene.
    out = {
        s: next((by_name[n] for f in files.values() if (n := Path(f.get(s, "")).name) in by_name), None) for s in scenes
    }
    lacking = [Path(s).name for s, day in out.items() if day is None]
    if lacking:
        raise SmgeoError(f"{path} has no date for {', '.join(lacking[:5])}")
    return {s: pd.Timestamp(str(day)).normalize() for s, day in out.items()}


__all__ = ["geotiff_files", "open_geotiffs"]
