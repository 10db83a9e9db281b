"""Files of a download, read from a zip without unpacking it, or from its unpacked folder."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO

from smgeo.errors import SmgeoError
from smgeo.files import Readable, read_limited

# Errors of a broken file or archive; RuntimeError is zipfile's for encrypted members and unknown compressions.
UNREADABLE = (ValueError, OSError, EOFError, RuntimeError, csv.Error, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_UNPACK: Mapping[str, Callable[[IO[bytes]], Readable]] = {
    ".gz": lambda packed: gzip.GzipFile(fileobj=packed),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}


class Archive:
    r"""A zip or a folder of files, open for reading.

    Parameters
    ----------
    path : Path
        Zip file, or folder.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (pathlib.Path(folder) / "a.txt").write_text("one\ntwo\nthree\n")
    ...     with Archive(pathlib.Path(folder)) as archive:
    ...         archive.ends("a.txt")
    (['one', 'two', 'three'], 'three')
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None

    def __enter__(self) -> Archive:
        if not self.path.is_dir():
            self._zip = zipfile.ZipFile(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._zip is not None:
            self._zip.close()

    def read(self, member: str) -> bytes:
        """Return all bytes of a file; a member of a zip up to the limit of `smgeo.files.read_limited`."""
        if self._zip is None:
            return (self.path / member).read_bytes()
        with self._zip.open(member) as stream:
            return read_limited(stream)

    def ends(self, member: str, lines: int = 2, size: int = 4096) -> tuple[list[str], str]:
        """Return the first lines of a file and its last, without blank lines, from `size` bytes of each end.

        At least `lines` first lines are complete, if the file has as many.
        """
        if self._zip is not None:
            data = self.read(member)
            length, head, tail = len(data), data[:size], data[-size:]
        else:
            with (self.path / member).open("rb") as file:
                head = file.read(size)
                length = file.seek(0, 2)
                file.seek(max(length - size, 0))
                tail = file.read()
        first, last = _lines(head), _lines(tail)
        if length > size:
            first = first[:-1]
            if len(first) < lines or len(last) < 2:
                first = last = _lines(self.read(member))
        return first, last[-1] if last else ""


def unpack(data: bytes, name: str) -> bytes:
    """Return the bytes of a file that its name says is compressed (`.gz`, `.bz2`, `.xz`), up to the limit of `read_limited`."""
    opened = _UNPACK.get(PurePosixPath(name).suffix.lower())
    return read_limited(opened(io.BytesIO(data))) if opened else data


def _lines(data: bytes) -> list[str]:
    return [line for line in decode(data).splitlines() if line.strip()]


def decode(data: bytes) -> str:
    """Return the text of a file; bytes that are not UTF-8 become the replacement character."""
    return data.decode("utf-8-sig", errors="replace")


def list_members(path: Path, what: str) -> list[str]:
    """Return the files of a folder or a zip, sorted; of a zip only the list of names is read.

    Raises
    ------
    SmgeoError
        If `path` does not exist, is neither a folder nor a zip, or a member of the zip points outside its folder.
    """
    if path.is_dir():
        return sorted(str(PurePosixPath(p.relative_to(path))) for p in path.rglob("*") if p.is_file())
    if not path.exists():
        raise SmgeoError(
            f"{what} {path} not found; give the zip or its unpacked folder (relative paths start at --data)"
        )
    if not zipfile.is_zipfile(path):
        raise SmgeoError(f"{path} is neither a folder nor a zip archive")
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    for member in members:
        parts = PurePosixPath(member.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or (parts.parts and parts.parts[0].endswith(":")):
            raise SmgeoError(
                f"{path}: member {member!r} points outside the archive's folder; nothing was read, because no {what} has one"
            )
    return sorted(m for m in members if not m.endswith("/"))


def list_reasons(unreadable: Mapping[str, str], most: int = 5) -> str:
    """Return the first files that cannot be read, each with the reason."""
    return "; ".join(f"{member}: {why}" for member, why in sorted(unreadable.items())[:most])
