"""The folder a fitted model is saved to: `model.json` with checksums, and weights in a format that contains no code."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NotRequired

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic reads no TypedDict of Python 3.11

from smgeo.cube.schema import check_name
from smgeo.errors import SmgeoError
from smgeo.files import JsonObject, folder_beside, hash_file, load_json
from smgeo.models.applicability import ApplicabilityState
from smgeo.models.arrays import weigh
from smgeo.models.calibration import CalibrationState
from smgeo.prepare.scaling import Scaler
from smgeo.prepare.steps import Preparation

FORMAT = 1
_AGAIN = "remove the folder, and save the model or run its recipe again"
_LONGEST_JSON = 32 * 2**20  # bytes; as Python's values they take twenty times as much
# Levels of folders in a model's folder, and files.
_DEEPEST, _MOST_FILES = 4, 1000
_MOST_STEPS = 50
_LARGEST_INPUT = 2**20  # numbers of a row or window
APPLICABILITY_FILE, CALIBRATION_FILE = "applicability.npz", "calibration.npz"


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
    calibration: CalibrationState | None
    applicability: ApplicabilityState | None
    files: NotRequired[dict[str, str]]
    digest: NotRequired[str]


# The file may come from anywhere.
_MANIFEST = TypeAdapter(Manifest)
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
        _list_files(part)
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
    manifest = load_json(file, _AGAIN, finite=False)
    given = manifest.get("format")
    if type(given) is int and given > FORMAT:
        raise SmgeoError(f"{path} was written by a newer smgeo (model format {given}, known {FORMAT})")
    stated = manifest.pop("sha256", None)
    digest = _checksum(manifest)
    if given != FORMAT or stated != digest:
        raise SmgeoError(f"{file} is damaged or was edited (its checksum does not match); {_AGAIN}")
    about = _check_manifest(file, manifest)
    _check_files(path, files, about["files"])
    return {**about, "digest": digest}


def _check_manifest(file: Path, manifest: JsonObject) -> Manifest:
    """Return the contents, after they were found to be of the right types, and to fit each other."""
    manifest = {**dict.fromkeys(_OPTIONAL), "files": None, **manifest}  # older files lack some
    if isinstance(manifest.get("preparation"), dict):
        manifest["preparation"].setdefault("mode", "window")  # older files lack it
    try:
        about = _MANIFEST.validate_python(manifest, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SmgeoError(f"{file} is damaged ({where}: {first['msg']}); {_AGAIN}") from None
    names, prepared, training = about["feature_names"], about["preparation"], about["training"]
    for name in () if prepared is None else (prepared["target"], *prepared["features"]):
        check_name(name, str(file))  # a store would take some for paths
    for fits, what in (
        (
            _is_shape(about["input_shape"], about["n_features"]),
            "input_shape must contain whole numbers, n_features as the last one",
        ),
        (names is None or len(names) == about["n_features"], "feature_names are not n_features"),
        (prepared is None or _is_preparation(prepared), "preparation: its parts do not fit each other"),
        (
            prepared is None or _count_channels(prepared, about["input_shape"]) == about["n_features"],
            "n_features are not those of the preparation",
        ),
        (
            all(_is_list_of_text(training.get(part, [])) for part in ("stations", "validation_stations")),
            "training: stations are no list of text",
        ),
        (
            all(_is_list_of_places(training.get(part, [])) for part in ("places", "validation_places")),
            "training: places are no list of latitude and longitude",
        ),
        (
            about["applicability"] is None
            or (prepared is not None and about["applicability"]["features"] == prepared["features"]),
            "applicability: its features are not those of the preparation",
        ),
        (
            (APPLICABILITY_FILE in about["files"]) == (about["applicability"] is not None),
            f"{APPLICABILITY_FILE} and what is said of it do not fit",
        ),
        (
            (CALIBRATION_FILE in about["files"]) == ("nearest" in (about["calibration"] or {})),
            f"{CALIBRATION_FILE} and what is said of it do not fit",
        ),
    ):
        if not fits:
            raise SmgeoError(f"{file} is damaged ({what}); {_AGAIN}")
    return about


def _is_list_of_places(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(place, list) and len(place) == 2 and all(type(v) in (int, float) and abs(v) <= 360 for v in place)
        for place in value
    )


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _is_preparation(prepared: Preparation) -> bool:
    """Return True if the parts fit each other, and each step has a name; how a step is repeated, its own function knows."""
    features, fill = prepared["features"], prepared["fill"]
    for step in prepared["steps"]:
        if step.get("step") == "scale":
            Scaler.from_dict(step.get("scaler", {}))
    return (
        len(set(features)) == len(features) > 0
        and set(prepared["units"]) == set(features)
        and prepared["length"] > 0
        and len(prepared["steps"]) <= _MOST_STEPS
        and all(
            map(
                str.isprintable,
                (prepared["target_units"], *prepared["units"].values(), *prepared.get("references", {}).values()),
            )
        )
        and 0 <= prepared["missing"] < 1
        and (fill is None or (len(fill) == len(features) and all(map(math.isfinite, fill))))
        and all(isinstance(step.get("step"), str) for step in prepared["steps"])
    )


def _count_channels(prepared: Preparation, shape: list[int | None]) -> int:
    """Return the numbers of a day, or of all days of a window for a model of rows; a gap may have a channel that says so."""
    if not shape:
        return 0
    channels = len(prepared["features"]) * (2 if prepared["missing"] > 0 else 1)
    wanted = None if prepared["mode"] == "sequence" else prepared["length"]
    if len(shape) == 1:
        return channels * prepared["length"] if wanted is not None else 0
    return channels if shape[0] == wanted else 0


def _list_files(path: Path) -> set[str]:
    """Return the names of a folder's files; refuse a link, which leads out of it, and a pipe or a device, which never ends."""
    files: set[str] = set()
    waiting = [path]
    while waiting:
        for entry in os.scandir(waiting.pop()):
            found, name = Path(entry), Path(entry).relative_to(path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(found)
            elif not entry.is_file(follow_symlinks=False):
                raise SmgeoError(
                    f"{found} is neither a file nor a folder (a link, a pipe or a device); nothing is loaded"
                )
            else:
                _weigh_file(found)
                files.add(name.as_posix())
            if len(name.parts) > _DEEPEST or len(files) + len(waiting) > _MOST_FILES:
                raise SmgeoError(
                    f"{path} contains more than {_MOST_FILES} files, or more than {_DEEPEST} levels of folders; nothing is loaded"
                )
    return files


def _weigh_file(file: Path) -> None:
    size = file.lstat().st_size
    if file.suffix == ".json" and size > _LONGEST_JSON:
        raise SmgeoError(f"{file} is larger than {_LONGEST_JSON // 2**20} MiB; nothing is loaded")
    try:
        weigh(size)
    except ValueError as error:
        raise SmgeoError(f"{file}: {error}; nothing is loaded") from None


def _is_shape(shape: list[int | None], features: int) -> bool:
    """Return True for a row, a window (days, channels), or whole series (None, channels)."""
    numbers = shape[1:] if len(shape) == 2 and shape[0] is None else shape
    known = [n for n in numbers if type(n) is int and n > 0]
    return (
        len(shape) in (1, 2)
        and len(known) == len(numbers) > 0
        and math.prod(known) <= _LARGEST_INPUT
        and features == shape[-1]
    )


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
