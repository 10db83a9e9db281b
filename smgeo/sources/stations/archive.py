"""Files of a download, a zip or its unpacked folder, read without unpacking anything."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path, PurePosixPath
from types import TracebackType

from smgeo.errors import SmgeoError

# What a broken file or archive raises; RuntimeError is zipfile's for encrypted members and unknown compressions.
UNREADABLE = (ValueError, OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)


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
        """All bytes of a file."""
        return self._zip.read(member) if self._zip is not None else (self.path / member).read_bytes()

    def ends(self, member: str, lines: int = 2, size: int = 4096) -> tuple[list[str], str]:
        """The first lines of a file and its last, blank lines apart, from `size` bytes of each end.

        At least `lines` of the first ones where there are as many, none of them cut off.
        """
        if self._zip is not None:
            data = self._zip.read(member)
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


def _lines(data: bytes) -> list[str]:
    return [line for line in decode(data).splitlines() if line.strip()]


def decode(data: bytes) -> str:
    """Text of a file; bytes that are no UTF-8 become the replacement character."""
    return data.decode("utf-8-sig", errors="replace")


def list_members(path: Path, what: str) -> list[str]:
    """Files of a folder or a zip, sorted; nothing is read but the zip's list of names.

    Raises
    ------
    SmgeoError
        If there is nothing at `path`, it is neither, or a member of the zip points outside its folder.
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
                f"{path}: member {member!r} points outside the archive's folder; this is no {what}, nothing is read"
            )
    return sorted(m for m in members if not m.endswith("/"))
