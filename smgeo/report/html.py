"""HTML pages: their templates, and writing them so that no reader sees half of one."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2


def write_page(path: Path, template: str, **values: Any) -> Path:
    """A page from a template of smgeo's, written beside and renamed."""
    text = open_template(template).render(**values)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    return path


def open_template(name: str) -> jinja2.Template:
    """A template of smgeo's, with the filters that its pages use."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(resources.files("smgeo.report") / "templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda v, digits=3: "–" if v is None else f"{v:.{digits}f}"
    environment.filters["interval"] = _interval
    environment.filters["count"] = lambda v: "" if v is None else f"{v:,}"
    return environment.get_template(name)


def _interval(ends: list[float | None] | None, digits: int = 3) -> str:
    """`0.061 to 0.088`, or a dash where there is none."""
    if not ends or ends[0] is None or ends[1] is None:
        return "–"
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"
