"""A small study of every stage, run as a process of its own, and the files that it leaves."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import psutil
import yaml

ROOT = Path(__file__).parents[2]
RECIPE = {
    "name": "small",
    "seed": 3,
    "world": {"stations": 16, "days": 60, "shape": [20, 20], "seed": 0},
    "target": {"variable": "sm"},
    "stations": [{"kind": "ismn", "path": "ismn"}],
    "rasters": [
        {
            "kind": "geotiff",
            "path": "rasters/s1/*.tif",
            "dates": "s1_%Y%m%d.tif",
            "bands": ["s1_vv", "s1_vh", "s1_incidence"],
        },
        {
            "kind": "geotiff",
            "path": "rasters/temperature/*.tif",
            "dates": "temperature_%Y%m%d.tif",
            "bands": ["temperature"],
        },
        {"kind": "geotiff", "path": "rasters/static/terrain.tif", "bands": ["elevation", "slope", "aspect"]},
    ],
    "grid": {"like": "rasters/static/terrain.tif"},
    "features": ["s1_vv", "s1_vh", "temperature", "elevation", "slope"],
    "prepare": {
        "fill": {"limit": "half-revisit", "revisit": "measured"},
        "outliers": {"z": 4},
        "split": {"fractions": [0.6, 0.2, 0.2], "extremes_to_train": False},
        "window": {"length": 5, "missing": 0.5},
    },
    "models": {"rf": {"trees": 20}},
    "maps": {"dates": ["2016-01-20", "2016-02-10", "2016-02-20"]},
}
WHOLE = {
    **RECIPE,
    "leakage_audit": {"folds": 2, "gap_days": 5},
    "models": {"rf": {"trees": 20}, "ann": {"units": 4, "epochs": 30, "patience": 30}},
    # Without a scheduler, random suggestions are the same whatever ends when.
    "search": {"ann": {"trials": 5, "epochs": 3, "scheduler": "none", "concurrent": 2}},
    "cross_validation": {"models": ["rf"], "folds": 2},
    "importance": {"models": ["rf"]},
    "maps": {"dates": [f"2016-02-{day:02}" for day in range(1, 25)]},
    "learning_curve": {"models": ["rf"], "fractions": [0.5, 1.0]},
}
# Stages in their order, as a run's log names them; the first one is the time before it says anything.
START, FIRST = "start", "world"
STAGES = (
    START,
    FIRST,
    "stations",
    "leakage audit",
    "grid",
    "prepared",
    "search ann",
    "model rf",
    "model ann",
    "cross-validation",
    "map rf",
    "map ann",
    "report",
)
_BEGINS = re.compile(r"\d\d:\d\d:\d\d (.+) \.\.\.$")
# Names of stages may end with what differs from run to run of other recipes.
_NAME = re.compile(r"^(prepared|cross-validation)\b.*")


def stage_of(line: str) -> str | None:
    """Return the stage that a line of the log announces; None for other lines."""
    found = _BEGINS.match(line)
    return _NAME.sub(r"\1", found[1]) if found else None


def has_begun(stage: str, seen: Iterable[str | None]) -> bool:
    """Return True if one of the stages that were seen is this one or comes after it."""
    return any(s in STAGES and STAGES.index(s) >= STAGES.index(stage) for s in seen)


class Process:
    """`smgeo run` in a session of its own.

    Attributes
    ----------
    lines : list of str
        What it has printed on stderr so far.
    stage : str
        The stage that it is in.
    seen : list of str
        Stages that it has begun.
    """

    def __init__(self, recipe: Path, out: Path, temp: Path) -> None:
        self.lines: list[str] = []
        self.seen = [START]
        self.out, self._recipe, self._temp = out, recipe, temp
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "smgeo", "run", str(recipe), "--out", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temp)},
            # A shell's background job ignores Ctrl-C, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self._output: list[str] = []
        self._readers = [threading.Thread(target=f, daemon=True) for f in (self._read_log, self._read_output)]
        for reader in self._readers:
            reader.start()

    def _read_log(self) -> None:
        for line in self.popen.stderr:
            self.lines.append(line.rstrip("\n"))
            if stage := stage_of(self.lines[-1]):
                self.seen.append(stage)

    def _read_output(self) -> None:
        self._output.extend(self.popen.stdout)

    @property
    def stage(self) -> str:
        return self.seen[-1]

    @property
    def text(self) -> str:
        """Everything on stderr."""
        return "\n".join(self.lines)

    @property
    def finished(self) -> bool:
        """True if it has printed where its report is, so that only its end is missing."""
        return any(line.startswith("report: ") for line in self._output)

    def again(self) -> Process:
        """Start a second run in the same folder."""
        return Process(self._recipe, self.out, self._temp)

    def until(self, stage: str, seconds: float = 300) -> bool:
        """Wait until a stage or a later one begins; False if the process ended before."""
        end = time.monotonic() + seconds
        while not has_begun(stage, self.seen):
            if self.popen.poll() is not None:
                return False
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"{stage} did not begin in {seconds} s: {self.text[-2000:]}")
            time.sleep(0.005)
        return True

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until it has ended."""
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def wait(self, seconds: float = 300) -> int:
        """Return its exit code; an error if it does not end in time."""
        try:
            code = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end in {seconds} s, in {self.stage}") from None
        for reader in self._readers:  # a child that outlives it may keep the pipe open
            reader.join(5)
        return code

    def send(self, number: int) -> None:
        """Send a signal to it alone."""
        self.popen.send_signal(number)

    def send_all(self, number: int) -> None:
        """Send a signal to its process group, as a terminal does."""
        try:
            os.killpg(self.popen.pid, number)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """End it and its group at once."""
        self.send_all(signal.SIGKILL)
        self.popen.wait()

    def family(self) -> list[psutil.Process]:
        """Return the processes that it has started and that run now."""
        try:
            return psutil.Process(self.popen.pid).children(recursive=True)
        except psutil.Error:
            return []


def write_recipe(folder: Path, recipe: dict) -> Path:
    """Write a recipe, and return its path."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def seconds_of(out: Path) -> dict[str, float]:
    """Return how long each stage of a finished run took."""
    records = [json.loads(p.read_text()) for p in (out / ".stages").glob("*.json") if p.name != "hashes.json"]
    return {_NAME.sub(r"\1", r["stage"]): r["seconds"] for r in records}


# ---- what must be equal


def contents(out: Path) -> dict[str, str]:
    """Return a digest of each file of a run's folder, without what tells when, by whom and at which cost it was made."""
    found = {}
    for path in sorted(p for p in out.rglob("*") if not p.is_dir()):
        name = path.relative_to(out).as_posix()
        data = path.read_bytes()
        for pattern, clean in _CLEAN.items():
            if re.fullmatch(pattern, name):
                data = clean(data, out)
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def _dumped(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _without(record: dict, *names: str) -> dict:
    return {k: v for k, v in record.items() if k not in names}


def _clean_record(data: bytes, out: Path) -> bytes:
    # `outputs` are sizes of files, among them the report and the table of trials, which state times.
    return _dumped(_without(json.loads(data), "seconds", "peak_memory_bytes", "outputs"))


def _clean_hashes(data: bytes, out: Path) -> bytes:
    # Marks are times of change, and names are as the run was started.
    return _dumped({str(Path(k).relative_to(out)): v["sha256"] for k, v in json.loads(data).items()})


def _clean_provenance(data: bytes, out: Path) -> bytes:
    record = json.loads(data)
    return _dumped({**record, "stages": {n: s["key"] for n, s in record["stages"].items()}})


def _clean_ledger(data: bytes, out: Path) -> bytes:
    # A region is known by the scenes it is made from, and these by their path and time of change: the world was written anew.
    record = json.loads(data)
    return _dumped({**record, "attributes": _without(record["attributes"], "inputs")})


def _clean_trials(data: bytes, out: Path) -> bytes:
    table = pd.read_parquet(io.BytesIO(data)).drop(columns=["seconds", "started", "node", "pid"])
    return table.to_json(orient="records", double_precision=15).encode()


def _clean_report(data: bytes, out: Path) -> bytes:
    # The table of stages: name, seconds, memory, key.
    row = rb'(<tr><td class="text">[^<]+</td>)<td>[\d.,]+</td><td>[\d.,]+</td>(<td class="text">[0-9a-f]{16}</td></tr>)'
    return re.sub(row, rb"\1\2", data)


_CLEAN: dict[str, Callable[[bytes, Path], bytes]] = {
    r"\.stages/hashes\.json": _clean_hashes,
    r"\.stages/[0-9a-f]{8}-.*\.json": _clean_record,
    r"provenance\.json": _clean_provenance,
    r".*/smgeo_ledger/zarr\.json": _clean_ledger,
    r"search/[^/]+/trials\.parquet": _clean_trials,
    r"report\.html": _clean_report,
    r"tables/cost\..*": lambda data, out: b"",  # seconds and memory of each stage, and nothing else
}


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Return what differs between two runs: files that are left over, missing, or of other content."""
    return [
        *(f"left over: {n}" for n in sorted(found.keys() - expected.keys())),
        *(f"missing: {n}" for n in sorted(expected.keys() - found.keys())),
        *(f"differs: {n}" for n in sorted(expected.keys() & found.keys()) if found[n] != expected[n]),
    ]
