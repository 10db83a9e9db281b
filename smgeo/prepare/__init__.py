"""From a cube to the input of models: derived features, gaps, outliers, splits, scaling, windows.

Everything is lazy on Dask input and computed at once on NumPy input. Nothing is written. No model is used except the quick
forest that chooses the threshold of outliers and the features.
"""

from __future__ import annotations

from smgeo.prepare.derive import derive_features
from smgeo.prepare.folds import Folds, cv_folds
from smgeo.prepare.gaps import fill_gaps, measure_revisit
from smgeo.prepare.outliers import OutlierRows, drop_outlier_rows, flag_out_of_range, flag_outliers
from smgeo.prepare.pipeline import (
    Prepared,
    choose_outliers,
    clean_cube,
    preparation_key,
    prepare_cube,
    training_windows,
    windows_of_parts,
)
from smgeo.prepare.places import group_stations
from smgeo.prepare.repeat import repeat_steps, windows_like
from smgeo.prepare.scaling import Scaler
from smgeo.prepare.selection import SelectedFeatures, select_features
from smgeo.prepare.splits import PARTS, Split, hide_days, learnable, part_rows, split_periods, split_stations
from smgeo.prepare.steps import steps_of
from smgeo.prepare.threshold import ChosenThreshold, choose_z
from smgeo.prepare.windows import Windows

__all__ = [
    "PARTS",
    "ChosenThreshold",
    "Folds",
    "OutlierRows",
    "Prepared",
    "Scaler",
    "SelectedFeatures",
    "Split",
    "Windows",
    "choose_outliers",
    "choose_z",
    "clean_cube",
    "cv_folds",
    "derive_features",
    "drop_outlier_rows",
    "fill_gaps",
    "flag_out_of_range",
    "flag_outliers",
    "group_stations",
    "hide_days",
    "learnable",
    "measure_revisit",
    "part_rows",
    "preparation_key",
    "prepare_cube",
    "repeat_steps",
    "select_features",
    "split_periods",
    "split_stations",
    "steps_of",
    "training_windows",
    "windows_like",
    "windows_of_parts",
]
