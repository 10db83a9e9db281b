"""Scores of models, and what they say: on the parts of a split, in folds, by feature, with intervals."""

from smgeo.evaluation.cross_validation import cross_validate
from smgeo.evaluation.parts import Evaluation, compare_models, evaluate

__all__ = ["Evaluation", "compare_models", "cross_validate", "evaluate"]
