"""Compiled trees against the libraries that grew them, and against trees by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from smgeo.errors import SmgeoError
from smgeo.models.trees import Trees, trees_of_sklearn, trees_of_ydf


def _data(rows=2000, features=7, seed=0):
    rng = np.random.default_rng(seed)
    # Whole numbers and halves: many values are at thresholds.
    x = (rng.integers(-6, 7, (rows, features)) / 2).astype("float32")
    y = x[:, 0] * x[:, 1] + np.sin(x[:, 2]) + rng.normal(0, 0.1, rows)
    return x, y.astype("float32")


def test_two_trees_by_hand():
    # x0 <= 1 ? 10 : (x1 <= 5 ? 20 : 30), its nodes in an order that is not level by level; and one leaf.
    first = ([1, -1, -1, 2, -1], [3, -1, -1, 4, -1], [0, 0, 0, 1, 0], [1.0, 0, 0, 5.0, 0], [0, 10, 20, 0, 30])
    second = ([-1], [-1], [0], [0.0], [4])
    trees = Trees.of([tuple(map(np.array, t)) for t in (first, second)])
    x = np.array([[1, 9], [1.5, 5], [1.5, 5.5]], dtype="float32")
    mean, spread = trees.predict(x, 1)
    assert mean.tolist() == [7, 12, 17]
    assert spread.tolist() == [3, 8, 13]


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 8191, 20_000])
def test_sklearns_forest(rows):
    x, y = _data()
    forest = RandomForestRegressor(12, max_depth=9, random_state=0).fit(x, y)
    query = _data(rows, seed=1)[0]
    mean, spread = trees_of_sklearn(forest).predict(query, 2)
    each = np.stack([tree.predict(query) for tree in forest.estimators_])
    np.testing.assert_allclose(mean, forest.predict(query), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(spread, each.std(axis=0), rtol=1e-4, atol=2e-4)


def test_a_threshold_that_no_float32_equals():
    """scikit-learn compares with float64; thresholds halfway between neighbouring float32 numbers must not be rounded up."""
    low = np.float32(1)
    high = np.nextafter(low, np.float32(2))
    x = np.array([[low], [high]] * 20, dtype="float32")
    y = np.array([0.0, 1.0] * 20)
    forest = RandomForestRegressor(3, random_state=0).fit(x, y)
    mean, _ = trees_of_sklearn(forest).predict(x[:2], 1)
    assert mean.tolist() == forest.predict(x[:2]).tolist()


def test_ydfs_forest():
    ydf = pytest.importorskip("ydf")
    ydf.verbose(0)
    x, y = _data(features=12)
    model = ydf.RandomForestLearner(label="y", task=ydf.Task.REGRESSION, num_trees=9, num_threads=1).train(
        {"x": x, "y": y}
    )
    query = _data(5000, 12, seed=1)[0]
    mean, spread = trees_of_ydf(model).predict(query, 2)
    np.testing.assert_allclose(mean, model.predict({"x": query}), rtol=1e-5, atol=1e-6)
    assert spread.std() > 0


def test_threads_and_rows_do_not_matter():
    x, y = _data()
    trees = trees_of_sklearn(RandomForestRegressor(8, random_state=0).fit(x, y))
    query = _data(30_000, seed=1)[0]
    whole = trees.predict(query, 1)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(trees.predict(query, threads), whole)
    np.testing.assert_array_equal(trees.predict(query[123:456], 1), np.array(whole)[:, 123:456])


@pytest.mark.parametrize(
    ("name", "place", "value", "said"),
    [
        ("child", 0, 90_000, "points out of its tree"),
        ("child", -1, 4_000_000_000, "a leaf leads on"),
        ("feature", 0, 7, "a feature that is none"),
        ("threshold", -1, 0.0, "points out of its tree"),
        ("depths", 0, 1_000_000, "another depth"),
        ("depths", 0, -1, "another depth"),
        ("starts", -1, 5, "one length"),
        ("starts", 1, -5, "starts outside its arrays"),
    ],
)
def test_trees_that_lead_out_of_themselves_are_refused(tmp_path, name, place, value, said):
    x, y = _data()
    trees = trees_of_sklearn(RandomForestRegressor(2, random_state=0).fit(x, y))
    arrays = {k: v.copy() for k, v in trees.__dict__.items()}
    arrays[name][place] = value
    np.savez(tmp_path / "trees.npz", **arrays)
    with pytest.raises(SmgeoError, match=said):
        Trees.load(tmp_path / "trees.npz", 7)


def test_saved_and_read_they_say_the_same(tmp_path):
    x, y = _data()
    trees = trees_of_sklearn(RandomForestRegressor(5, random_state=0).fit(x, y))
    trees.save(tmp_path / "trees.npz")
    np.testing.assert_array_equal(Trees.load(tmp_path / "trees.npz", 7).predict(x, 2), trees.predict(x, 2))
