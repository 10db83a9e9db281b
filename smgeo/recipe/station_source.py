"""Keys that all sources of stations share, and the files that they name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from smgeo.recipe.spec import Spec


def _path_as_text(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


# Text, so that a recipe can be written as YAML; Python's users pass a Path as well.
FilePath = Annotated[str, BeforeValidator(_path_as_text)]


class StationSource(Spec):
    """Keys of every source of stations."""

    path: FilePath

    def more_files(self, root: Path) -> list[Path]:
        """Return the files that the source reads besides `path`; relative ones start at `root`."""
        places = getattr(self, "stations", None)
        return [root / places] if places else []

    def __dask_tokenize__(self) -> tuple[str, str]:
        # By default Dask hashes a pickle, which for these specs differs between processes.
        return type(self).__name__, self.model_dump_json()


def files_of(path: Path) -> list[Path]:
    """Return the files that a path names: itself, those of a folder, or those that fit a pattern (`*`, `?`)."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    if path.exists() or not set("*?[") & set(str(path)):
        return [path]
    return sorted(p for p in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if p.is_file())
