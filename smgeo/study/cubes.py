"""The stages of a run that lead to its cubes, each skipped when its inputs have not changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from smgeo.assemble.grid import build_grid_cube, open_grid
from smgeo.assemble.ranges import check_grid_ranges, check_ranges
from smgeo.assemble.stations import build_station_cube, write_station_cube
from smgeo.cube.chunks import chunk_sizes
from smgeo.cube.ledger import read_ledger
from smgeo.cube.reading import open_cube
from smgeo.cube.writing import write_cube
from smgeo.files import digest
from smgeo.hpc.machine import LocalMachine
from smgeo.recipe.study import Recipe
from smgeo.report.grid_contents import count_masked, describe_grid, describe_shown
from smgeo.report.results import count_station_rows, find_versions
from smgeo.sources.world.simulation import simulate
from smgeo.study.inputs import input_files, open_all_stations
from smgeo.study.ledger import Ledger
from smgeo.study.progress import Reporter


class CubeStages:
    """A run's recipe, folder and ledger, and its stages from the sources to the cubes.

    Attributes
    ----------
    recipe : Recipe
    folder, root : Path
        The run's folder, and where relative data paths start.
    ledger : Ledger
        What was done, and from which inputs.
    inputs : dict of str to str
        Hash of each input file.
    opened : xarray.Dataset or None
        The stations as the check of the inputs opened them, so that archives are scanned once.
    machine : LocalMachine
        Where cubes are built, searches run and models are trained.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, root: Path, reporter: Reporter, machine: LocalMachine | None = None
    ) -> None:
        self.recipe, self.folder, self.root, self.reporter = recipe, folder, root, reporter
        self.machine = machine or LocalMachine()
        self.ledger = Ledger(folder, find_versions())
        self.target = recipe.target.variable
        self.inputs: dict[str, str] = {}
        self.opened: xr.Dataset | None = None

    def stage(self, name: str, inputs: Mapping[str, Any], outputs: list[Path], work: Callable[..., Any]) -> Any:
        """A stage with its line of progress; `work` may take `progress`."""

        def with_progress() -> Any:
            with self.reporter.task(name) as update:
                return work(progress=update)

        result = self.ledger.run(name, inputs, outputs, with_progress)
        if self.ledger.done[name]["skipped"]:
            self.reporter.say(f"{name}: unchanged, not run again")
        return result

    def _on_workers(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same, with regions of cubes computed by the machine's workers, which are started if it comes to be done."""

        def on_workers(progress: Callable[[int, int], None]) -> Any:
            with self.machine.cubes(remote=self.recipe.reads_remote):
                return work(progress)

        return on_workers

    def key(self, *names: str) -> dict[str, str]:
        """Keys of stages, of those that this recipe has."""
        return {n: self.ledger.done[n]["key"] for n in names if n in self.ledger.done}

    def simulate(self) -> None:
        """The world of the recipe, in the folder where its data are looked for."""
        spec = self.recipe.world
        assert spec is not None

        def work(progress: Callable[[int, int], None]) -> None:
            shutil.rmtree(self.root, ignore_errors=True)
            simulate(self.root, spec.stations, spec.days, spec.shape, spec.seed, progress=progress)

        self.stage("world", spec.model_dump(mode="json"), [self.root], work)

    def hash_inputs(self) -> dict[str, str]:
        """Hash of each file that the recipe reads, by its path under the data's folder."""
        hashes = self.ledger.hash_files(input_files(self.recipe, self.root))
        return {os.path.relpath(f, self.root): h for f, h in hashes.items()}

    def build_stations(self) -> dict[str, Any]:
        """`stations.zarr`; how many of its rows and stations have what."""
        recipe = self.recipe
        path = self.folder / "stations.zarr"

        @self._on_workers
        def work(progress: Callable[[int, int], None]) -> dict[str, Any]:
            stations = open_all_stations(recipe, self.root) if self.opened is None else self.opened
            parts: dict[str, Any] = {}
            cube = build_station_cube(
                stations,
                recipe.rasters,
                recipe.cube_features,
                self.target,
                self.root,
                recipe.catalog,
                keep=partial(self._keep_values, progress, parts),
            )
            # Of a remote source only the values kept of it tell whether it is as it was.
            token = digest({"key": self.ledger.key("stations", inputs), "parts": parts})
            write_station_cube(cube, path, token=token, progress=progress)
            return count_station_rows(open_cube(path), self.target)

        asked = recipe.model_dump(
            mode="json", include={"period", "target", "stations", "rasters", "features", "variables"}
        )
        inputs = {"recipe": asked, "inputs": self.inputs}
        return self.stage("stations", inputs, [path], work)

    def _keep_values(
        self, update: Callable[..., None], parts: dict[str, Any], name: str, values: xr.Dataset
    ) -> xr.Dataset:
        """What one source gives at the stations, in a store of its own, so that a killed build goes on where it was.

        `parts` gets the checksums of what is kept.
        """
        path = self.folder / "parts" / f"{name}.zarr"
        write_cube(values, path, chunks=chunk_sizes(values), progress=lambda done, total: update(done, total, name))
        records = read_ledger(path)
        parts[name] = records.regions if records else None
        kept = open_cube(path)
        check_ranges(kept, self.recipe.catalog, f"stations, source {name}")
        return kept

    def _grid_period(self) -> tuple[Any, Any]:
        if self.recipe.grid_period is not None:
            return self.recipe.grid_period
        times = open_cube(self.folder / "stations.zarr")["time"].values
        return times[0], times[-1]

    def build_grid(self) -> None:
        """`grid.zarr`."""
        recipe, path = self.recipe, self.folder / "grid.zarr"
        assert recipe.grid is not None
        spec = recipe.grid

        @self._on_workers
        def work(progress: Callable[[int, int], None]) -> None:
            box = open_grid(spec, self.root)
            cube = build_grid_cube(
                recipe.rasters, box, recipe.cube_features, self._grid_period(), self.root, recipe.catalog
            )
            again = path.exists()
            if not again:  # before hours of work; of what is built again, most is not read, so it is checked after
                check_grid_ranges(cube, recipe.rasters, recipe.catalog)
            write_cube(cube, path, token=self.ledger.key("grid", inputs), progress=progress)
            if again:
                check_grid_ranges(open_cube(path), recipe.rasters, recipe.catalog)

        asked = recipe.model_dump(mode="json", include={"period", "rasters", "grid", "features", "variables"})
        inputs = {"recipe": asked, "inputs": self.inputs, **self.key("stations")}
        self.stage("grid", inputs, [path], work)

    def describe_grid(self) -> dict[str, Any]:
        """What the grid cube holds, and what the report shows of it."""
        recipe, path = self.recipe, self.folder / "grid.zarr"

        def count(progress: Callable[[int, int], None]) -> dict[str, Any]:
            about = describe_grid(path, recipe.cube_features)
            shares = count_masked(open_cube(path), recipe.rasters, self._grid_period(), self.root, recipe.catalog)
            for name, share in shares.items():
                about["variables"][name]["masked_share"] = share
            return about

        about = self.stage("grid contents", self.key("grid"), [], count)
        if (spec := recipe.report) is not None:
            outputs = [self.folder / "outline.geojson"] if spec.outline is not None else []
            inputs = {"report": spec.model_dump(mode="json"), "inputs": self.hash_outline(), **self.key("grid")}
            about |= self.stage(
                "grid shown", inputs, outputs, lambda progress: describe_shown(self.folder, spec, self.root)
            )
        return about

    def hash_outline(self) -> dict[str, str]:
        """Hash of the report's outline: of no cube, so that another outline does not build one again."""
        if self.recipe.report is None or self.recipe.report.outline is None:
            return {}
        hashes = self.ledger.hash_files([self.root / self.recipe.report.outline])
        return {os.path.relpath(f, self.root): h for f, h in hashes.items()}
