"""The stage that prepares the stations, once for all models, scores and counts that share the settings."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import xarray as xr

from smgeo.cube.reading import open_cube
from smgeo.cube.schema import select_stations, text_of
from smgeo.cube.writing import write_cube
from smgeo.files import JsonObject, digest
from smgeo.prepare import Prepared, Split, learnable, part_rows, preparation_key, prepare_cube
from smgeo.prepare.variation import check_variation
from smgeo.recipe.preparation import PrepareSpec
from smgeo.study.context import Context, Found
from smgeo.study.progress import Update


@dataclass(frozen=True)
class PreparedStations:
    """Stores of the prepared stations of a split, in one folder.

    Attributes
    ----------
    folder : Path
        With `train.zarr`, the training part, from which every number is learned; `stations.zarr`, all stations of the split,
        prepared with these numbers and without dropping a row; and of a split in time `validation.zarr`, which does not see
        the days after the validation period.
    """

    folder: Path

    def train(self) -> Prepared:
        """Open the training part and what was learned on it."""
        return Prepared.from_cube(open_cube(self.folder / "train.zarr"))

    def validation(self, split: Split, target: str) -> xr.Dataset | None:
        """Open the validation part; None if the split has none."""
        if not split.validation:
            return None
        if split.periods:
            return open_cube(self.folder / "validation.zarr")
        return part_rows(self.stations(), split, "validation", target)

    def stations(self) -> xr.Dataset:
        """Open all stations of the split, for scores."""
        return open_cube(self.folder / "stations.zarr")


def prepare_stations(run: Context, found: Found) -> Found:
    """Prepare the stations in each way that the recipe and its models ask for."""
    split = found.split
    if split is None:
        return found
    _remove_others(run, found)
    for spec in [found.prepare, *(run.prepare_of(found, name) for name in run.models)]:
        stores = prepared_stations(run, found, spec, split)
        name = f"prepared {stores.folder.name}"
        if name not in found.done:
            inputs = {"settings": _settings(run, spec, split), **found.keys("stations", "split")}
            outputs = [stores.folder / f"{part}.zarr" for part in _parts_of(split)]
            found = run.do(found, name, partial(write_prepared, run, spec, split, stores), inputs, outputs)[0]
    return found


def prepared_stations(run: Context, found: Found, spec: PrepareSpec, split: Split) -> PreparedStations:
    """Return the stores of the prepared stations of a split; models with the same settings share them."""
    settings = digest(_settings(run, spec, split))[:12]
    return PreparedStations(run.folder / "prepared" / _of_cube(found) / settings)


def _parts_of(split: Split) -> tuple[str, ...]:
    return ("train", "validation", "stations") if split.periods and split.validation else ("train", "stations")


def write_prepared(
    run: Context, spec: PrepareSpec, split: Split, stores: PreparedStations, progress: Update | None = None
) -> None:
    """Write the stores of the prepared stations of a split."""
    cube, features = run.open_stations(), run.recipe.features
    learned = learnable(cube, split)
    train = prepare_cube(learned, spec, features, run.target, text_of(learned["station"]).tolist())
    write_cube(train.to_cube(), stores.folder / "train.zarr", progress=progress)
    check_variation(open_cube(stores.folder / "train.zarr"), train.features, run.target)
    if "validation" in _parts_of(split):
        held = train.repeat(part_rows(cube, split, "validation", run.target))
        write_cube(held, stores.folder / "validation.zarr", progress=progress)
    used = dict.fromkeys(s for stations in split.parts().values() for s in stations)
    write_cube(train.repeat(select_stations(cube, used)), stores.folder / "stations.zarr", progress=progress)


def _settings(run: Context, spec: PrepareSpec, split: Split) -> JsonObject:
    """Return everything that the values of the stores depend on besides the cube."""
    train = preparation_key(spec, run.recipe.features, run.target, split.train)
    return {**train, "validation": split.validation, "test": split.test, "periods": split.periods}


def _of_cube(found: Found) -> str:
    """Return a name for the station cube and its split: what is prepared of another is of no use."""
    return digest(found.keys("stations", "split"))[:12]


def _remove_others(run: Context, found: Found) -> None:
    """Remove what was prepared of an earlier station cube, or for an earlier split."""
    for folder in (run.folder / "prepared").glob("*"):
        if folder.name != _of_cube(found):
            shutil.rmtree(folder, ignore_errors=True)
