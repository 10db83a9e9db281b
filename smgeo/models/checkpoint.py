"""Training that goes on where it was stopped: a file of arrays and JSON, replaced as a whole after epochs."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smgeo.files import written_beside


class Checkpoint:
    """What a training has come to, in a file of its own (`.npz`: arrays and JSON, no pickle).

    Parameters
    ----------
    path : Path
        The file.
    every_s : float
        It is written after an epoch when so many seconds have passed since the last time; 0 for every epoch.
    key : str
        Of the data, for one who knows them by more than their target and how they were prepared.
    """

    def __init__(self, path: str | Path, every_s: float = 0, key: str = "") -> None:
        self.path, self._every_s, self.key = Path(path), every_s, key
        self._written = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._written >= self._every_s

    def save(
        self, training: Mapping[str, Any], arrays: Mapping[str, Sequence[np.ndarray]], state: Mapping[str, Any]
    ) -> None:
        """Write beside and rename.

        Parameters
        ----------
        training : mapping
            What training this is, JSON types: it goes on from a checkpoint of the same alone.
        arrays : mapping
            Lists of arrays by name.
        state : mapping
            All else, JSON types.
        """
        about = _text(
            {"training": self._name(training), "state": state, "counts": {k: len(v) for k, v in arrays.items()}}
        )
        parts = {f"{name}.{i}": np.asarray(a) for name, many in arrays.items() for i, a in enumerate(many)}
        with written_beside(self.path) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, about=np.frombuffer(about.encode(), dtype=np.uint8), **parts)
        self._written = time.monotonic()

    def load(self, training: Mapping[str, Any]) -> tuple[dict[str, list[np.ndarray]], dict[str, Any]] | None:
        """Arrays and state of this training; None where the file is missing, damaged, or of another training."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                about = json.loads(file["about"].tobytes().decode())
                if about["training"] != json.loads(_text(self._name(training))):
                    return None
                return {k: [file[f"{k}.{i}"] for i in range(n)] for k, n in about["counts"].items()}, about["state"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
            return None

    def _name(self, training: Mapping[str, Any]) -> dict[str, Any]:
        return {"key": self.key, **training}

    def remove(self) -> None:
        """Take the file away: the training is finished."""
        self.path.unlink(missing_ok=True)


def _text(value: Any) -> str:
    """JSON; numbers of NumPy, as users give them for parameters, are numbers."""
    return json.dumps(value, default=lambda number: number.item())
