"""The area of applicability against brute force by hand, and against what R's CAST prints."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

from smgeo.errors import SmgeoError
from smgeo.models.applicability import Applicability


def _by_hand(x, fold, weights, query):
    """Loops over all pairs, as the paper has it."""
    center, scale = x.mean(axis=0), x.std(axis=0, ddof=1)
    weights = np.maximum(weights, 0)
    points, asked = ((v - center) / scale * weights for v in (x, query))

    def apart(a, b):
        return float(np.sqrt(((a - b) ** 2).sum()))

    n = len(points)
    mean = np.mean([np.mean([apart(points[i], points[j]) for j in range(n) if j != i]) for i in range(n)])
    own = [min(apart(points[i], points[j]) for j in range(n) if fold[j] != fold[i]) / mean for i in range(n)]
    box = np.quantile(own, [0.25, 0.75])
    threshold = min(box[1] + 1.5 * (box[1] - box[0]), max(own))
    return threshold, [min(apart(a, p) for p in points) / mean for a in asked]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("folds", [3, 40])
def test_equals_brute_force(seed, folds):
    rng = np.random.default_rng(seed)
    x, query = rng.normal(size=(40, 5)) * [1, 10, 0.1, 3, 1] + 7, rng.normal(size=(60, 5)) * [2, 20, 0.2, 6, 2] + 7
    weights, fold = np.array([1.0, 0.5, 0.0, 2.0, -1.0]), np.arange(40) % folds
    area = Applicability.learn(x, fold, list("abcde"), weights)
    threshold, index = _by_hand(x, fold, weights, query)
    assert area.threshold == pytest.approx(threshold, rel=1e-5)
    np.testing.assert_allclose(area.index(query.astype("float32")), index, rtol=1e-4, atol=1e-5)
    inside = area.inside(query.astype("float32"))
    assert inside.tolist() == (np.array(index) <= threshold).astype(float).tolist()
    assert 0 < inside.mean() < 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [5, 30, 3000])
def test_the_flag_is_the_index_below_the_threshold(seed, size):
    """Rows in an order as of a map, each near to the one before, some of them far from all training rows."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(size, 11)) * rng.lognormal(size=11)).astype("float32")
    x[size // 2] = x[0]  # the same row twice
    area = Applicability.learn(x, np.arange(size) % min(size, 5), list("abcdefghijk"), rng.lognormal(size=11))
    walk = np.cumsum(rng.normal(size=(4000, 11)) * 0.2, axis=0) * x.std(axis=0)
    query = np.concatenate([walk, x, x + 1e-3, x * 40]).astype("float32")
    inside = area.inside(query)
    index = area.index(query)
    clear = np.abs(index - area.threshold) > 1e-5 * area.threshold
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(inside[clear], (index <= area.threshold)[clear])
    assert 0 < inside.mean() < 1
    # Whatever rows come before.
    np.testing.assert_array_equal(area.inside(query[::-1]), inside[::-1])


@pytest.mark.parametrize("seed", range(4))
def test_the_density_counts_places_with_a_row_within_the_threshold(seed):
    """Sixty rows at twelve places, against loops over all pairs; each query near to the one before."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.arange(60) % 12) * 7
    x = rng.normal(size=(60, 3)) + rng.normal(size=(90, 3))[group]
    area = Applicability.learn(x, group % 5, list("abc"), np.array([1.0, 2.0, 0.5]), group=group)
    query = np.cumsum(rng.normal(size=(300, 3)) * 0.3, axis=0)
    center, scale = x.mean(axis=0), x.std(axis=0, ddof=1) / np.array([1.0, 2.0, 0.5])
    points, asked = (x - center) / scale, (query - center) / scale
    near = np.sqrt(((asked[:, None] - points) ** 2).sum(axis=2)) / area.mean_distance <= area.threshold
    expected = [len(set(group[row])) for row in near]
    assert area.local_point_density(query.astype("float32")).tolist() == expected
    assert (area.inside(query.astype("float32")) == (np.array(expected) > 0)).all()
    assert len(set(expected)) > 4


def test_expected_errors_are_those_of_held_out_places_and_never_fall():
    """Ten places in two ranges of the index, by hand; a place's rows share its weight, and training places do not see their own fold."""
    x = np.arange(10.0)[:, None]
    area = Applicability.learn(x, np.arange(10) % 2, ["a"], np.ones(1))
    width = 1 / x.std(ddof=1) / area.mean_distance
    assert area.threshold == pytest.approx(width)  # each row is one away from those of the other fold
    at = np.array([0.1, 0.1, 1.2, 2.1, 3.1, 4.2, 5.4, 6.4, 7.6, 8.6, 5.5, 200.0])[:, None]
    place = np.array([10, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
    errors = np.array([3.0, 1.0, 2.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 99.0])
    learned = area.learn_errors(at, errors, place, np.full(12, -1))
    # The lowest five: indices 0.1 (place 10), 0.1, 0.1, 0.2, 0.2, mean squares 5, 4, 4, 4, 4; the place far away is not inside.
    np.testing.assert_allclose(learned.error, [np.sqrt(21 / 5), 4])
    np.testing.assert_allclose(learned.error_index, np.array([0.14, 0.42]) * width, rtol=1e-5)
    index = np.array([0, 0.14, 0.28, 0.42, 0.99, 1.01]) * width
    found = learned.expected_error(index.astype("float32"))
    np.testing.assert_allclose(found[:5], [np.sqrt(4.2), np.sqrt(4.2), (np.sqrt(4.2) + 4) / 2, 4, 4], rtol=1e-5)
    assert np.isnan(found[5])
    # Errors that fall with the index say the same at all of them: the root of the mean square.
    flat = area.learn_errors(at, errors[::-1], place[::-1], np.full(12, -1))
    assert flat.error[0] == pytest.approx(flat.error[-1])
    with pytest.raises(SmgeoError, match="knows no errors at five held-out places or more"):
        area.expected_error(index)


def test_rows_with_one_index_have_one_expected_error(tmp_path):
    """Most places are like a training row, with errors in any order: their pooled error, whatever comes first; and the file is read."""
    x = np.repeat(np.arange(10.0), 4)[:, None]
    area = Applicability.learn(x, np.arange(40) % 8, ["a"], np.ones(1))
    at = np.concatenate([x, [[0.3], [1.4], [2.3], [3.4], [4.3]]])
    errors = np.concatenate([np.linspace(1, 4, 40), np.full(5, 9.0)])
    for order in (np.arange(45), np.arange(45)[::-1], np.random.default_rng(0).permutation(45)):
        learned = area.learn_errors(at[order], errors[order], order, np.full(45, -1))
        pooled = np.sqrt(np.mean(np.linspace(1, 4, 40) ** 2))
        assert learned.expected_error(np.zeros(1, dtype="float32"))[0] == pytest.approx(pooled, rel=1e-6)
        Applicability.load(tmp_path / "a.npz", learned.save(tmp_path / "a.npz"))
    # A transect at equal steps: indices that differ by rounding alone.
    steps = 0.1 * np.arange(120)[:, None]
    area = Applicability.learn(steps, np.arange(120) % 5, ["a"], np.ones(1))
    trained = [np.flatnonzero(np.arange(120) % 5 != k) for k in range(5)]
    learned = area.learn_errors(steps, np.ones(120), np.arange(120), np.arange(120) % 5, trained)
    np.testing.assert_allclose(learned.error, 1)
    Applicability.load(tmp_path / "b.npz", learned.save(tmp_path / "b.npz"))


def test_few_places_tell_of_no_error():
    area = Applicability.learn(np.arange(10.0)[:, None], np.arange(10) % 2, ["a"], np.ones(1))
    learned = area.learn_errors(np.arange(4.0)[:, None], np.ones(4), np.arange(4), np.full(4, -1))
    with pytest.raises(SmgeoError, match="five held-out places"):
        learned.expected_error(np.zeros(1))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 0.7, 0.3)])
def test_classes_that_training_rows_share_are_inside_at_a_threshold_of_nothing(weights):
    """Features of a few classes: training rows have others of the same classes, and the threshold is 0 or one of few distances."""
    rng = np.random.default_rng(3)
    x = np.round(rng.integers(0, 3, size=(200, 3)) * [0.1, 7.3, 1000.7], 3)
    fold = np.arange(200) % 5
    area = Applicability.learn(x, fold, list("abc"), np.array(weights))
    query = np.concatenate([x, np.round(rng.integers(0, 5, size=(2000, 3)) * [0.1, 7.3, 1000.7], 3)]).astype("float32")
    inside = area.contains(area.index(query))
    assert inside[:200].all()
    assert (area.inside(query) == inside).all()
    assert ((area.local_point_density(query) > 0) == inside).all()
    points = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1) * weights
    asked = (query.astype("float64") - x.mean(axis=0)) / x.std(axis=0, ddof=1) * weights
    apart = np.sqrt(((asked[:, None] - points) ** 2).sum(axis=2)) / area.mean_distance
    assert (area.local_point_density(query) == (apart <= area.threshold + 1e-5).sum(axis=1)).all()


def test_a_number_too_large_to_be_compared_is_outside():
    """An undeclared nodata value, with a feature in fractions: its square has no float32."""
    x = np.random.default_rng(0).random((30, 2))
    area = Applicability.learn(x, np.arange(30), ["a", "b"], np.ones(2))
    query = np.array([[0.5, 0.5], [-3.4028235e38, 0.5]], dtype="float32")
    assert area.index(query)[1] == np.inf
    assert area.inside(query)[1] == area.local_point_density(query)[1] == 0
    assert area.index(query)[0] < 1


def test_rows_are_compared_with_those_they_may_be_compared_with():
    """Pairs of near rows: without the other of each pair, all are as far as the pairs are from each other."""
    x = np.sort(np.concatenate([np.arange(8.0), np.arange(8.0) + 0.01]))[:, None]
    fold = np.arange(16) % 4
    plain = Applicability.learn(x, fold, ["a"], np.ones(1))
    apart = {f: (fold != f) & ~np.isin(np.arange(16) // 2, np.flatnonzero(fold == f) // 2) for f in range(4)}
    farther = Applicability.learn(x, fold, ["a"], np.ones(1), compared=apart)
    assert farther.threshold == pytest.approx(plain.threshold * 99, rel=0.02)
    with pytest.raises(SmgeoError, match="no training row is far enough from another"):
        Applicability.learn(x, fold, ["a"], np.ones(1), compared=dict.fromkeys(range(4), np.zeros(16, dtype=bool)))


def test_held_out_training_places_are_compared_with_other_folds():
    """A place that was left out with its neighbour has the third as the nearest, two away, which is outside the area."""
    x = np.arange(10.0)[:, None]
    area = Applicability.learn(x, np.arange(10) % 2, ["a"], np.ones(1))
    fold = np.array([0, 0, 1, 1, 1, 2, 2, 2, 3, 3])
    trained = [np.flatnonzero(fold != k) for k in range(4)]
    # 0, 3, 6 and 9 are two away from other folds; the others one.
    found = area.learn_errors(x, np.array([9.0, 1, 1, 9, 1, 1, 9, 1, 1, 9]), np.arange(10), fold, trained)
    np.testing.assert_allclose(found.error, 1)


def test_saved_and_read_it_says_the_same(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 3)).astype("float32")
    area = Applicability.learn(x, np.arange(30) % 5, ["a", "b", "c"], np.array([1.0, 2, 3]), rows=900, stations=7)
    again = Applicability.load(tmp_path / "a.npz", area.save(tmp_path / "a.npz"))
    query = rng.normal(size=(50, 3)).astype("float32")
    np.testing.assert_array_equal(again.index(query), area.index(query))
    np.testing.assert_array_equal(again.local_point_density(query), area.local_point_density(query))
    assert (again.threshold, again.rows, again.stations, again.folds) == (area.threshold, 900, 7, 5)
    assert again.features == ("a", "b", "c")


def test_a_file_whose_arrays_do_not_belong_together_is_refused(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 3))
    area = Applicability.learn(x, np.arange(30) % 5, ["a", "b", "c"], np.array([1.0, 2, 0]))
    about = area.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        good = dict(arrays)
    for changes in (
        {"reference": good["reference"][:, :1]},
        {"reference": good["reference"].astype("float64")},
        {"reference": good["reference"][:0]},
        {"weights": np.array([1.0, 2, 3])},
        {"center": good["center"][:2]},
        {"more": np.zeros(1)},
        {"group": good["group"][:3]},
        {"group": good["group"].astype("float64")},
        {"error": np.array([0.1])},
        {"error_index": np.array([0.2, 0.1]), "error": np.array([0.1, 0.2])},
        {"error_index": np.array([0.1, 0.2]), "error": np.array([0.1, np.nan])},
        {"error_index": np.arange(30.0), "error": np.arange(30.0)},
        {"error_index": np.array([0.1]), "error": np.array([1e300])},
    ):
        np.savez(tmp_path / "bad.npz", **{**good, **changes})
        with pytest.raises(SmgeoError, match="contains no area of applicability"):
            Applicability.load(tmp_path / "bad.npz", about)
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(SmgeoError, match="contains no area of applicability"):
        Applicability.load(tmp_path / "bad.npz", about)


def test_a_feature_that_never_varied_does_not_count():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=30), np.full(30, 4.0)])
    area = Applicability.learn(x, np.arange(30), ["a", "b"], np.ones(2))
    far = np.array([[x[0, 0], 900.0]], dtype="float32")
    assert area.index(far)[0] == pytest.approx(0, abs=1e-5)


def test_what_makes_no_area_is_refused():
    x = np.random.default_rng(0).normal(size=(10, 2))
    with pytest.raises(SmgeoError, match="two or more folds"):
        Applicability.learn(x, np.zeros(10), ["a", "b"], np.ones(2))
    with pytest.raises(SmgeoError, match="a weight above 0"):
        Applicability.learn(x, np.arange(10), ["a", "b"], np.array([0.0, -1.0]))


def test_cook_farm_gives_the_figures_that_cast_publishes():
    """CAST 0.9 prints them in its own test (tests/testthat/test-aoa.R): 30 loggers, DEM, NDRE.Sd and TWI, no weights, no folds."""
    root = Path(os.environ.get("SMGEO_DATA", "no such folder")) / "cookfarm"
    if not root.is_dir():
        if os.environ.get("CI"):
            pytest.fail("SMGEO_DATA does not name the folder with the real data")
        pytest.skip("needs the Cook Farm data in $SMGEO_DATA")
    table = pd.read_csv(root / "cookfarm.csv.gz", usecols=["SOURCEID", "Easting", "Northing"])
    loggers = table.groupby("SOURCEID").mean().sort_index().iloc[:30]
    names = ["DEM", "NDRE.Sd", "TWI"]
    with rasterio.open(root / "predictors_2012-03-25.tif") as src:
        bands = np.stack([src.read(src.descriptions.index(n) + 1, masked=True).filled(np.nan) for n in names], axis=-1)
        places = [src.index(x, y) for x, y in loggers.to_numpy()]
    x = np.array([bands[place] for place in places])
    area = Applicability.learn(x, np.arange(30), names, np.ones(3))
    pixels = bands[np.isfinite(bands).all(axis=-1)]
    index = area.index(pixels)
    assert bands[..., 0].size - len(pixels) == 1993
    assert round(area.threshold, 5) == 0.52872
    assert int(area.inside(pixels).sum()) == 3377
    said = [index.min(), *np.quantile(index, [0.25, 0.5]), index.mean(), np.quantile(index, 0.75), index.max()]
    # trainLPD of the same file: of each logger, how many others are similar.
    expected = [7, 9, 12, 1, 12, 12, 4, 2, 8, 10, 6, 1, 3, 4, 11, 9, 9, 7, 5, 5, 6, 5, 0, 5, 9, 8, 4, 11, 3, 2]
    assert (area.local_point_density(x) - 1).tolist() == expected
    np.testing.assert_allclose(said, [0, 0.1759, 0.2642, 0.3109, 0.4051, 2.6631], atol=5.1e-5)
