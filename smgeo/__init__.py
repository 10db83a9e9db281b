"""Surface soil moisture at high resolution: from stations and rasters to maps with honest scores.

The names below are all there is to know for scripts; each is imported when first used, so that `import smgeo`
is quick and loads neither TensorFlow nor ydf. The accessor `ds.smgeo` is registered at once.
"""

import sys as _sys

import lazy_loader as _lazy

try:
    from smgeo import accessor as _accessor  # noqa: F401 - registers `ds.smgeo`
except KeyboardInterrupt:  # this import takes most of a second
    if _sys.argv[0].endswith("/smgeo") or "-m smgeo" in " ".join(_sys.orig_argv[:4]):
        from smgeo.errors import end_before_start as _end

        _end()
    raise

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "assemble": ["extract"],
        "cube": ["open_cube", "write_cube"],
        "errors": ["SmgeoError", "SmgeoWarning"],
        "evaluation": ["compare_models", "evaluate"],
        "evaluation.importance": ["learning_curve", "permutation_importance"],
        "evaluation.leakage": ["audit_leakage"],
        "evaluation.uncertainty": ["calibrate", "find_applicability", "interval_coverage"],
        "maps": ["evaluate_map", "open_map", "predict_map"],
        "models": ["load_model", "make_model"],
        "prepare": [
            "Scaler",
            "Windows",
            "choose_z",
            "cv_folds",
            "derive_features",
            "drop_outlier_rows",
            "fill_gaps",
            "flag_out_of_range",
            "flag_outliers",
            "group_stations",
            "measure_revisit",
            "select_features",
            "split_periods",
            "split_stations",
        ],
        "report": ["draw_map", "write_animation", "write_slider"],
        "sources": ["open_earthengine", "open_rasters", "open_stac", "open_stations", "simulate"],
        "hpc.jobs.script": ["jobscript"],
        "study": ["build_cubes", "run", "train_recipe", "tune_recipe"],
        "tuning": ["tune"],
    },
)
