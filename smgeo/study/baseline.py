"""The stage that trains one plain forest, so that each report says whether its models beat it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from smgeo.cube.writing import write_cube
from smgeo.evaluation.parts import evaluate
from smgeo.files import JsonObject
from smgeo.models import make_model
from smgeo.prepare import windows_of_parts
from smgeo.study.context import Context, Found
from smgeo.study.prepared import prepared_stations
from smgeo.study.progress import Update

BASELINE = "forest"
# Parameters that forests of soil moisture usually have, the same in every run; not the defaults of scikit-learn, whose leaves are of one row.
_TREES, _LEAF, _ROWS_A_TREE = 100, 5, 60_000


def baseline_store(folder: Path) -> Path:
    """Return the store of the baseline's estimates in a run's folder."""
    return folder / "baselines" / f"{BASELINE}.zarr"


def fit_baseline(run: Context, found: Found) -> Found:
    """Train and score the plain forest, on the rows of single days and the preparation of the recipe."""
    if not run.recipe.baseline or found.split is None or not found.models:
        return found
    inputs = {
        "forest": [_TREES, _LEAF, _ROWS_A_TREE],
        "seed": run.recipe.seed,
        "prepare": found.prepare.model_dump(mode="json"),
        "features": run.recipe.features,
        **found.keys("stations", "split"),
    }
    work = partial(_fit, run, found)
    found, about = run.do(found, "baseline", work, inputs, [baseline_store(run.folder)])
    return replace(found, baselines={BASELINE: about["scores"]})


def _fit(run: Context, found: Found, progress: Update) -> JsonObject:
    assert found.split is not None
    stores = prepared_stations(run, found, found.prepare, found.split)
    windows, _ = windows_of_parts(stores.train(), None, length=1, missing=found.prepare.window.missing)
    model = make_model(
        "RandomForestRegressor",
        n_estimators=_TREES,
        min_samples_leaf=_LEAF,
        max_features=1 / 3,
        max_samples=min(len(windows), _ROWS_A_TREE),
        n_jobs=-1,
        random_state=run.recipe.seed,
    ).fit(windows)
    # Several threads would add the estimates of trees in any order, so the last digits would change from run to run.
    model.estimator_.set_params(n_jobs=1)
    evaluation = evaluate(model, stores.stations(), found.split)
    write_cube(evaluation.predictions, baseline_store(run.folder))
    return {"scores": evaluation.scores}
