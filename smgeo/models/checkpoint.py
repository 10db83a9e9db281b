"""Training that continues where it was stopped: a file of arrays and JSON, replaced as a whole after epochs."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path

import numpy as np

from smgeo.files import JsonObject, parse_json, written_beside


class Checkpoint:
    """The state of a training, in its own file (`.npz`: arrays and JSON, no pickle).

    Parameters
    ----------
    path : Path
        The file.
    every_s : float
        Write after an epoch when so many seconds have passed since the last time; 0 for every epoch.
    key : str
        Identity of the data, if the caller knows more of them than their target and preparation.
    """

    def __init__(self, path: str | Path, every_s: float = 0, key: str = "") -> None:
        self.path, self._every_s, self.key = Path(path), every_s, key
        self._written = time.monotonic()

    def part(self, name: str) -> Checkpoint:
        """Return the checkpoint of a part of this training, in a file beside it."""
        return Checkpoint(self.path.with_name(f"{self.path.stem}.{name}{self.path.suffix}"), self._every_s, self.key)

    @property
    def due(self) -> bool:
        """True if it is time to write."""
        return time.monotonic() - self._written >= self._every_s

    def save(self, training: JsonObject, arrays: Mapping[str, Sequence[np.ndarray]], state: JsonObject) -> None:
        """Write under another name and rename.

        Parameters
        ----------
        training : dict
            Identity of the training, JSON types: it continues only from its own checkpoint.
        arrays : mapping
            Lists of arrays by name.
        state : dict
            The rest of the state, JSON types.
        """
        about = _text(
            {"training": self._name(training), "state": state, "counts": {k: len(v) for k, v in arrays.items()}}
        )
        parts = {f"{name}.{i}": np.asarray(a) for name, many in arrays.items() for i, a in enumerate(many)}
        with written_beside(self.path) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, about=np.frombuffer(about.encode(), dtype=np.uint8), **parts)
        self._written = time.monotonic()

    def load(self, training: JsonObject) -> tuple[dict[str, list[np.ndarray]], JsonObject] | None:
        """Return arrays and state of this training; None if the file is missing, damaged, or of another training."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                about = parse_json(file["about"].tobytes(), finite=False)
                if about["training"] != json.loads(_text(self._name(training))):
                    return None
                return {k: [file[f"{k}.{i}"] for i in range(n)] for k, n in about["counts"].items()}, about["state"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
            return None

    def _name(self, training: JsonObject) -> JsonObject:
        return {"key": self.key, **training}

    def remove(self) -> None:
        """Remove the file, and those of its parts: the training is finished."""
        for file in (self.path, *self.path.parent.glob(f"{escape(self.path.stem)}.*{self.path.suffix}")):
            file.unlink(missing_ok=True)


def _text(value: object) -> str:
    """Return JSON; numbers of NumPy, as users give them for parameters, are numbers."""
    return json.dumps(value, default=lambda number: number.item())
