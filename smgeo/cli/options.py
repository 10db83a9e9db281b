"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeName = Annotated[str, typer.Argument(help="YAML file, or the name of a recipe that ships with smgeo.")]
RunFolder = Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME by default.")]
DataFolder = Annotated[
    Path | None,
    typer.Option(help="Folder that relative data paths start from; $SMGEO_DATA or the current folder by default."),
]
ClusterName = Annotated[str | None, typer.Option(help="Site profile; Dask workers on SLURM build the cubes.")]
Workers = Annotated[
    int | None, typer.Option(help="Maximum number of worker jobs; inside a job, total number of workers.")
]
Partition = Annotated[str | None, typer.Option(help="Partition of the worker jobs.")]
Account = Annotated[str | None, typer.Option(help="Project account of the worker jobs.")]
