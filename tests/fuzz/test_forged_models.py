"""Model folders that somebody forged: any value of their JSON and arrays replaced, and the checksums made anew. Each is refused or estimates."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.fuzz.examples import try_examples

FORGED = (
    "rf",
    "extra_trees",
    "boosted",
    "ensemble",
    "ridge",
    "boosting",
    "neighbours",
    "svr",
    "pipeline",
    "forest",
    "kernels",
    "ann",
    "prepared",
)
HOSTILE = [
    None, True, False, -1, 0, 1, 2**31, 2**63, -(2**63), 10**30, 1e308, -0.0, float("nan"), float("inf"), "", "nan", "\x00", "../../x", "/etc/passwd",
    "os.system", "builtins.eval", "__class__", "__reduce__", "a" * 10_000, [], {}, [[]], [None], [1, "a"], {"a": 1}, ["dict", []], ["array", "x"],
    ["estimator", ["sklearn.linear_model._ridge.Ridge", {}]], ["type", "os.system"],
]  # fmt: skip


def places(node, path=()):
    """Return the paths of all values of a JSON document."""
    found = [path] if path else []
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        found += places(value, (*path, key))
    return found


def forge(document, rng: random.Random, kept: tuple[str, ...] = ()):
    """Return a JSON document with values replaced, removed, renamed or exchanged, but for those under the keys `kept`."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 2))):
        among = [p for p in places(document) if p[0] not in kept]
        if not among:
            break
        *way, last = rng.choice(among)
        parent = document
        for key in way:
            parent = parent[key]
        match rng.randrange(4):
            case 0 if isinstance(parent, dict):
                parent[f"{last}_"] = parent.pop(last)
            case 1:
                other = document
                for key in rng.choice(among):
                    other = other[key] if isinstance(other, dict | list) else other
                parent[last] = copy.deepcopy(other)
            case 2 if isinstance(parent[last], int | float) and not isinstance(parent[last], bool):
                parent[last] = rng.choice((-parent[last], parent[last] + 1, parent[last] * 1000, parent[last] / 3))
            case _:
                parent[last] = copy.deepcopy(rng.choice(HOSTILE))
    return document


def forge_json(file: Path, rng: random.Random) -> str:
    """Change a file of JSON."""
    file.write_text(json.dumps(forge(json.loads(file.read_text()), rng, ("files", "sha256"))))
    return file.name


def forge_arrays(file: Path, rng: random.Random) -> str:
    """Change numbers, lengths, types and names of arrays."""
    arrays = _read_all(file)
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    match rng.randrange(7):
        case 0 if array.size:
            flat = array.reshape(-1).copy()
            with np.errstate(all="ignore"):
                flat[rng.randrange(flat.size)] = np.array(
                    rng.choice((-1, 0, 1e9, 2**31 - 1, np.nan, np.inf, -np.inf))
                ).astype(array.dtype)
            arrays[name] = flat.reshape(array.shape)
        case 1:
            arrays[name] = array[: rng.randrange(len(array) + 1)] if array.ndim else array
        case 2:
            arrays[name] = np.concatenate([array, array]) if array.ndim else array
        case 3:
            with np.errstate(all="ignore"):
                arrays[name] = (
                    array.astype(rng.choice(("i1", "i8", "f4", "f8", "u1", "c16", "U3", "?", ">f8")))
                    if array.dtype.kind in "iuf"
                    else array
                )
        case 4:
            arrays[name] = array.reshape(-1, 1) if rng.random() < 0.5 else array.reshape(1, -1)
        case 5:
            del arrays[name]
        case _:
            arrays[f"{name}2"] = arrays.pop(name)
    _write_all(file, arrays)
    return f"{file.name}: {name}"


def _read_all(file: Path) -> dict[str, np.ndarray]:
    if file.suffix == ".npz":
        with np.load(file) as stored:
            return {n: stored[n] for n in stored.files}
    arrays = {}
    with h5py.File(file) as root:
        root.visititems(lambda name, part: arrays.update({name: part[()]}) if isinstance(part, h5py.Dataset) else None)
    return {n: np.asarray(a) for n, a in arrays.items()}


def _write_all(file: Path, arrays: dict[str, np.ndarray]) -> None:
    if file.suffix == ".npz":
        np.savez(file, **arrays)
        return
    with h5py.File(file, "w") as root:
        for name, array in arrays.items():
            root[name] = array.astype("S") if array.dtype.kind == "U" else array


def seal(folder: Path) -> None:
    """Make the checksums anew, as anybody can."""
    file = folder / "model.json"
    manifest = json.loads(file.read_text())
    if not isinstance(manifest, dict):
        return
    manifest["files"] = {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p != file
    }
    manifest.pop("sha256", None)
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps(manifest, indent=1))


@pytest.mark.parametrize("kind", FORGED)
def test_forged_models_are_refused_or_estimate(kind, reader, tmp_path):
    def harm(folder: Path, rng: random.Random) -> str:
        file = rng.choice(sorted(f for f in (folder / "model").rglob("*") if f.suffix in (".json", ".npz", ".h5")))
        forged = (forge_json if file.suffix == ".json" else forge_arrays)(file, rng)
        seal(folder / "model")
        return forged

    def judge(expected: dict, answer: dict, folder: Path) -> str | None:
        read = answer["outcome"] in ("read", "refused")
        return None if read else f"{answer['outcome']}: {answer.get('says', '')[-600:]}"

    assert try_examples(f"forged-{kind}", kind, reader, tmp_path, harm, judge) == {}
