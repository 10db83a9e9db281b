"""HTML pages from templates, complete or not written at all."""

from __future__ import annotations

import base64
from importlib import resources
from pathlib import Path

import jinja2

from smgeo.files import written_beside


def write_page(path: Path, template: str, **values: object) -> Path:
    """Write a page from one of smgeo's templates, under another name first, and rename it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(resources.files("smgeo.report") / "templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    text = environment.get_template(template).render(**values)
    with written_beside(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def embed(picture: bytes) -> str:
    """Return a picture as text for a `data:` address."""
    return base64.b64encode(picture).decode()
