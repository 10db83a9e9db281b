"""Damaged inputs of every kind: each is read as another reader reads it, or refused in words; nothing hangs, ends the interpreter or fills memory.

Files that found something are kept in `runs/fuzz/KIND-SEED`; `SMGEO_FUZZ=KIND-SEED` tries one alone.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import select
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from smgeo.catalog import FEATURES
from tests.fuzz.inputs import KINDS

ROOT = Path(__file__).parents[2]
EXAMPLES = 25  # of each kind; `make soak` tries as many in each round
LONGEST_S = 60
MEMORY = 12 * 2**30  # of address space
TOKENS = [
    b"-9999", b"nan", b"inf", b"1e999", b"-1", b"0", b"99999999999999999999", b"\x00", b"\xff\xfe", b"\n", b"\r", b'"', b"'", b";", b",", b"\t",
    b"{", b"]", b": ", b"- ", b"&a", b"*a", b"!!python/object:os.system ", b"../", b"9999-12-31", b"0001-01-01", b"24:00", b"$(touch x)", b"%s%n",
    b"\xc3\xa9" * 300, b"[" * 2000, b"1:" * 50,
]  # fmt: skip


class Reader:
    """The process that reads, started again when a file has ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, kind: str, folder: Path) -> dict[str, object]:
        """Return the answer, with the outcome "ended" or "hangs" if there is none."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.fuzz.inputs"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
            )
        process = self._process
        process.stdin.write(f"{kind}\t{folder}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], LONGEST_S)[0]:
            self.stop()
            return {"outcome": "hangs"}
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self._process = None
            return {"outcome": "ended", "says": f"exit code {code}"}
        return json.loads(line)

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="module")
def reader():
    made = Reader()
    yield made
    made.stop()


def damage(data: bytes, rng: random.Random) -> bytes:
    """Return other bytes: some flipped, cut out, doubled, or replaced by what readers stumble over."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, length = rng.randrange(len(out) + 1), rng.choice((1, 1, 4, 16, 200))
        match rng.randrange(6):
            case 0 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 1:
                del out[at:]
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = out[at : at + length]
            case 4:
                out[at:at] = rng.choice(TOKENS)
            case _:
                token = rng.choice(TOKENS)
                out[at : at + len(token)] = token
    return bytes(out)


def seeds(kind):
    """Return the seeds to try, one after the other."""
    if only := os.environ.get("SMGEO_FUZZ"):
        return [int(only.rpartition("-")[2])] if only.rpartition("-")[0] == kind else []
    return range(EXAMPLES * int(os.environ.get("SOAK_ROUNDS", "1")))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_as_they_are_or_refused(kind, reader, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    KINDS[kind].write(whole)
    expected = reader.ask(kind, whole)
    assert expected["outcome"] == "read", expected
    found = {}
    for seed in seeds(kind):
        rng = random.Random(f"{kind}-{seed}")
        folder = tmp_path / str(seed)
        shutil.copytree(whole, folder)
        file = rng.choice(sorted(f for f in folder.glob(KINDS[kind].damaged) if f.is_file()))
        file.write_bytes(damage(file.read_bytes(), rng)) if rng.random() > 0.03 else file.unlink()
        before = sorted(tmp_path.iterdir())
        answer = reader.ask(kind, folder)
        wrong = _find_fault(kind, expected, answer)
        if sorted(tmp_path.iterdir()) != before:
            wrong = "wrote beside its folder"
        if wrong == "hangs: " and kind == "netcdf" and _hangs_in_hdf5(file):
            wrong = None
        if wrong:
            kept = ROOT / "runs" / "fuzz" / f"{kind}-{seed}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept)
            found[f"{kind}-{seed}"] = f"{file.relative_to(folder)}: {wrong}"
        shutil.rmtree(folder)
    assert found == {}


def _hangs_in_hdf5(file: Path) -> bool:
    """Return True if the HDF5 library itself loops, over a damaged heap of references: then every reader does."""
    read = "import h5py, sys; [dict(v.attrs) for v in h5py.File(sys.argv[1], locking=False).values()]"
    try:
        subprocess.run([sys.executable, "-c", read, file], capture_output=True, timeout=20)
    except subprocess.TimeoutExpired:
        return True
    return False


def _find_fault(kind: str, expected: dict, answer: dict) -> str | None:
    if answer["outcome"] == "refused":
        return None if len(answer["says"]) < 4000 else f"{len(answer['says'])} letters: {answer['says'][:200]}"
    if answer["outcome"] != "read":
        return f"{answer['outcome']}: {answer.get('says', '')[-600:]}"
    if (kind == "cube" or KINDS[kind].damaged == "model/*") and answer["values"] != expected["values"]:
        same = all(
            n in answer["values"] and np.array_equal(answer["values"][n], v, equal_nan=True)
            for n, v in expected["values"].items()
        )
        return None if same else "other values, in silence"
    for name, values in answer["values"].items():
        if name in FEATURES:
            low, high = FEATURES[name].valid_range
            if not all(math.isnan(v) or low - 1e-6 <= v <= high + 1e-6 for v in values):
                return f"{name} is outside its range"
    return None
