"""Stations that are prepared once for all models: one store for each setting, the same windows as prepared by hand."""

from __future__ import annotations

import numpy as np
import pytest

from smgeo.cube.reading import open_cube
from smgeo.models import load_model
from smgeo.prepare import Prepared, Split, learnable, part_rows, repeat_steps, training_windows
from smgeo.recipe.study import read_recipe
from smgeo.study.prepared import PreparedStations


def stores_of(run):
    folders = sorted(p.parent for p in (run.folder / "prepared").glob("*/*/train.zarr"))
    return [PreparedStations(folder) for folder in folders]


def windows_by_hand(run, recipe, model):
    """Training and validation windows of a model, prepared from the station cube with nothing kept."""
    cube, split = open_cube(run.folder / "stations.zarr"), Split.from_dict(run.results["split"])
    about = load_model(run.folder / "models" / model).preparation_
    held = part_rows(cube, split, "validation", "sm") if split.validation else None
    spec = recipe.prepare_of(model)
    _, train, validation = training_windows(
        learnable(cube, split), held, spec, recipe.features, "sm", length=about["length"], mode=about["mode"]
    )
    return split, train, validation


def test_models_with_the_same_settings_share_one_store(toy_run):
    assert len(toy_run.results["models"]) == 4
    assert len(stores_of(toy_run)) == 1


@pytest.mark.parametrize("model", ["rf", "gru"])
def test_windows_of_the_store_are_those_prepared_by_hand(toy_run, model):
    recipe = read_recipe(toy_run.folder / "recipe.yaml")
    split, train, validation = windows_by_hand(toy_run, recipe, model)
    (stores,) = stores_of(toy_run)
    kept = stores.train()
    spec = recipe.prepare_of(model).window
    ours = kept.windows(split.train, train.length, spec.missing, train.mode)
    rows = np.arange(len(train))
    np.testing.assert_array_equal(ours.gather(rows), train.gather(rows))
    np.testing.assert_array_equal(ours.y, train.y)
    assert ours.preparation == train.preparation
    held = Prepared(stores.validation(split, "sm"), kept.scaler, kept.features, "sm", kept.fill, kept.outliers)
    rows = np.arange(len(validation))
    found = held.windows(split.validation, train.length, spec.missing, train.mode)
    np.testing.assert_array_equal(found.gather(rows), validation.gather(rows))


def test_stations_for_scores_are_all_of_the_split_without_a_row_dropped(toy_run):
    split = Split.from_dict(toy_run.results["split"])
    (stores,) = stores_of(toy_run)
    stations, cube = stores.stations(), open_cube(toy_run.folder / "stations.zarr")
    used = [s for part in split.parts().values() for s in part]
    assert sorted(stations["station"].values.tolist()) == sorted(used)
    raw = cube["sm"].sel(station=stations["station"])
    assert int(stations["sm"].notnull().sum()) == int(raw.notnull().sum())
    by_hand = repeat_steps(
        cube.sel(station=stations["station"]), load_model(toy_run.folder / "models" / "rf").preparation_["steps"]
    )
    np.testing.assert_array_equal(stations["s1_vv"].values, by_hand["s1_vv"].values)


def test_a_model_of_its_own_preparation_has_a_store_of_its_own(tmp_path, station_table, table_study):
    models = {
        "a": {"kind": "HistGradientBoostingRegressor", "max_iter": 5},
        "b": {"kind": "HistGradientBoostingRegressor", "max_iter": 5, "prepare": {"scale": "minmax"}},
        "c": {
            "kind": "HistGradientBoostingRegressor",
            "max_iter": 5,
            "prepare": {"window": {"length": 3, "missing": 0.5}},
        },
    }
    run = table_study(tmp_path / "own", station_table(), models=models, importance=False)
    kinds = sorted(s.train().scaler.kind for s in stores_of(run))
    assert kinds == ["minmax", "standard"]  # a window of its own prepares nothing anew


def test_what_was_prepared_for_another_split_is_removed(tmp_path, station_table, table_study):
    rows = station_table()
    run = table_study(tmp_path / "once", rows)
    (before,) = [s.folder for s in stores_of(run)]
    import smgeo

    recipe = read_recipe(run.folder / "recipe.yaml").model_dump(mode="json", exclude_unset=True)
    recipe["prepare"]["split"]["periods"]["test"] = ["2020-02-11", "2020-02-29"]
    again = smgeo.run(recipe, out=run.folder, data=tmp_path / "once")
    (after,) = [s.folder for s in stores_of(again)]
    assert after != before
    assert not before.exists()
