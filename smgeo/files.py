"""Files and folders that are complete or not at all: written beside their place and renamed, one writer at a time."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock, Timeout

from smgeo.errors import SmgeoError

# A JSON object as Python reads it. What is inside is checked where it is read.
JsonObject: TypeAlias = dict[str, Any]

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def write_json(path: Path, value: object) -> None:
    """Write JSON beside `path` and rename, so that no reader sees half of it, whoever else writes it at the same time."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(json.dumps(value, indent=1, sort_keys=False, default=str, allow_nan=False), encoding="utf-8")
    os.replace(part, path)


def read_json(path: Path) -> JsonObject:
    """What `path` holds; nothing where it is missing or damaged, so that the work is done again."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def digest(value: object) -> str:
    """SHA-256 of a JSON-able value.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def hold_lock(lock: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file, so that no other process (of this machine; of all, where the file system locks for all) holds it too.

    A killed process leaves no lock behind. On a file system without locks nothing is held.

    Raises
    ------
    SmgeoError
        With the text `refusal`, if another holds it.
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
        if held.is_locked:  # removed while it is held: one who waits for the removed file is refused by filelock
            lock.unlink(missing_ok=True)
        held.release()


def only_writer(path: Path) -> AbstractContextManager[None]:
    """Keep other processes from writing the same file or folder; see `hold_lock`."""
    lock = path.with_name(f".{path.name.removeprefix('.')}.lock")
    return hold_lock(lock, f"another process is writing {path}; wait for it, or give another path")


def check_replaceable(path: Path, marker: str) -> None:
    """Refuse to write over a folder that is not of the kind to be written.

    Raises
    ------
    SmgeoError
        If `path` is a file, or a folder with something in it but no file `marker`.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / marker).is_file()):
        raise SmgeoError(
            f"{path} exists and is not what would replace it (no {marker} in it); give another path, or remove it"
        )


def replace_folder(part: Path, path: Path, marker: str = "zarr.json") -> None:
    """Put the complete folder `part` in the place of `path`, which may exist as a folder of the same kind.

    On Linux's local file systems in one step, so that a reader finds the old one or the new one at every moment.
    """
    check_replaceable(path, marker)
    # No name that a user would choose for a copy of his own.
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
    """Let two folders take each other's place in one step; False, and nothing done, where the system can't.

    Linux, renameat2(2): -100 is AT_FDCWD, 2 is RENAME_EXCHANGE.
    """
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    return rename is not None and rename(-100, os.fsencode(a), -100, os.fsencode(b), 2) == 0


def hash_file(path: Path) -> str | None:
    """SHA-256 of a file's content; None where there is no file (Zarr keeps no shard that is all fill value)."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except FileNotFoundError:
        return None
