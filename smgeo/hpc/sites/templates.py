"""Files of `cluster/`, which ship with smgeo: site profiles, and templates with strict names and quoting."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2


def cluster_folder() -> Path:
    """Where site profiles and templates lie: beside the package in a checkout, inside it where it was installed."""
    inside = Path(str(resources.files("smgeo") / "cluster"))
    return inside if inside.is_dir() else Path(str(resources.files("smgeo"))).parent / "cluster"


def fill_template(name: str, values: Mapping[str, Any]) -> str:
    """A template of `cluster/` with its names filled in; a name without a value is an error. `| quote` is for shells."""
    environment = jinja2.Environment(  # noqa: S701 - shell and SLURM, not HTML
        loader=jinja2.FileSystemLoader(cluster_folder()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    return environment.get_template(name).render(values)
