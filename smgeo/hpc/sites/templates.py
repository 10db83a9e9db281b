"""Find and fill in the files of `cluster/` that ship with smgeo: site profiles and templates."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import jinja2


def cluster_folder() -> Path:
    """Return the folder of site profiles and templates: next to the package in a checkout, inside it when installed."""
    inside = Path(str(resources.files("smgeo") / "cluster"))
    return inside if inside.is_dir() else Path(str(resources.files("smgeo"))).parent / "cluster"


def fill_template(name: str, values: Mapping[str, object]) -> str:
    """Return a template of `cluster/` with its names filled in; a name without a value is an error. `| quote` quotes for shells."""
    environment = jinja2.Environment(  # noqa: S701 - shell and SLURM, not HTML
        loader=jinja2.FileSystemLoader(cluster_folder()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    return environment.get_template(name).render(values)
