"""Complete files and folders: written beside their place and renamed, by one writer at a time."""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
import importlib.metadata
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from filelock import FileLock, Timeout

from smgeo.errors import SmgeoError

# A JSON object as Python reads it. Its content is checked where it is read.
JsonObject: TypeAlias = dict[str, Any]

# Bytes that one member of an archive, or a compressed file, may unpack to.
UNPACKED_LIMIT = 512 * 2**20
_PIECE = 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MAKE_SPACE = "make space"
_RAISE_LIMIT = "raise the limit, or write to another disk,"
_AGAIN = "and run the same command again, which continues from there"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class FullDiskError(SmgeoError):
    """A disk, or the user's share of it, is full, or a file is larger than is allowed."""


@contextmanager
def explain_full_disk(path: Path, kept: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Raise an error that says what to do when the disk (or the quota) is full, or a file is too large; `kept` describes what is kept.

    Libraries in C, such as GDAL, raise errors of their own: with less than 1 MiB free, or a file at `path` that is as large as the
    user's limit allows, these count as the same.

    Raises
    ------
    FullDiskError
        If there is no space for what is written; one from within is said again, with what is kept here.
    """
    try:
        yield
    except Exception as error:
        words, known = kept(), str(error) if isinstance(error, FullDiskError) else None
        explained = known or _explain(error, path)
        if explained is None or (known and not words):
            raise
        for action in (_MAKE_SPACE, _RAISE_LIMIT):
            explained = explained.replace(f": {action}", f": {words}{action}")
        raise FullDiskError(explained) from None


def _explain(error: Exception, path: Path) -> str | None:
    """Return why there was no space for what was written to `path`, and what to do; None if that is not the error."""
    number = error.errno if isinstance(error, OSError) else None
    of_library = number is None and not isinstance(error, SmgeoError)
    limit = _file_limit()
    if number == errno.EFBIG or (of_library and limit is not None and _has_reached(path, limit)):
        allowed = "" if limit is None else f" (ulimit -f: {limit / 2**20:g} MiB)"
        return f"a file of {path} is larger than its disk or the user's limit allows{allowed}: {_RAISE_LIMIT} {_AGAIN}"
    free = _free_bytes(path if path.is_dir() else path.parent)
    if number in _FULL or (of_library and free < _PIECE):
        return f"no space left on the disk of {path} ({free / 2**20:.0f} MiB free): {_MAKE_SPACE} {_AGAIN}"
    return None


def _free_bytes(folder: Path) -> float:
    """Return the free space of the disk of a folder; infinite if nobody can tell."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return float("inf")


def _file_limit() -> int | None:
    """Return the size in bytes that this user's files may have; None without a limit."""
    try:
        import resource  # only POSIX has it
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _has_reached(path: Path, limit: int) -> bool:
    """Return True if `path`, or a file beside or in it that begins with its name, has this size: the system writes up to the limit."""
    files = [path, *path.parent.glob(f"{glob.escape(path.name)}*"), *(path.rglob("*") if path.is_dir() else ())]
    return any(f.is_file() and f.stat().st_size == limit for f in files)


@contextmanager
def written_beside(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give the path of a new file beside `path`, and rename it to `path` at the end, so that no reader sees half of a file.

    After an error the old file stays, and the new one is removed.

    Parameters
    ----------
    path : Path
        The file to write; missing parent folders are made.
    shared : bool
        Several processes may write the file at the same time. The name of the new file then contains the number of the process. Otherwise
        it is `path` with `.part` at the end, so that a later write replaces what a killed one left.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part" if shared else f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with explain_full_disk(path):
            yield part
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def folder_beside(path: Path, marker: str) -> Iterator[Path]:
    """Give an empty folder beside `path`, which takes the place of `path` at the end; see `replace_folder`.

    After an error the old folder stays, and the new one is removed.

    Raises
    ------
    SmgeoError
        If `path` must not be replaced; see `check_replaceable`.
    """
    check_replaceable(path, marker)
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with explain_full_disk(path):
            yield part
            replace_folder(part, path, marker)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """Write JSON; several processes may write the same file.

    Raises
    ------
    SmgeoError
        If a number in it is infinite or NaN, which JSON does not have.
    """
    try:
        text = json.dumps(value, indent=1, sort_keys=False, default=str, allow_nan=False)
    except ValueError:
        raise SmgeoError(
            f"{path} is not written: {', '.join(_find_not_finite(value))} is infinite or not a number, which JSON does not have"
        ) from None
    with written_beside(path, shared=True) as part:
        part.write_text(text, encoding="utf-8")


def _find_not_finite(value: object, place: str = "") -> Iterator[str]:
    """Find the places of numbers that are infinite or NaN, such as `models.rf.rmse`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        yield from _find_not_finite(inner, f"{place}.{key}" if place else str(key))
    if isinstance(value, float) and not math.isfinite(value):
        yield place or "the value"


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """Return the value of JSON text; with NaN and Infinity, which JSON does not have, unless all numbers must be finite.

    Raises
    ------
    ValueError
        If it is not JSON: damaged, not UTF-8, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant if finite else None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def load_json(file: Path, repair: str, *, finite: bool = True) -> JsonObject:
    """Read a file that smgeo wrote and that contains a JSON object.

    Parameters
    ----------
    file : Path
    repair : str
        What to do if it is damaged, for the message.
    finite : bool
        As for `parse_json`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    SmgeoError
        If it is not JSON, or another type.
    """
    try:
        value = parse_json(file.read_bytes(), finite=finite)
    except ValueError as error:
        raise SmgeoError(f"{file} is not JSON ({error}); {repair}") from None
    if not isinstance(value, dict):
        raise SmgeoError(f"{file} is damaged (expected a JSON object, found a {type(value).__name__}); {repair}")
    return value


def read_json(path: Path) -> JsonObject:
    """Read a JSON object; empty if the file is missing or damaged, so that the work is done again."""
    try:
        return load_json(path, "")
    except (OSError, ValueError):
        return {}


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def digest(value: object) -> str:
    """Return the SHA-256 of a JSON-able value.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def hold_lock(lock: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file against other processes: those of this machine, and of all machines if the file system locks for all.

    A killed process leaves no lock behind. On a file system without locks nothing is held.

    Raises
    ------
    SmgeoError
        With the text `refusal`, if another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout:
        raise SmgeoError(refusal) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        if held.is_locked:  # removed while it is held: filelock refuses a process that waits for the removed file
            lock.unlink(missing_ok=True)
        held.release()


def only_writer(path: Path) -> AbstractContextManager[None]:
    """Keep other processes from writing the same file or folder; see `hold_lock`."""
    lock = path.with_name(f".{path.name.removeprefix('.')}.lock")
    return hold_lock(lock, f"another process is writing {path}; wait for it, or give another path")


def check_replaceable(path: Path, *markers: str) -> None:
    """Refuse to overwrite a folder of another kind.

    Raises
    ------
    SmgeoError
        If `path` is a file, or a folder that is not empty and has no file or folder of those names.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not any((path / m).exists() for m in markers)):
        raise SmgeoError(
            f"{path} exists and is not what would replace it (no {markers[0]} in it); give another path, or remove it"
        )


def replace_folder(part: Path, path: Path, *markers: str) -> None:
    """Put the complete folder `part` in the place of `path`, which may exist as a folder of the same kind.

    On Linux's local file systems this is one step, so that a reader finds the old or the new folder at every moment.
    """
    check_replaceable(path, *markers)
    # A name that no user would choose for a copy.
    old = path.with_name(f".{path.name.removeprefix('.')}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists() and exchange_folders(part, path):
        os.replace(part, old)
    else:
        if path.exists():
            os.replace(path, old)
        os.replace(part, path)
    shutil.rmtree(old, ignore_errors=True)


def exchange_folders(a: Path, b: Path) -> bool:
    """Exchange two folders in one step; return False, with nothing done, if the system cannot.

    Linux, renameat2(2): -100 is AT_FDCWD, 2 is RENAME_EXCHANGE.
    """
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    return rename is not None and rename(-100, os.fsencode(a), -100, os.fsencode(b), 2) == 0


class Readable(Protocol):
    """A stream of bytes that unpacks as it is read, such as `gzip.GzipFile`."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""
        ...


class LimitedStream(io.RawIOBase):
    """A stream that is read up to a number of bytes, because a small archive can unpack to more than memory holds.

    Parameters
    ----------
    stream : binary file

    Raises
    ------
    ValueError
        When more than `UNPACKED_LIMIT` is read.
    """

    def __init__(self, stream: Readable) -> None:
        super().__init__()
        self._stream, self._left = stream, UNPACKED_LIMIT

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, and return the number of bytes."""
        data = self._stream.read(min(len(buffer), _PIECE))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(
                f"it unpacks to more than {UNPACKED_LIMIT // 2**20} MiB; unpack it, and name the unpacked file if it is what you expect"
            )
        buffer[: len(data)] = data
        return len(data)


def read_limited(stream: Readable) -> bytes:
    """Return all bytes of a stream; see `LimitedStream`."""
    return io.BufferedReader(LimitedStream(stream), _PIECE).read()


def hash_file(path: Path) -> str | None:
    """Return the SHA-256 of a file; None if it does not exist (Zarr stores no shard that is all fill value)."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except FileNotFoundError:
        return None
