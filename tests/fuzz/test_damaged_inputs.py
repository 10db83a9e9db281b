"""Damaged inputs of every kind: each is read as another reader reads it, or refused in words; nothing hangs, ends the interpreter or fills memory."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from smgeo.catalog import FEATURES
from tests.fuzz.examples import try_examples
from tests.fuzz.inputs import KINDS

TOKENS = [
    b"-9999", b"nan", b"inf", b"1e999", b"-1", b"0", b"99999999999999999999", b"\x00", b"\xff\xfe", b"\n", b"\r", b'"', b"'", b";", b",", b"\t",
    b"{", b"]", b": ", b"- ", b"&a", b"*a", b"!!python/object:os.system ", b"../", b"9999-12-31", b"0001-01-01", b"24:00", b"$(touch x)", b"%s%n",
    b"\xc3\xa9" * 300, b"[" * 2000, b"1:" * 50,
]  # fmt: skip


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


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_as_they_are_or_refused(kind, reader, tmp_path):
    def harm(folder: Path, rng: random.Random) -> str:
        file = rng.choice(sorted(f for f in folder.glob(KINDS[kind].damaged) if f.is_file()))
        file.write_bytes(damage(file.read_bytes(), rng)) if rng.random() > 0.03 else file.unlink()
        return str(file.relative_to(folder))

    def judge(expected: dict, answer: dict, folder: Path) -> str | None:
        if answer["outcome"] == "hangs" and kind == "netcdf" and _hangs_in_hdf5(folder / "v.nc"):
            return None
        return _find_fault(kind, expected, answer)

    assert try_examples(kind, kind, reader, tmp_path, harm, judge) == {}


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
