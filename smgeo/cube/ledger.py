"""The ledger of a store: checksums of each finished region, kept in a Zarr group without members inside the store.

Zarr records neither which shards of an interrupted write are complete nor what they were made from, so resuming, appending and
`smgeo info --verify` need a record of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from smgeo.cube.regions import Region
from smgeo.cube.tally import Dropped, add_dropped
from smgeo.errors import SmgeoError
from smgeo.files import JsonObject, hash_file, written_beside
from smgeo.threads import map_threads

# A Zarr group without members, so that readers of the store see nothing unknown in it.
LEDGER = "smgeo_ledger"

# File -> checksum; None for a shard that is all fill value, which has no file.
Files = dict[str, str | None]


@dataclass
class Records:
    """The content of a ledger.

    Attributes
    ----------
    layout : str
        Digest of the store's metadata: shapes, chunks, coordinates, attributes.
    regions : dict
        Checksums of each finished region's files.
    inputs : dict
        Digest of what each finished region is made from; a region is kept only as long as it stays the same.
    metadata : dict
        Checksums of the files that belong to no region.
    summaries : dict
        Summaries of finished regions (JSON objects), in stores whose writer makes some.
    dropped : dict
        Region -> variable -> reason -> number of values that its sources dropped, of the regions in which some were.
    """

    layout: str = ""
    regions: dict[str, Files] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    metadata: Files = field(default_factory=dict)
    summaries: dict[str, JsonObject] = field(default_factory=dict)
    dropped: dict[str, Dropped] = field(default_factory=dict)

    def forget(self, region: str) -> None:
        """Remove a region."""
        del self.regions[region], self.inputs[region]
        self.summaries.pop(region, None)
        self.dropped.pop(region, None)


def read_ledger(store: Path) -> Records | None:
    """Read the ledger of a store, finished or not; None if it has none.

    A line that a crash cut short is left out: its region counts as not done.
    """
    folder = store / LEDGER
    try:
        attributes = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    except (OSError, ValueError, KeyError):
        return None
    records = Records(attributes.get("layout", ""))
    for name in ("regions", "inputs", "metadata", "summaries", "dropped"):
        getattr(records, name).update(attributes.get(name, {}))
    for lines in sorted(folder.glob("*.jsonl")):
        for line in lines.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            records.regions[entry["region"]] = entry["files"]
            records.inputs[entry["region"]] = entry["inputs"]
            if "summary" in entry:
                records.summaries[entry["region"]] = entry["summary"]
            records.dropped.pop(entry["region"], None)
            if "dropped" in entry:
                records.dropped[entry["region"]] = entry["dropped"]
    return records


def read_dropped(store: Path) -> Dropped:
    """Return the number of values that sources dropped when a store was written, by variable and reason; empty without a ledger."""
    records = read_ledger(store)
    return add_dropped(records.dropped.values()) if records is not None else {}


def write_ledger(store: Path, records: Records) -> None:
    """Write the whole ledger as one file, then remove the lines of the workers."""
    folder = store / LEDGER
    value = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            "algorithm": "sha256",
            "layout": records.layout,
            "regions": records.regions,
            "inputs": records.inputs,
            "metadata": records.metadata,
            **({"summaries": records.summaries} if records.summaries else {}),
            **({"dropped": records.dropped} if records.dropped else {}),
        },
    }
    with written_beside(folder / "zarr.json") as part:
        part.write_text(json.dumps(value, sort_keys=True), encoding="utf-8")
    for lines in folder.glob("*.jsonl"):
        lines.unlink()


def append_line(
    store: Path,
    region: str,
    inputs: str,
    files: Files,
    summary: JsonObject | None = None,
    dropped: Dropped | None = None,
) -> None:
    """Append a finished region to the file of this worker thread, so that no two writers share a file."""
    name = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.jsonl"
    entry: JsonObject = {"region": region, "inputs": inputs, "files": files}
    if summary is not None:
        entry["summary"] = summary
    if dropped:
        entry["dropped"] = dropped
    with (store / LEDGER / name).open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(entry) + "\n")


def seal(store: Path) -> Records:
    """Record the checksums of Zarr's metadata and the coordinates, and remove what killed writers left."""
    records = read_ledger(store) or Records()
    for file in store.rglob("*.part"):
        file.unlink(missing_ok=True)
    known = {f for files in records.regions.values() for f in files}
    records.metadata = {
        name: hash_file(file)
        for file in sorted(store.rglob("*"))
        if file.is_file() and file.parent.name != LEDGER and (name := file.relative_to(store).as_posix()) not in known
    }
    write_ledger(store, records)
    return records


def find_damage(store: Path, regions: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Return the files that differ from their checksums, by region (`metadata` for files of none); reads every byte.

    Raises
    ------
    SmgeoError
        If the store has no ledger.
    """
    records = read_ledger(store)
    if records is None:
        raise SmgeoError(
            f"{store} has no ledger of checksums ({LEDGER}/zarr.json), so damage cannot be found; write the store again"
        )
    parts = {**records.regions, "metadata": records.metadata}
    return _damaged(store, parts if regions is None else {r: parts.get(r, {}) for r in regions})


def _damaged(store: Path, parts: Mapping[str, Files]) -> dict[str, list[str]]:
    """Return the files that differ from their checksums, by part; hashed on threads, since hashing releases the GIL."""
    found = map_threads(
        lambda files: [f for f, known in files.items() if hash_file(store / f) != known], parts.values()
    )
    return {part: files for part, files in zip(parts, found, strict=True) if files}


def resume_store(store: Path, layout: str) -> Records | None:
    """Return the undamaged regions that an interrupted write of the same layout finished; None if it cannot go on.

    The ledger is rewritten, so that it contains no old lines of regions that are written again.
    """
    records = read_ledger(store)
    if records is None or records.layout != layout:
        return None
    damage = find_damage(store)
    if "metadata" in damage:
        return None
    for region in damage:
        records.forget(region)
    write_ledger(store, records)
    return records


def adopt(old: Path, new: Path, regions: Iterable[Region], records: Records) -> None:
    """Link (or copy) the undamaged ones of some finished regions of `old` into `new`, and record them."""
    known = read_ledger(old)
    if known is None:
        return
    wanted = {r.name: known.regions[r.name] for r in regions if r.name in known.regions}
    damage = _damaged(old, wanted)
    for name, files in wanted.items():
        if name in damage:
            continue
        for file, checksum in files.items():
            if checksum is None:
                continue
            target = new / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(old / file, target)
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(old / file, target)
        records.regions[name] = files
        records.inputs[name] = known.inputs.get(name, "")
        if name in known.summaries:
            records.summaries[name] = known.summaries[name]
        if name in known.dropped:
            records.dropped[name] = known.dropped[name]
