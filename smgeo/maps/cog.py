"""Maps as Cloud-Optimised GeoTIFFs, one a date."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import odc.geo.xr  # noqa: F401 - registers the accessor `.odc`
import pandas as pd
import rasterio
import rasterio.shutil
import xarray as xr
from rasterio.windows import Window

from smgeo.errors import SmgeoError
from smgeo.files import written_beside

# Tag of a file that says what it was made from: it is kept where that is the same.
_DIGEST = "smgeo_digest"
# Attributes of a variable that its band has as tags.
BAND_TAGS = ("long_name", "coverage", "flag_meanings")
_BLOCK = 256
_NAME = re.compile(r".+_(\d{4}-\d{2}-\d{2})\.tif")


def cog_path(folder: Path, name: str, day: pd.Timestamp) -> Path:
    """Where the map of a day lies."""
    return folder / f"{name}_{day.date()}.tif"


def find_cogs(folder: Path, but: Collection[str] = ()) -> dict[str, tuple[Path, dict[str, str]]]:
    """The maps in a folder and their tags, by day (ISO 8601), in order, `but` some days; files of others are left out.

    Raises
    ------
    SmgeoError
        If a file that is called as a map is can't be read.
    """
    found = {}
    for path in sorted(folder.glob("*.tif")):
        if (named := _NAME.fullmatch(path.name)) and named[1] not in but:
            try:
                with rasterio.open(path) as src:
                    tags = src.tags()
            except rasterio.errors.RasterioIOError as error:
                raise SmgeoError(
                    f"{path} is called as a map is, but can't be read ({error}); remove it, or make the map again"
                ) from None
            if "date" in tags and "model" in tags:
                found[named[1]] = path, tags
    return found


def finished_cogs(folder: Path, name: str, days: Iterable[pd.Timestamp], digest: str) -> bool:
    """Whether the maps of all these days are there, made from the same."""
    return all(_is_of(cog_path(folder, name, day), digest) for day in days)


def _is_of(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    try:
        with rasterio.open(path) as src:
            if not digest or src.tags().get(_DIGEST) != digest:
                return False
            # The last of the file: it is not there if the file was cut.
            *_, (_, last) = src.block_windows(1)
            src.read(window=last)
            return True
    except rasterio.errors.RasterioIOError:  # of no GeoTIFF, or of a damaged one
        return False


def write_cogs(store: str | Path, folder: str | Path, *, digest: str = "", resume: bool = True) -> Path:
    """A map store as Cloud-Optimised GeoTIFFs, one a date, each complete when it appears.

    Parameters
    ----------
    store : str or Path
        What `predict_map` wrote as Zarr.
    folder : str or Path
        Receives `NAME_YYYY-MM-DD.tif`: float32, a band a variable (the estimate first, then the ends of its interval and
        1 inside, 0 outside the area of applicability, where the store has them), nodata NaN, units in the bands, provenance
        in the tags; overviews are means. Read and written in strips of rows, and one day after the other made a COG.
    digest : str
        What the maps are made from; a file that says the same is kept with `resume`.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    SmgeoError
        If the store holds no map.
    """
    folder = Path(folder)
    ds = xr.open_zarr(store, consolidated=False, chunks=None, decode_coords="all")
    names = [str(n) for n in ds.data_vars if ds[n].dims == ("time", "y", "x")]
    if not names:
        raise SmgeoError(f"{store} holds no map (no variable with dims time, y, x)")
    # A store gives its variables back in any order: the estimate names the others.
    first = next((n for n in names if "ancillary_variables" in ds[n].attrs), names[0])
    ds = ds[list(dict.fromkeys([first, *str(ds[first].attrs.get("ancillary_variables", "")).split()]))]
    folder.mkdir(parents=True, exist_ok=True)
    # Rows from north to south, as all readers of GeoTIFFs know them.
    ds = ds.sortby("y", ascending=False)
    days = pd.DatetimeIndex(ds.indexes["time"])
    todo = [t for t, day in enumerate(days) if not (resume and _is_of(cog_path(folder, first, day), digest))]
    # A chunk of the store holds several days: they are written together, so that it is read once.
    together = ds[first].encoding.get("chunks", (1,))[0]
    for group in sorted({t // together for t in todo}):
        members = [t for t in todo if t // together == group]
        plain = {t: cog_path(folder, first, days[t]).with_suffix(".plain.part") for t in members}
        _write_plain(ds, plain, digest)
        for t, path in plain.items():
            _make_cog(path, cog_path(folder, first, days[t]))
    return folder


def _write_plain(ds: xr.Dataset, paths: dict[int, Path], digest: str) -> None:
    """Uncompressed GeoTIFFs of several days, a strip of rows at a time."""
    first = next(iter(ds.data_vars))
    box = ds.odc.geobox
    height, width = box.shape.yx
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": len(ds.data_vars),
        "height": height,
        "width": width,
        "nodata": float("nan"),
        "crs": str(box.crs),
        "transform": box.affine,
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "bigtiff": "if_safer",
    }
    said = {k.removeprefix("smgeo_"): str(v) for k, v in ds.attrs.items() if k.startswith("smgeo_")}
    about = {k: str(ds[first].attrs[k]) for k in ("units", "long_name", "source") if k in ds[first].attrs}
    times = list(paths)
    days = slice(times[0], times[-1] + 1)
    with ExitStack() as stack:
        files = {t: stack.enter_context(rasterio.open(path, "w", **profile)) for t, path in paths.items()}
        for y in range(0, height, _BLOCK):
            rows = {n: ds[n].isel(time=days, y=slice(y, y + _BLOCK)).values for n in ds.data_vars}
            for t, file in files.items():
                for band, values in enumerate(rows.values(), 1):
                    strip = values[t - times[0]]
                    file.write(strip.astype("float32", copy=False), band, window=Window(0, y, width, strip.shape[0]))
        for t, file in files.items():
            day = str(pd.Timestamp(ds["time"].values[t]).date())
            for band, name in enumerate(ds.data_vars, 1):
                file.set_band_description(band, str(name))
                said_of = {k: str(ds[name].attrs[k]) for k in BAND_TAGS if k in ds[name].attrs}
                file.update_tags(band, **said_of)
            file.units = tuple(str(v.attrs.get("units", "")) for v in ds.data_vars.values())
            file.update_tags(date=day, **about, **said, **({_DIGEST: digest} if digest else {}))


def _make_cog(plain: Path, final: Path) -> None:
    with written_beside(final) as part:
        rasterio.shutil.copy(
            plain,
            part,
            driver="COG",
            compress="DEFLATE",
            predictor="YES",
            overviews="AUTO",
            overview_resampling="average",
            num_threads="ALL_CPUS",
        )
    plain.unlink()


def list_maps(folder: str | Path) -> list[str]:
    """The COGs in a run's `maps` folder, relative to it."""
    root = Path(folder)
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*.tif"))
