"""Records of finished stages, so that a stage is skipped while its inputs have not changed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smgeo.files import JsonObject, digest, hold_lock, read_json, write_json
from smgeo.study.memory import PeakMemory

# Raised by hand when a stage's code changes what it writes, so that old results are not taken for new ones.
FORMAT = 1


@dataclass(frozen=True)
class Done:
    """Record of a finished stage.

    Attributes
    ----------
    key : str
        Digest of its inputs.
    result : JSON
        What it returned, as JSON gives it back.
    seconds, peak_memory_bytes : number or None
        Cost when it was last run; None in records of old versions.
    skipped : bool
        Its inputs had not changed, so it was not run again.
    """

    key: str
    result: Any
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    skipped: bool = False

    def record(self) -> JsonObject:
        """Return key and cost, for `provenance.json`."""
        cost = {"seconds": self.seconds, "peak_memory_bytes": self.peak_memory_bytes}
        return {"key": self.key, **{name: value for name, value in cost.items() if value is not None}}


def _sizes(outputs: Sequence[Path]) -> str:
    """Return a digest of the names and sizes of all files of the outputs; not of their times, which a copy may change."""
    files = [sorted(f for f in p.rglob("*") if f.is_file()) if p.is_dir() else [p] for p in outputs]
    return digest([[str(f.relative_to(p)), f.stat().st_size] for p, fs in zip(outputs, files, strict=True) for f in fs])


class Ledger:
    """Keys and results of a run's finished stages, and hashes of the files that it read.

    Parameters
    ----------
    folder : Path
        The run's folder; the ledger is in `.stages` there.
    versions : mapping
        Versions of the libraries that do the work; another version does it again.
    """

    def __init__(self, folder: Path, versions: Mapping[str, str] | None = None) -> None:
        self._versions = dict(versions or {})
        self._folder = folder / ".stages"
        self._hashes = self._folder / "hashes.json"

    def lock(self) -> AbstractContextManager[None]:
        """Keep a second run out of the folder, see `smgeo.files.hold_lock`."""
        where = self._folder.parent
        return hold_lock(
            self._folder / "lock", f"another run is at work in {where}; wait for it, or give another --out"
        )

    def key(self, name: str, inputs: Mapping[str, object]) -> str:
        """Return the digest of a stage's inputs and of the libraries' versions."""
        return digest({"format": FORMAT, "versions": self._versions, "stage": name, **inputs})

    def run(
        self,
        name: str,
        inputs: Mapping[str, object],
        outputs: Sequence[Path],
        work: Callable[[], object],
        is_whole: Callable[[Path], bool] = lambda output: True,
    ) -> Done:
        """Do `work`, unless it was done with the same inputs and its outputs are there, with the same files of the same sizes.

        Parameters
        ----------
        name : str
            Name of the stage; one record each.
        inputs : mapping
            Everything that the result depends on, JSON-able (keys of earlier stages among it).
        outputs : sequence of Path
            Files and folders that the stage leaves; each must appear complete or not at all.
        work : callable
            Returns a JSON-able result.
        is_whole : callable
            False for an output that is to be made again although its files have their names and sizes.
        """
        key = self.key(name, inputs)
        record = self._folder / f"{digest(name)[:8]}-{''.join(c if c.isalnum() else '-' for c in name)}.json"
        old = read_json(record)
        same = "result" in old and old.get("key") == key and all(p.exists() for p in outputs)
        if same and old.get("outputs") == _sizes(outputs) and not [p for p in outputs if not is_whole(p)]:
            return Done(key, old["result"], old.get("seconds"), old.get("peak_memory_bytes"), skipped=True)
        record.unlink(missing_ok=True)
        start = time.monotonic()
        with PeakMemory() as memory:
            result = work()
        cost = {"seconds": round(time.monotonic() - start, 3), "peak_memory_bytes": memory.bytes}
        write_json(record, {"stage": name, "key": key, **cost, "outputs": _sizes(outputs), "result": result})
        # As read back from the record, so that a skipped stage gives the same types.
        return Done(key, read_json(record)["result"], cost["seconds"], memory.bytes)

    def hash_files(self, files: Sequence[Path]) -> dict[str, str]:
        """Return the SHA-256 of each file; a file whose size and time of change are as before is not read again."""
        known = read_json(self._hashes)
        out, memory = {}, {}
        for file in files:
            stat = file.stat()
            mark = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            entry = known.get(str(file))
            if not isinstance(entry, dict) or entry.get("mark") != mark or not isinstance(entry.get("sha256"), str):
                with file.open("rb") as handle:
                    entry = {"mark": mark, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}
            memory[str(file)] = entry
            out[str(file)] = entry["sha256"]
        write_json(self._hashes, {**known, **memory})
        return out
