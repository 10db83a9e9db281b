"""A recipe: YAML in, frozen and checked specs out. Opens no data.

Every spec refuses unknown keys, with their place and the nearest known key, so that a misspelled key cannot pass for a default.
"""

from smgeo.recipe.grid import GridSpec
from smgeo.recipe.preparation import PrepareSpec
from smgeo.recipe.study import Recipe, dump_recipe, find_recipe, parse_recipe, read_recipe, shipped_recipes
from smgeo.recipe.validation import CrossValidationSpec

__all__ = [
    "CrossValidationSpec",
    "GridSpec",
    "PrepareSpec",
    "Recipe",
    "dump_recipe",
    "find_recipe",
    "parse_recipe",
    "read_recipe",
    "shipped_recipes",
]
