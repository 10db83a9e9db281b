"""Stages that are skipped when their inputs have not changed, and what is remembered of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from smgeo.files import digest, hold_lock, read_json, write_json
from smgeo.study.memory import PeakMemory

# Raised by hand when a stage's code changes what it writes, so that old results are not taken for new ones.
FORMAT = 1


# What a stage took, kept with its result and told in the run's provenance.
_COST = ("seconds", "peak_memory_bytes")


def _sizes(outputs: Sequence[Path]) -> str:
    """Digest of the names and sizes of all files of the outputs; not of their times, which a copy may change."""
    files = [sorted(f for f in p.rglob("*") if f.is_file()) if p.is_dir() else [p] for p in outputs]
    return digest([[str(f.relative_to(p)), f.stat().st_size] for p, fs in zip(outputs, files, strict=True) for f in fs])


class Ledger:
    """What a run's folder remembers: keys and results of finished stages, and hashes of files read.

    Parameters
    ----------
    folder : Path
        The run's folder; the ledger lies in `.stages` there.
    versions : mapping
        Versions of the libraries that do the work; another version does it again.
    """

    def __init__(self, folder: Path, versions: Mapping[str, str] | None = None) -> None:
        self._versions = dict(versions or {})
        self._folder = folder / ".stages"
        self._hashes = self._folder / "hashes.json"
        self.done: dict[str, dict[str, Any]] = {}

    def lock(self) -> AbstractContextManager[None]:
        """Keep a second run out of the folder, see `smgeo.files.hold_lock`."""
        where = self._folder.parent
        return hold_lock(
            self._folder / "lock", f"another run is at work in {where}; wait for it, or give another --out"
        )

    def key(self, name: str, inputs: Mapping[str, Any]) -> str:
        """What a stage's result is known by: its inputs and the versions of the libraries."""
        return digest({"format": FORMAT, "versions": self._versions, "stage": name, **inputs})

    def run(self, name: str, inputs: Mapping[str, Any], outputs: Sequence[Path], work: Callable[[], Any]) -> Any:
        """Do `work` unless it was done with the same inputs and its outputs are there; its JSON-able result.

        Parameters
        ----------
        name : str
            The stage; one record each.
        inputs : mapping
            All that the result depends on, JSON-able (keys of earlier stages among them).
        outputs : sequence of Path
            What the stage leaves on disk; each must appear complete or not at all.
        work : callable
            Does it and returns a JSON-able result.
        """
        key = self.key(name, inputs)
        record = self._folder / f"{digest(name)[:8]}-{''.join(c if c.isalnum() else '-' for c in name)}.json"
        old = read_json(record)
        if old.get("key") == key and all(p.exists() for p in outputs) and old.get("outputs") == _sizes(outputs):
            self.done[name] = {"key": key, **{c: old[c] for c in _COST if c in old}, "skipped": True}
            return old["result"]
        record.unlink(missing_ok=True)
        start = time.monotonic()
        with PeakMemory() as memory:
            result = work()
        cost = {"seconds": round(time.monotonic() - start, 3), "peak_memory_bytes": memory.bytes}
        write_json(record, {"stage": name, "key": key, **cost, "outputs": _sizes(outputs), "result": result})
        self.done[name] = {"key": key, **cost, "skipped": False}
        # As read back from the record, so that a skipped stage gives the same types.
        return json.loads(record.read_text(encoding="utf-8"))["result"]

    def hash_files(self, files: Sequence[Path]) -> dict[str, str]:
        """SHA-256 of each file's content; a file whose size and time of change are as before is not read again."""
        known = read_json(self._hashes)
        out, memory = {}, {}
        for file in files:
            stat = file.stat()
            mark = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            entry = known.get(str(file))
            if not entry or entry["mark"] != mark:
                with file.open("rb") as handle:
                    entry = {"mark": mark, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}
            memory[str(file)] = entry
            out[str(file)] = entry["sha256"]
        write_json(self._hashes, {**known, **memory})
        return out
