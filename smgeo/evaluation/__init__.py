"""Scores of models: on the parts of a split, in folds, by feature, with intervals over stations."""

from smgeo.evaluation.cross_validation import CrossValidation, Learner, cross_validate
from smgeo.evaluation.parts import Evaluation, compare_models, evaluate

__all__ = ["CrossValidation", "Evaluation", "Learner", "compare_models", "cross_validate", "evaluate"]
