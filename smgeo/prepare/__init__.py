"""From a cube to what models train on: derived features, gaps, outliers, splits, scaling, windows.

Lazy on Dask input, computed at once on NumPy input. Writes nothing, and sees no model but the quick one
that chooses the threshold of outliers.
"""

from __future__ import annotations

from smgeo.prepare.derive import derive_features
from smgeo.prepare.folds import Folds, cv_folds
from smgeo.prepare.gaps import fill_gaps, measure_revisit
from smgeo.prepare.outliers import OutlierRows, drop_outlier_rows, flag_out_of_range, flag_outliers
from smgeo.prepare.pipeline import Prepared, choose_outliers, clean_cube, prepare_cube, training_windows
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
    "hide_days",
    "learnable",
    "measure_revisit",
    "part_rows",
    "prepare_cube",
    "repeat_steps",
    "select_features",
    "split_periods",
    "split_stations",
    "steps_of",
    "training_windows",
    "windows_like",
]
