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
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from smgeo.cube.regions import Region
from smgeo.cube.tally import Dropped, add_dropped
from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.files import JsonObject, hash_file, load_json, parse_json, written_beside
from smgeo.threads import map_threads

# A Zarr group without members, so that readers of the store see nothing unknown in it.
LEDGER = "smgeo_ledger"
# Entries of a folder that show that it is a store; one of them may be lost.
MARKERS = ("zarr.json", LEDGER)

_PARTS = ("regions", "inputs", "metadata", "sizes", "summaries", "dropped")
_REPAIR = "run the command that wrote the store again"

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
    sizes : dict
        Size in bytes of each file of a sealed store, so that opening it finds what is missing; empty in stores of older versions.
    """

    layout: str = ""
    regions: dict[str, Files] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    metadata: Files = field(default_factory=dict)
    summaries: dict[str, JsonObject] = field(default_factory=dict)
    dropped: dict[str, Dropped] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def forget(self, region: str) -> None:
        """Remove a region."""
        del self.regions[region], self.inputs[region]
        self.summaries.pop(region, None)
        self.dropped.pop(region, None)


def is_store(path: Path) -> bool:
    """Return True if a folder is a Zarr store, or what is left of one that smgeo wrote."""
    return any((path / marker).exists() for marker in MARKERS)


def read_ledger(store: Path) -> Records | None:
    """Read the ledger of a store, finished or not; None if it has none.

    A line that a crash cut short is left out: its region counts as not done.

    Raises
    ------
    SmgeoError
        If the ledger is damaged, or its folder is there without it.
    """
    folder = store / LEDGER
    file = folder / "zarr.json"
    if not folder.is_dir():
        return None
    if not file.is_file():
        raise SmgeoError(f"{file} is missing; {_REPAIR}")
    attributes = load_json(file, _REPAIR, finite=False).get("attributes")
    if not isinstance(attributes, dict) or not all(isinstance(attributes.get(n, {}), dict) for n in _PARTS):
        raise SmgeoError(f"{file} is damaged (its attributes are not those of a ledger); {_REPAIR}")
    records = Records(str(attributes.get("layout", "")))
    for name in _PARTS:
        getattr(records, name).update(attributes.get(name, {}))
    if not all(isinstance(files, dict) for files in records.regions.values()):
        raise SmgeoError(f"{file} is damaged (a region without files); {_REPAIR}")
    for lines in sorted(folder.glob("*.jsonl")):
        for line in lines.read_bytes().splitlines():
            _add_line(records, line)
    return records


def _add_line(records: Records, line: bytes) -> None:
    """Add a line of a worker; one that is not whole counts for nothing."""
    try:
        entry: JsonObject = parse_json(line, finite=False)
        region, files, inputs = str(entry["region"]), dict(entry["files"]), str(entry["inputs"])
    except (ValueError, TypeError, KeyError):
        return
    records.regions[region], records.inputs[region] = files, inputs
    for name, known in (("summary", records.summaries), ("dropped", records.dropped)):
        known.pop(region, None)
        if isinstance(entry.get(name), dict):
            known[region] = entry[name]


def recover_ledger(store: Path) -> Records | None:
    """Read the ledger of a store that is written again; one that is damaged counts as none, with a warning."""
    try:
        return read_ledger(store)
    except SmgeoError as error:
        warnings.warn(f"{error}; all of its regions are written again", SmgeoWarning, stacklevel=2)
        return None


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
            "sizes": records.sizes,
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
    """Record the size of each file, the checksums of Zarr's metadata and the coordinates, and remove what killed writers left."""
    records = read_ledger(store) or Records()
    for file in store.rglob("*.part"):
        file.unlink(missing_ok=True)
    known = {f for files in records.regions.values() for f in files}
    records.sizes = find_sizes(store)
    records.metadata = {name: hash_file(store / name) for name in sorted(records.sizes) if name not in known}
    write_ledger(store, records)
    return records


def find_sizes(store: Path) -> dict[str, int]:
    """Return the size in bytes of each file of a store but those of its ledger."""
    sizes: dict[str, int] = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(store / folder) as entries:
            for entry in entries:
                name = f"{folder}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    folders += [f"{name}/"] if name != LEDGER else []
                elif entry.is_file():
                    sizes[name] = entry.stat().st_size
    return sizes


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
    records = recover_ledger(store)
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
