"""Maps as Cloud-Optimised GeoTIFFs, one for each date.

The writers of rioxarray and odc-geo do not serve here: they write one array at a time, so that a chunk of several days would be read once
for each of them, and rioxarray's overviews of Dask arrays are all zeros (rioxarray#410).
"""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import odc.geo.xr  # noqa: F401 - registers the accessor `.odc`
import pandas as pd
import rasterio
import rasterio.shutil
import xarray as xr
from rasterio.windows import Window

from smgeo.cube.reading import open_cube
from smgeo.errors import SmgeoError
from smgeo.files import FullDiskError, JsonObject, explain_full_disk, written_beside
from smgeo.maps.layout import NODATA, map_variables
from smgeo.maps.strips import StripReader

# Tag with the digest of what a file was made from; the file is kept as long as that stays the same.
_DIGEST = "smgeo_digest"
# Attributes of a variable that become tags of its band.
BAND_TAGS = ("long_name", "coverage", "flag_meanings")
_BLOCK = 256
_NAME = re.compile(r".+_(\d{4}-\d{2}-\d{2})\.tif")


def cog_path(folder: Path, name: str, day: pd.Timestamp) -> Path:
    """Return the path of the map of a day."""
    return folder / f"{name}_{day.date()}.tif"


def find_cogs(folder: Path, but: Collection[str] = ()) -> dict[str, tuple[Path, dict[str, str]]]:
    """Return the maps in a folder and their tags by day (ISO 8601), in order, without the days `but`; other files are left out.

    Raises
    ------
    SmgeoError
        If a file with the name of a map cannot be read.
    """
    found = {}
    for path in sorted(folder.glob("*.tif")):
        if (named := _NAME.fullmatch(path.name)) and named[1] not in but:
            try:
                with rasterio.open(path) as src:
                    tags = src.tags()
            except rasterio.errors.RasterioIOError as error:
                raise SmgeoError(
                    f"{path} has the name of a map but cannot be read ({error}); remove it, or make the map again"
                ) from None
            if "date" in tags and "model" in tags:
                found[named[1]] = path, tags
    return found


def finished_cogs(folder: Path, name: str, days: Iterable[pd.Timestamp], digest: str) -> bool:
    """Return True if the maps of all these days exist, made from the same."""
    return all(_is_of(cog_path(folder, name, day), digest) for day in days)


def _is_of(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    try:
        with rasterio.open(path) as src:
            if not digest or src.tags().get(_DIGEST) != digest:
                return False
            # The end of the file: it is missing if the file was cut.
            *_, (_, last) = src.block_windows(1)
            src.read(window=last)
            return True
    except rasterio.errors.RasterioIOError:  # not a GeoTIFF, or a damaged one
        return False


def write_cogs(
    store: str | Path, folder: str | Path, *, digest: str = "", resume: bool = True, readers: Sequence[StripReader] = ()
) -> Path:
    """Write a map store as Cloud-Optimised GeoTIFFs, one for each date, each complete when it appears.

    Parameters
    ----------
    store : str or Path
        A Zarr store that `predict_map` wrote.
    folder : str or Path
        Receives `NAME_YYYY-MM-DD.tif`: float32, one band for each variable (the estimate first, then the ends of its interval, and
        1 inside, 0 outside the area of applicability, if the store has them), nodata NaN, units in the bands, provenance
        in the tags; overviews are means. Maps are read and written in strips of rows, and turned into COGs day by day.
    digest : str
        Digest of what the maps are made from; with `resume`, files with the same digest are kept.
    resume : bool
        False writes all files again.
    readers : sequence of StripReader, optional
        They see every strip of the map as it is read, such as `smgeo.maps.strips.Thinned`; with some, the days of files that are kept
        are read too.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    SmgeoError
        If the store contains no map.
    """
    folder = Path(folder)
    ds = open_cube(store, dask=False)
    ds = ds[map_variables(ds, store)]
    first = next(iter(ds.data_vars))
    folder.mkdir(parents=True, exist_ok=True)
    # Rows from north to south, as all readers of GeoTIFFs expect.
    ds = ds.sortby("y", ascending=False)
    for reader in readers:
        reader.begin(ds)
    days = pd.DatetimeIndex(ds.indexes["time"])
    files = [cog_path(folder, str(first), day) for day in days]
    todo = {t for t, file in enumerate(files) if not (resume and _is_of(file, digest))}
    # A chunk of the store contains several days: they are written together, so that it is read once.
    together = ds[first].encoding.get("chunks", (1,))[0]
    for start in range(0, len(days), together):
        group = range(start, min(start + together, len(days)))
        plain = {t: files[t].with_suffix(".plain.part") for t in group if t in todo}
        try:
            sums = {}
            if readers or plain:
                with explain_full_disk(next(iter(plain.values()), Path(folder) / "maps")):
                    sums = _write_plain(ds, slice(group.start, group.stop), plain, digest, readers)
            for t, path in plain.items():
                _make_cog(path, files[t], sums[t])
                path.unlink()
        finally:
            for path in plain.values():
                path.unlink(missing_ok=True)
    return folder


def _write_plain(
    ds: xr.Dataset, days: slice, paths: dict[int, Path], digest: str, readers: Sequence[StripReader]
) -> dict[int, int]:
    """Write uncompressed GeoTIFFs of some of `days`, a strip of rows at a time, which the readers see.

    Returns
    -------
    dict of int to int
        Checksum of the values of each day; see `_sum_of`.
    """
    sums = dict.fromkeys(paths, 0)
    first = next(iter(ds.data_vars))
    box = ds.odc.geobox
    height, width = box.shape.yx
    profile: JsonObject = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": len(ds.data_vars),
        "height": height,
        "width": width,
        "nodata": float(NODATA),
        "crs": str(box.crs),
        "transform": box.affine,
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "bigtiff": "if_safer",
    }
    provenance = {k.removeprefix("smgeo_"): str(v) for k, v in ds.attrs.items() if k.startswith("smgeo_")}
    about = {k: str(ds[first].attrs[k]) for k in ("units", "long_name", "source") if k in ds[first].attrs}
    with ExitStack() as stack:
        files = {t: stack.enter_context(rasterio.open(path, "w", **profile)) for t, path in paths.items()}
        for y in range(0, height, _BLOCK):
            strip = ds.isel(time=days, y=slice(y, y + _BLOCK)).load()
            for reader in readers:
                reader.read(strip)
            for t, file in files.items():
                for band, variable in enumerate(strip.data_vars.values(), 1):
                    values = variable.values[t - days.start].astype("float32", copy=False)
                    file.write(values, band, window=Window(0, y, width, len(values)))
                    sums[t] = zlib.crc32(np.ascontiguousarray(values).data, sums[t])
        for t, file in files.items():
            day = str(pd.Timestamp(ds["time"].values[t]).date())
            for band, name in enumerate(ds.data_vars, 1):
                file.set_band_description(band, str(name))
                file.update_tags(band, **{k: str(ds[name].attrs[k]) for k in BAND_TAGS if k in ds[name].attrs})
            file.units = tuple(str(v.attrs.get("units", "")) for v in ds.data_vars.values())
            file.update_tags(date=day, **about, **provenance, **({_DIGEST: digest} if digest else {}))
    return sums


def _make_cog(plain: Path, final: Path, expected: int) -> None:
    """Write a COG of a GeoTIFF, and read it back: GDAL closes a file without an error where the disk did not take its last blocks.

    Raises
    ------
    SmgeoError
        If the file does not have the expected values.
    """
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
        try:
            whole = _sum_of(part) == expected
        except rasterio.errors.RasterioError:
            whole = False
        if not whole:
            free = shutil.disk_usage(part.parent).free
            raise FullDiskError(
                f"{final} was not written as a whole: the disk, or your share of it, was full, or the disk fails ({free / 2**20:.0f} MiB are free now); "
                "make space and run the same command again, which continues from there"
            )


def _sum_of(path: Path) -> int:
    """Return the checksum of the values of a GeoTIFF, strip by strip and band by band; its overviews are read too.

    Raises
    ------
    rasterio.errors.RasterioError
        If a block cannot be read.
    """
    with rasterio.open(path, num_threads="ALL_CPUS") as file:
        found, levels = 0, len(file.overviews(1))
        for y in range(0, file.height, _BLOCK):
            for band in file.indexes:
                values = file.read(band, window=Window(0, y, file.width, min(_BLOCK, file.height - y)))
                found = zlib.crc32(np.ascontiguousarray(values).data, found)
    for level in range(levels):
        with rasterio.open(path, overview_level=level, num_threads="ALL_CPUS") as file:
            for y in range(0, file.height, _BLOCK):
                file.read(window=Window(0, y, file.width, min(_BLOCK, file.height - y)))
    return found


def list_maps(folder: str | Path) -> list[str]:
    """Return the COGs in a run's `maps` folder, relative to it."""
    root = Path(folder)
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*.tif"))
