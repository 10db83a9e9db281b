"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeName = Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe that ships with smgeo.")]
RunFolder = Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME by default.")]
DataFolder = Annotated[
    Path | None, typer.Option(help="Where relative data paths start; $SMGEO_DATA, else here, by default.")
]
ClusterName = Annotated[str | None, typer.Option(help="A site profile: cubes by Dask workers on SLURM.")]
Workers = Annotated[int | None, typer.Option(help="Jobs of the cluster at most; inside a job, workers in all.")]
Partition = Annotated[str | None, typer.Option(help="Of the cluster's jobs.")]
Account = Annotated[str | None, typer.Option(help="Of the cluster's jobs.")]
