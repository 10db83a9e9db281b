"""A recipe: YAML in, frozen and checked specs out. Opens no data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import yaml
from pydantic import model_validator

from smgeo.errors import SmgeoError
from smgeo.recipe.checks import find_problems
from smgeo.recipe.fields import RecipeFields
from smgeo.recipe.spec import parse_spec
from smgeo.recipe.yaml_format import dump_yaml, load_yaml


class Recipe(RecipeFields):
    """A whole study; see `docs/recipes.md` for every key.

    Without `stations` it builds a grid cube and reports on it; without `models` it only builds cubes.
    """

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Recipe:
        if problems := find_problems(self):
            raise ValueError("; ".join(problems))
        return self


def find_recipe(name: str | Path) -> Path:
    """Return the recipe file: `name` itself, or the recipe of that name that ships with smgeo.

    Raises
    ------
    SmgeoError
        If there is neither.
    """
    path = Path(name)
    if os.path.isfile(path):  # False for a name that is too long, too
        return path
    shipped = shipped_recipes()
    if path.stem in shipped and path.suffix in ("", ".yaml") and path.parent.name in ("", "recipes"):
        return shipped[path.stem]
    raise SmgeoError(
        f"recipe {str(name)!r} not found; give a path, or one that ships with smgeo: {', '.join(sorted(shipped))}"
    )


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that ship with smgeo, by name (in the wheel as data, in a checkout under `recipes/`)."""
    root = Path(str(resources.files("smgeo")))
    for folder in (root / "recipes", root.parent / "recipes"):
        if folder.is_dir():
            return {p.stem: p for p in sorted(folder.glob("*.yaml"))}
    return {}


def parse_recipe(values: Mapping[str, object], where: str = "recipe") -> Recipe:
    """Check the values of a recipe; raise as `parse_spec` does."""
    return parse_spec(Recipe, values, where)


def read_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe file.

    Raises
    ------
    SmgeoError
        If the file is missing, is not YAML, or is not a valid recipe.
    """
    file = find_recipe(path)
    try:
        values = load_yaml(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise SmgeoError(f"{file} is not a text file in UTF-8 ({error.reason} at byte {error.start})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise SmgeoError(f"{file}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(values, Mapping):
        raise SmgeoError(f"{file}: a recipe is a YAML mapping (name: ..., stations: ..., features: ..., models: ...)")
    return parse_recipe(values, str(file))


def dump_recipe(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML; reading it gives an equal recipe."""
    unused = None if recipe.stations else {"target", "prepare"}
    return dump_yaml(recipe.model_dump(exclude=unused))
