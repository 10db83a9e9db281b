"""NetCDF, HDF5 and Zarr grids: the files of a source, and the variables that each contains."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import h5py
import numpy as np
import xarray as xr
import zarr

from smgeo.addresses import find_address_faults, hide_in_logs, with_secrets
from smgeo.errors import SmgeoError
from smgeo.files import JsonObject
from smgeo.recipe.rasters import GriddedSource
from smgeo.sources.gridded.file_formats import SIGNATURE, is_classic
from smgeo.sources.gridded.packing import PACKING_KEYS

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

hide_in_logs("fsspec", "fsspec.http", "aiohttp.client")
File = Path | str  # a path, or a URL

# Limits of a request to a web server, seconds: for a connection, between two pieces of an answer, and in all.
_CONNECT_S, _SILENT_S, _WHOLE_S = 20.0, 60.0, 300.0
_HDF5_OWN = {"DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME", "_Netcdf4Dimid", "_Netcdf4Coordinates"}
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"


@dataclass(frozen=True, eq=False)
class Stored:
    """A variable of a file: `values[index]` reads a part of it, still packed.

    `packing` has the attributes that say how, in their own types. `fill` is a fill value of a Zarr array that no attribute declares.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    attrs: JsonObject
    chunks: tuple[int, ...] | None
    values: xr.Variable | h5py.Dataset
    packing: Mapping[str, object]
    fill: float | None = None


class Variables(Mapping[str, Stored]):
    """Variables of a group of a file and of the groups around it, and the attributes of the file."""

    def file_attrs(self) -> JsonObject:
        """Return the attributes of the file."""
        raise NotImplementedError


# Files of a source


def list_files(source: GriddedSource, root: str | Path) -> list[File]:
    """Return the files that a source reads (folders, for Zarr; URLs as they are), in the order of its patterns.

    Raises
    ------
    SmgeoError
        If a pattern matches nothing, or a URL is a pattern or contains a password or a query.
    """
    out: dict[File, None] = {}
    for pattern in source.patterns:
        found = [_checked_url(pattern)] if "://" in pattern else _matches(pattern, Path(root))
        if not found:
            raise SmgeoError(f"no {source.kind} grid matches {Path(root) / pattern} (relative paths start at --data)")
        out |= dict.fromkeys(found)
    return list(out)


def _matches(pattern: str, root: Path) -> list[File]:
    absolute = root / pattern
    if not re.search(r"[*?\[]", pattern):
        return [absolute] if absolute.exists() else []
    anchor = Path(absolute.anchor) if Path(pattern).is_absolute() else root
    return sorted(anchor.glob(str(absolute.relative_to(anchor))))


def _checked_url(url: str) -> File:
    if re.search(r"[*\[]", url):
        raise SmgeoError(f"{url}: files behind a URL cannot be listed by a pattern; give a list of URLs")
    if faults := list(find_address_faults(url)):  # a key would be stored in graphs and stores
        raise SmgeoError("; ".join(faults))
    return url


def file_state(file: File) -> tuple[Hashable, ...]:
    """Return size and times of change of a file, or of a Zarr store's root metadata; empty for a URL."""
    if isinstance(file, str):
        return ()
    names = ("zarr.json", ".zmetadata", ".zgroup")
    stat = next((file / n for n in names if (file / n).is_file()), file).stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _file_system(url: str) -> AbstractFileSystem:
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(with_secrets(url), **_limits(url))[0]
    except ImportError as error:
        raise SmgeoError(
            f"{url}: reading a URL needs another package ({error}); pip install it, or download the file"
        ) from None


def _limits(url: str) -> JsonObject:
    """Return the options of fsspec that limit the wait for a web server; those of buckets have limits of their own."""
    if not url.startswith(("http://", "https://")):
        return {}
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(total=_WHOLE_S, sock_connect=_CONNECT_S, sock_read=_SILENT_S)}}


def in_words(error: Exception) -> str:
    """Return what an error of reading a file says; of a server that does not answer, the limits."""
    if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):  # fsspec: a file is not found
        return f"no complete answer of its server ({_CONNECT_S:g} s without a connection, {_SILENT_S:g} s without a byte, or {_WHOLE_S:g} s in all)"
    return str(error) or type(error).__name__


# Opening


@contextmanager
def open_variables(file: File, kind: str, group: str | None) -> Iterator[Variables]:
    """Open the variables of a NetCDF, HDF5 or Zarr group, and of the groups around it; values unread.

    Raises
    ------
    SmgeoError
        If the file cannot be opened as such, has no such group, or is found damaged while it is open.
    """
    what = "opened"
    with ExitStack() as stack:
        try:
            variables = (_zarr if kind == "zarr" else _netcdf)(file, group, stack)
            what = "read"
            yield variables
        except SmgeoError:
            raise
        except (
            Exception
        ) as error:  # of a damaged file, which may promise more than memory holds; each library has its own
            where = f" (group {group!r})" if group else ""
            raise SmgeoError(f"{file}{where} cannot be {what} as {kind}: {in_words(error)}") from error


def _zarr(file: File, group: str | None, stack: ExitStack) -> Variables:
    if isinstance(file, str):
        _file_system(file)
    # The copy of all metadata in a store may be older than they are; only over a network is it much faster.
    copied = None if isinstance(file, str) else False
    opened, options = (with_secrets(file), _limits(file) or None) if isinstance(file, str) else (file, None)
    ds = stack.enter_context(
        xr.open_zarr(opened, group=group, chunks=None, decode_cf=False, consolidated=copied, storage_options=options)
    )
    return _Zarr(ds, file, group)


def _netcdf(file: File, group: str | None, stack: ExitStack) -> Variables:
    raw = stack.enter_context(open_binary(file))
    classic = is_classic(raw.read(SIGNATURE), file)
    raw.seek(0)
    if classic:
        source = raw if isinstance(file, str) else file
        return _Loaded(stack.enter_context(xr.open_dataset(source, engine="scipy", decode_cf=False)))
    opened = stack.enter_context(h5py.File(raw if isinstance(file, str) else file, "r", locking=False))
    return _Hdf5(opened[group] if group else opened)


def open_binary(file: File) -> IO[bytes]:
    """Open a file or URL for reading bytes."""
    return _file_system(file).open(with_secrets(file), "rb") if isinstance(file, str) else file.open("rb")


class _Loaded(Variables):
    """Variables of a Dataset that xarray opened."""

    def __init__(self, ds: xr.Dataset) -> None:
        self.ds = ds
        self.known: dict[str, Stored] = {}

    def __getitem__(self, name: str) -> Stored:
        if name not in self.known:
            variable = self.ds.variables[name]
            attrs, fill = self.attrs_of(name, variable)
            dims = tuple(map(str, variable.dims))
            chunks = variable.encoding.get("chunks")
            self.known[name] = Stored(dims, variable.shape, _plain(attrs), chunks, variable, _packing(attrs), fill)
        return self.known[name]

    def __iter__(self) -> Iterator[str]:
        return map(str, self.ds.variables)

    def __len__(self) -> int:
        return len(self.ds.variables)

    def file_attrs(self) -> JsonObject:
        return _plain(self.ds.attrs)

    def attrs_of(self, _name: str, variable: xr.Variable) -> tuple[Mapping[Hashable, object], float | None]:
        """Return the attributes of a variable, and a fill value that they do not declare."""
        return variable.attrs, None


class _Zarr(_Loaded):
    """Variables of a Zarr group.

    zarr-python writes a fill value of 0 unless it is given another, so that only an attribute says that it means missing. Of
    format 2, xarray takes every fill value as `_FillValue`, which is how it writes one; but 0 may be anybody's.
    """

    def __init__(self, ds: xr.Dataset, file: File, group: str | None) -> None:
        super().__init__(ds)
        self.place = (file, group)

    def attrs_of(self, name: str, variable: xr.Variable) -> tuple[Mapping[Hashable, object], float | None]:
        found = variable.attrs.get("_FillValue")
        if "serializer" in variable.encoding or found is None:  # format 3, whose attributes are as written
            return variable.attrs, _number_or_none(variable.encoding.get("fill_value")) if found is None else None
        written = _written_attrs(*self.place, name).get("_FillValue")
        attrs = {k: v for k, v in variable.attrs.items() if k != "_FillValue"}
        if written is None:
            return (attrs, 0.0) if found == 0 else (variable.attrs, None)
        return attrs | {"_FillValue": np.array([written, *([] if found == 0 else [found])])}, None


def _written_attrs(file: File, group: str | None, name: str) -> Mapping[str, object]:
    """Return the attributes of a Zarr array as they are written."""
    options = _limits(file) or None if isinstance(file, str) else None
    array = zarr.open_group(file, mode="r", path=group or "", zarr_format=2, storage_options=options)[name]
    return array.attrs.asdict()


def _number_or_none(value: object) -> float | None:
    found = np.asarray(value)
    return float(found) if found.ndim == 0 and found.dtype.kind in "iuf" and np.isfinite(found) else None


class _Hdf5(Variables):
    """Variables of an HDF5 group and of the groups around it, by h5py.

    A task opens every file of its days, and opening takes most of its time: reading one pixel of an IMERG-sized file takes
    14 ms this way, 58 ms by h5netcdf and 364 ms by xarray over h5netcdf.
    """

    def __init__(self, group: h5py.Group) -> None:
        self.scopes = [group]
        while self.scopes[-1].name != "/":
            self.scopes.append(self.scopes[-1].parent)
        self.known: dict[str, Stored] = {}

    def __getitem__(self, name: str) -> Stored:
        if name not in self.known:
            self.known[name] = self._find(name)
        return self.known[name]

    def _find(self, name: str) -> Stored:
        for scope in self.scopes:
            item = scope.get(name)
            if isinstance(item, h5py.Dataset) and not _text(item.attrs.get("NAME", "")).startswith(_NO_VARIABLE):
                attrs = {k: item.attrs[k] for k in item.attrs if k not in _HDF5_OWN}
                return Stored(_hdf5_dims(item), item.shape, _plain(attrs), item.chunks, item, _packing(attrs))
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        names = dict.fromkeys(n for scope in self.scopes for n in scope)
        return (n for n in names if n in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def file_attrs(self) -> JsonObject:
        root = self.scopes[-1].attrs
        return _plain({k: root[k] for k in root})


def _hdf5_dims(item: h5py.Dataset) -> tuple[str, ...]:
    """Return the names of the scales of a dataset's dimensions; a scale is named like its dimension."""
    if item.is_scale and item.ndim == 1:
        return (item.name.rsplit("/", 1)[-1],)
    scales = [d[0].name if len(d) else f"dimension {i + 1}" for i, d in enumerate(item.dims)]
    return tuple(str(s).rsplit("/", 1)[-1] for s in scales)


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _packing(attrs: Mapping[Hashable, object]) -> dict[str, object]:
    return {str(k): v for k, v in attrs.items() if k in PACKING_KEYS}


def _plain(attrs: Mapping[Hashable, object]) -> JsonObject:
    """Return attributes as text, numbers and tuples of them."""
    out: JsonObject = {}
    for key, value in attrs.items():
        value = np.asarray("" if isinstance(value, h5py.Empty) else value)
        items = [_text(v) if isinstance(v, bytes) else v for v in value.ravel().tolist()]
        out[str(key)] = items[0] if len(items) == 1 else tuple(items)
    return out
