"""A recipe's stages in order, each skipped when its inputs have not changed."""

from smgeo.study.runs import Run, build_cubes, run, train_recipe, tune_recipe

__all__ = ["Run", "build_cubes", "run", "train_recipe", "tune_recipe"]
