"""The model of a map as its blocks refer to it: the object itself, or the path of a file that workers read once."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from smgeo.cube.dask_client import active_client
from smgeo.errors import SmgeoError
from smgeo.files import hash_file
from smgeo.models import load_model
from smgeo.models.protocol import Model


class HeldModel:
    """A model that is sent to workers as the path of its file.

    Parameters
    ----------
    model : fitted model
    digest : str
        Identifies the model.
    path : Path or None
        The saved model, on a file system that all workers see; None for a model that is sent as it is.
    """

    def __init__(self, model: Model, digest: str, path: Path | None = None) -> None:
        self._model: Model | None = model
        self.digest, self._path = digest, path

    @property
    def model(self) -> Model:
        """The model itself."""
        if self._model is None:
            assert self._path is not None
            return _read_model(self._path, self.digest)
        return self._model

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_model": self._model if self._path is None else None}


@lru_cache(maxsize=1)
def _read_model(path: Path, digest: str) -> Model:
    """Read a model; again for another digest, since another model may have been saved there."""
    model: Model = load_model(path)
    if hash_file(path / "model.json") != digest:
        raise SmgeoError(f"{path} was replaced while its map was made; run the same command again")
    return model


@contextmanager
def kept_model(model: Model, out: Path) -> Iterator[HeldModel]:
    """Give a model to blocks.

    Meanwhile it is saved next to `out` if workers have to read it, or if only its file identifies it.
    """
    known = getattr(model, "digest_", None)
    if known is not None and active_client() is None:
        yield HeldModel(model, known)
        return
    path = out.with_name(f".{out.name.removeprefix('.')}.model").absolute()
    try:
        try:
            model.save(path)
        except (AttributeError, SmgeoError):  # a class of the user's own that cannot be saved: another model each time
            yield HeldModel(model, uuid.uuid4().hex)
            return
        # The user may have trusted types in a file of scikit-learn's; workers lack that permission.
        sent = getattr(model, "kind", None) == "sklearn"
        yield HeldModel(model, hash_file(path / "model.json") or "", None if sent else path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
