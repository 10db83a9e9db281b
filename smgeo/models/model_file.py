"""The folder a fitted model is saved to: `model.json` with checksums, and weights in a format that contains no code."""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import NotRequired, TypedDict, cast

from pydantic import TypeAdapter, ValidationError

from smgeo.cube.schema import check_name
from smgeo.errors import SmgeoError
from smgeo.files import JsonObject, folder_beside, hash_file, load_json
from smgeo.models.arrays import weigh
from smgeo.prepare.steps import Preparation

FORMAT = 1
_AGAIN = "remove the folder, and save the model or run its recipe again"
_LONGEST_JSON = 256 * 2**20  # bytes
_LARGEST_INPUT = 2**20  # numbers of a row or window
APPLICABILITY_FILE = "applicability.npz"


class Manifest(TypedDict):
    """Contents of `model.json`, JSON types.

    Attributes
    ----------
    kind, params
        As for `make_model`.
    n_features, input_shape, feature_names, preparation, training, calibration, applicability
        Attributes of the fitted model; see `smgeo.models.base.SoilMoistureModel`.
    files : dict of str to str
        SHA-256 of each file of weights; `write_model` adds it.
    digest : str
        SHA-256 of all the rest; `read_model` adds it.
    """

    kind: str
    params: JsonObject
    n_features: int
    input_shape: list[int | None]
    feature_names: list[str] | None
    preparation: Preparation | None
    training: JsonObject
    calibration: JsonObject | None
    applicability: JsonObject | None
    files: NotRequired[dict[str, str]]
    digest: NotRequired[str]


_PREPARATION = TypeAdapter(Preparation)
# Types of the values of `model.json`, which may come from anywhere.
_TYPES: dict[str, type | UnionType] = {
    "kind": str,
    "params": dict,
    "n_features": int,
    "input_shape": list,
    "feature_names": list | None,
    "preparation": dict | None,
    "training": dict,
    "files": dict,
    "calibration": dict | None,
    "applicability": dict | None,
}
_OPTIONAL = ("feature_names", "calibration", "applicability")


def write_model(path: str | Path, about: Manifest, write_weights: Callable[[Path], None]) -> Path:
    """Write a model's folder under another name, and rename it when complete.

    Parameters
    ----------
    path : str or Path
        A folder that is new, or that contains a model.
    about : Manifest
        Everything but the weights; read after they are written.
    write_weights : callable
        Called with the folder to write weights into.
    """
    path = Path(path)
    with folder_beside(path, "model.json") as part:
        write_weights(part)
        files = sorted(p for p in part.rglob("*") if p.is_file())
        sums = {p.relative_to(part).as_posix(): hash_file(p) for p in files}
        manifest: JsonObject = {"format": FORMAT, **about, "files": sums}
        manifest["sha256"] = _checksum(manifest)
        (part / "model.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return path


def read_model(path: str | Path) -> Manifest:
    """Return the contents of `model.json`, after comparing every file's checksum.

    Raises
    ------
    SmgeoError
        If the folder is no model, is of a newer format, or a file in it is missing or damaged.
    """
    path = Path(path)
    file = path / "model.json"
    if not file.is_file():
        raise SmgeoError(
            f"{path} is not a model (no model.json); give a folder that model.save wrote, such as RUN/models/rf"
        )
    files = _list_files(path)
    try:
        manifest = load_json(file, _AGAIN, finite=False)
        if manifest["format"] > FORMAT:
            raise SmgeoError(f"{path} was written by a newer smgeo (model format {manifest['format']}, known {FORMAT})")
        stated = manifest.pop("sha256", None)
        digest = _checksum(manifest)
        if stated != digest:
            raise SmgeoError(f"{file} is damaged or was edited (its checksum does not match); {_AGAIN}")
        about = {key: manifest[key] for key in _TYPES if key not in _OPTIONAL}
        about |= {key: manifest.get(key) for key in _OPTIONAL}  # older files lack them
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, SmgeoError):
            raise
        raise SmgeoError(f"{file} is damaged ({error!r}); {_AGAIN}") from None
    for key, types in _TYPES.items():
        if not isinstance(about[key], types):
            raise SmgeoError(f"{file} is damaged ({key} is {type(about[key]).__name__}); {_AGAIN}")
    if not _is_shape(about["input_shape"], about["n_features"]):
        raise SmgeoError(
            f"{file} is damaged (input_shape must contain whole numbers, n_features as the last one); {_AGAIN}"
        )
    if about["preparation"] is not None:
        about["preparation"].setdefault("mode", "window")  # older files lack it
        _check_preparation(file, about["preparation"])
    _check_files(path, files, about["files"])
    return cast(Manifest, {**about, "digest": digest})


def _list_files(path: Path) -> set[str]:
    """Return the names of a folder's files; refuse a link, which leads out of it, and a pipe or a device, which never ends."""
    files = set()
    for entry in path.rglob("*"):
        kind = entry.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise SmgeoError(f"{entry} is neither a file nor a folder (a link, a pipe or a device); nothing is loaded")
        if entry.suffix == ".json" and entry.lstat().st_size > _LONGEST_JSON:
            raise SmgeoError(f"{entry} is larger than {_LONGEST_JSON // 2**20} MiB; nothing is loaded")
        try:
            weigh(entry.lstat().st_size)
        except ValueError as error:
            raise SmgeoError(f"{entry}: {error}; nothing is loaded") from None
        if stat.S_ISREG(kind):
            files.add(entry.relative_to(path).as_posix())
    return files


def _is_shape(shape: list[object], features: object) -> bool:
    """Return True for a row, a window (days, channels), or whole series (None, channels)."""
    numbers = shape[1:] if len(shape) == 2 and shape[0] is None else shape
    known = [n for n in numbers if type(n) is int and n > 0]
    return (
        len(shape) in (1, 2)
        and len(known) == len(numbers) > 0
        and math.prod(known) <= _LARGEST_INPUT
        and type(features) is int
        and features == shape[-1]
    )


def _check_preparation(file: Path, preparation: Preparation) -> None:
    """Refuse a preparation of another form, and names that a store would take for paths."""
    try:
        _PREPARATION.validate_python(preparation, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SmgeoError(f"{file} is damaged (preparation: {where}: {first['msg']}); {_AGAIN}") from None
    for name in (preparation["target"], *preparation["features"]):
        check_name(name, str(file))
    if not all(isinstance(step.get("step"), str) for step in preparation["steps"]):
        raise SmgeoError(f"{file} is damaged (preparation: a step without a name); {_AGAIN}")


def _check_files(path: Path, files: set[str], sums: dict[str, str]) -> None:
    if unknown := {n for n in files - {"model.json", *sums} if not PurePosixPath(n).name.startswith(".")}:
        raise SmgeoError(
            f"{path} contains {', '.join(sorted(unknown)[:5])}, which model.json does not name; nothing is loaded"
        )
    for name, expected in sums.items():
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise SmgeoError(f"{path}/model.json names a file outside the model: {name!r}; nothing is loaded")
        file = path / inside
        if name not in files or hash_file(file) != expected:
            raise SmgeoError(f"{file} is missing or damaged (its checksum is not the one in model.json); {_AGAIN}")


def _checksum(manifest: JsonObject) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
