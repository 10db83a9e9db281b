"""Folds whose held-out places are as far from training places as the pixels of a map are (kNNDM).

Linnenbrink et al. (2024, Geosci. Model Dev. 17, 5897-5912): k-fold nearest-neighbour distance matching. A score of cross-validation
stands for a map only if estimates are made as far from the training data as on the map. Three distributions of distances to the
nearest training place are compared:

- from prediction points (G_ij in the paper), which is what a map does,
- between training places, each left out (G_j), which is the nearest that folds can come to each other,
- from held-out places to the places of other folds (G_j*).

Numbers in, numbers out. Clusters of any number come from one tree, without random numbers: Ward's, as in the paper, if the groups are
few, and one by repeated division, which takes n log n steps and matches about as well.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial import KDTree
from scipy.stats import ks_2samp, wasserstein_distance

from smgeo.bounds import Bound, check_arguments, check_number
from smgeo.errors import SmgeoError, nearest
from smgeo.prepare.places import arc_m, on_sphere

Space = Literal["geographic", "feature"]
SPACES: tuple[Space, ...] = ("geographic", "feature")
UNITS = {"geographic": "km", "feature": "standard deviations"}
# Largest share of the places in one fold, as in the paper.
MAX_SHARE = 0.5
# Level of the test of clustering, as in the paper.
_LEVEL = 0.05
# Numbers of clusters that are tried, spaced by equal ratios.
_CANDIDATES = 100
# Ward's tree needs the distances of all pairs.
_MOST_FOR_WARD = 3_000
# Neighbours of each place that are found once for all candidates. The nearest place of another fold is mostly among them.
_NEIGHBOURS = 16
# Candidates are compared by so many places: of more, a random part. The distances of the chosen folds are over all places.
_MOST_COMPARED = 20_000
# Distributions of fewer pairs are compared exactly.
_FEW_PAIRS = 10_000
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Match:
    """Folds of places, and how well their distances match those of the prediction points.

    Attributes
    ----------
    fold : numpy.ndarray
        int (places,): number of the fold that holds the place out.
    w : float
        Wasserstein distance between `predicted` and `held_out`, in their unit; 0 if they are alike.
    clusters : int or None
        Number of clusters from which the folds were merged; None for random folds.
    space : str
        `geographic`, in km, or `feature`, in standard deviations of the features.
    predicted : numpy.ndarray
        float64 (prediction points,): distance from each prediction point to the nearest place (G_ij).
    left_out : numpy.ndarray
        float64 (places,): distance from each place to the nearest place of another group (G_j).
    held_out : numpy.ndarray
        float64 (places,): distance from each place to the nearest place of another fold (G_j*).
    features : tuple of str
        Names of the features, where the caller knows them.
    """

    fold: np.ndarray = field(repr=False)
    w: float
    clusters: int | None
    space: Space
    predicted: np.ndarray = field(repr=False)
    left_out: np.ndarray = field(repr=False)
    held_out: np.ndarray = field(repr=False)
    features: tuple[str, ...] = ()

    def summaries(self) -> dict[str, dict[str, float]]:
        """Return mean and quantiles (`q05` to `q95`) of the distributions `predicted`, `left_out` and `held_out`."""
        named = {"predicted": self.predicted, "left_out": self.left_out, "held_out": self.held_out}
        return {
            name: {"mean": float(values.mean())}
            | {
                f"q{round(100 * q):02d}": float(v)
                for q, v in zip(_QUANTILES, np.quantile(values, _QUANTILES), strict=True)
            }
            for name, values in named.items()
        }


def match_folds(
    places: np.ndarray,
    prediction: np.ndarray,
    folds: int,
    *,
    space: Space = "geographic",
    group: np.ndarray | None = None,
    max_share: float = MAX_SHARE,
    seed: int = 0,
) -> Match:
    """Divide places into folds that are as far from each other as prediction points are from places.

    Folds are random if places are not clustered with respect to the prediction points: if a one-sided test of Kolmogorov and Smirnov does
    not find, at 5 %, that distances between places are shorter than those from prediction points. Otherwise the groups are
    divided into clusters by repeated division and, up to 3,000 groups, by Ward's method, for at most 100 numbers of clusters from
    `folds` to the number of groups. The clusters are merged into folds in two ways: dealt, the largest first, each to the fold with the
    fewest places; and in runs of neighbouring clusters. Of these candidates and the random folds, the one with the least W is
    returned, the first of those that are equal. Of more than 20,000 places, 20,000 that are drawn by the seed compare the candidates,
    by their distances to all places; W and the distances that are returned are over all places. All prediction points count.

    Parameters
    ----------
    places : numpy.ndarray
        Training places, float (n, 2): latitude and longitude in degrees. In `feature` space float (n, features), scaled already, see
        `scale_features`.
    prediction : numpy.ndarray
        Prediction points, (m, 2) or (m, features). Points with a missing number are left out.
    folds : int
        Number of folds.
    space : {"geographic", "feature"}
        Great-circle distances in km, or Euclidean distances.
    group : numpy.ndarray, optional
        Number of the group of each place, int (n,); the places of a group share a fold. By default each place is a group.
    max_share : float
        Largest share of the places that one fold may have, rounded up to that of folds of equal numbers.
    seed : int
        Seed of random folds.

    Returns
    -------
    Match

    Raises
    ------
    SmgeoError
        If there are fewer groups than folds, a place lacks a number, all prediction points do, or a group has more than `max_share`
        of the places.
    """
    check_arguments(_WHERE, folds=folds, seed=seed)
    check_number(_WHERE, "max_share", max_share, Bound(0, 1, whole=False, open_low=True))
    if space not in SPACES:
        raise SmgeoError(f"{_WHERE}: unknown space {space!r}; {nearest(str(space), SPACES)}")
    places, prediction = _as_points("places", places, space), _as_points("prediction points", prediction, space)
    if places.shape[1] != prediction.shape[1]:
        raise SmgeoError(
            f"{_WHERE}: places have {places.shape[1]} features and prediction points {prediction.shape[1]}; give both the same"
        )
    number = _numbers(group, len(places))
    _check_places(places, space)
    known = prediction[np.isfinite(prediction).all(axis=1)]
    if not len(known):
        raise SmgeoError(
            f"{_WHERE}: all {len(prediction):,} prediction points lack a number; give points, or a grid, with data"
        )
    sizes = np.bincount(number)
    _check_folds(sizes, folds, max_share)
    if space == "geographic":
        places, known = on_sphere(places), on_sphere(known)
    return _Search(places, known, number, sizes, folds, space, max_share, seed).run()


_WHERE = "cross-validation (knndm)"


def scale_features(
    places: np.ndarray,
    prediction: np.ndarray,
    names: Sequence[str],
    weights: Sequence[float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Standardise features by mean and sample standard deviation of the places, times the weights.

    Parameters
    ----------
    places, prediction : numpy.ndarray
        float (n, features) and (m, features). NaN stays NaN.
    names : sequence of str
        Names of the features, for messages.
    weights : sequence of float, optional
        Weight of each feature, from 0; by default 1.

    Returns
    -------
    (numpy.ndarray, numpy.ndarray)
        float64, of the same shapes.

    Raises
    ------
    SmgeoError
        If a feature is infinite, or constant over the places, or weights are not one number of at least 0 each.
    """
    places, prediction = (np.asarray(values, dtype="float64") for values in (places, prediction))
    for what, values in (("places", places), ("prediction points", prediction)):
        if infinite := _named(names, np.isinf(values).any(axis=0)):
            raise SmgeoError(f"{_WHERE}: features of {what} are infinite: {infinite}; make these values missing")
    if (constant := ~vary(places)).any():
        raise SmgeoError(f"{_WHERE}: features are constant over the places: {_named(names, constant)}; leave them out")
    weight = np.ones(len(names)) if weights is None else np.asarray(weights, dtype="float64")
    if weight.shape != (len(names),) or not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
        raise SmgeoError(
            f"{_WHERE}: weights must be {len(names)} numbers of at least 0, not all 0; one for each feature"
        )
    middle, factor = np.nanmean(places, axis=0), weight / np.nanstd(places, axis=0, ddof=1)
    return (places - middle) * factor, (prediction - middle) * factor


def vary(features: np.ndarray) -> np.ndarray:
    """Return which features (n, features) differ between places by more than rounding, bool (features,); NaN counts as no value."""
    known = np.isfinite(features)
    low, high = np.where(known, features, np.inf).min(axis=0), np.where(known, features, -np.inf).max(axis=0)
    # Means of equal numbers differ in their last digits.
    return np.asarray(high - low > 1e-9 * np.maximum(np.abs(low), np.abs(high)))


def nearest_of_other(points: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance from each point (n, d) to the nearest one with another label (n,), float64 (n,).

    >>> nearest_of_other(np.array([[0.0], [1.0], [5.0]]), np.array([0, 0, 1]))
    array([5., 4., 4.])
    """
    return _of_other(points, label, *_neighbours(points), np.arange(len(points)))


def _neighbours(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distances and positions of the nearest points of each, itself among them, (n, neighbours) each, in order."""
    distance, at = KDTree(points).query(points, k=min(_NEIGHBOURS, len(points)))
    shape = (len(points), -1)
    return np.asarray(distance).reshape(shape), np.asarray(at).reshape(shape)


def _of_other(
    points: np.ndarray, label: np.ndarray, distance: np.ndarray, at: np.ndarray, of: np.ndarray
) -> np.ndarray:
    """Return the distance from the points `of` (positions) to the nearest of all with another label; see `_neighbours`."""
    own = label[of]
    other = label[at[of]] != own[:, None]
    out = np.take_along_axis(distance[of], other.argmax(axis=1)[:, None], axis=1)[:, 0]
    lacking = ~other.any(axis=1)
    for one in np.unique(own[lacking]):
        mine = lacking & (own == one)
        # A tree that is not balanced is made faster, and is asked only once.
        rest = KDTree(points[label != one], balanced_tree=False, compact_nodes=False)
        out[mine] = rest.query(points[of[mine]])[0]
    return out


@dataclass(frozen=True)
class _Search:
    """Arguments of `match_folds` after its checks; points are unit vectors or features."""

    points: np.ndarray
    prediction: np.ndarray
    group: np.ndarray
    sizes: np.ndarray
    folds: int
    space: Space
    max_share: float
    seed: int

    def run(self) -> Match:
        near, every = _neighbours(self.points), np.arange(len(self.points))
        predicted = self._length(KDTree(self.points).query(self.prediction)[0])
        left_out = self._length(_of_other(self.points, self.group, *near, every))
        candidates = self._candidates() if _is_shorter(left_out, predicted) else iter([(None, self._random())])
        count, compared = every.size, every
        if count > _MOST_COMPARED:
            compared = np.random.default_rng(self.seed).permutation(count)[:_MOST_COMPARED]
        best: tuple[float, int | None, np.ndarray] | None = None
        most = max(self.max_share * count, -(-count // self.folds))  # 2 folds of 11 places have 6 and 5
        for clusters, fold_of_group in candidates:
            held = np.bincount(fold_of_group, weights=self.sizes, minlength=self.folds)
            if not held.all() or held.max() > most:
                continue
            fold = fold_of_group[self.group]
            w = self._w(_of_other(self.points, fold, *near, compared), predicted)
            if best is None or w < best[0]:
                best = w, clusters, fold
        if best is None:
            raise SmgeoError(
                f"{_WHERE}: groups of stations are so unequal that a fold would have more than a share of {self.max_share:g} of the "
                f"{count:,} places; make the groups smaller, or use group-k-fold"
            )
        _, clusters, fold = best
        held_out = _of_other(self.points, fold, *near, every)
        w = self._w(held_out, predicted)
        return Match(fold, w, clusters, self.space, predicted, left_out, self._length(held_out))

    def _w(self, distance: np.ndarray, predicted: np.ndarray) -> float:
        return float(wasserstein_distance(self._length(distance), predicted))

    def _length(self, distance: np.ndarray) -> np.ndarray:
        return np.asarray(arc_m(distance) / 1000 if self.space == "geographic" else distance)

    def _random(self) -> np.ndarray:
        order = np.random.default_rng(self.seed).permutation(self.sizes.size)
        return _deal(order, self.sizes, self.folds)

    def _candidates(self) -> Iterator[tuple[int | None, np.ndarray]]:
        """Yield the number of clusters and the fold of each group, from few clusters to many, and random folds last."""
        total = np.stack([np.bincount(self.group, weights=column) for column in self.points.T], axis=1)
        middles, groups = total / self.sizes[:, None], self.sizes.size
        trees = [_divide(middles, self.sizes)]
        if groups <= _MOST_FOR_WARD:
            trees.insert(0, _ward(middles))
        for clusters in np.unique(np.geomspace(self.folds, groups, _CANDIDATES).round().astype(np.intp)):
            for tree in trees:
                label = _cut(*tree, int(clusters))
                yield int(clusters), _deal(label, self.sizes, self.folds)
                yield int(clusters), _run(label, self.sizes, self.folds)
        yield None, self._random()


def _is_shorter(distance: np.ndarray, than: np.ndarray) -> bool:
    """Return True if a one-sided test of Kolmogorov and Smirnov finds the first distances shorter than the others."""
    method = "exact" if distance.size * than.size < _FEW_PAIRS else "asymp"
    return bool(ks_2samp(distance, than, alternative="greater", method=method).pvalue < _LEVEL)


def _deal(cluster: np.ndarray, sizes: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold of each group, int (groups,): clusters go to the fold with the fewest places, the largest first.

    Clusters of one size are dealt in the order of their numbers, so folds get equal numbers of them in turn.

    >>> _deal(np.array([0, 1, 2, 2]), np.array([1, 1, 1, 1]), 2).tolist()
    [1, 1, 0, 0]
    """
    size = np.bincount(cluster, weights=sizes)
    fold = np.empty(size.size, dtype=np.intp)
    loads = [(0.0, number) for number in range(folds)]
    for one in np.argsort(-size, kind="stable"):
        load, number = loads[0]
        fold[one] = number
        heapq.heapreplace(loads, (load + float(size[one]), number))
    return np.asarray(fold[cluster])


def _run(cluster: np.ndarray, sizes: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold of each group, int (groups,): runs of clusters in the order of their numbers, with about as many places each.

    >>> _run(np.array([0, 1, 2, 2]), np.array([1, 1, 1, 1]), 2).tolist()
    [0, 0, 1, 1]
    """
    size = np.bincount(cluster, weights=sizes)
    middle = (np.cumsum(size) - size / 2) / size.sum()
    return np.asarray((middle * folds).astype(np.intp)[cluster])


def _cut(order: np.ndarray, cuts: np.ndarray, clusters: int) -> np.ndarray:
    """Return the cluster of each point, numbered in the order of the tree, after the first cuts of it."""
    starts = np.zeros(order.size, dtype=np.intp)
    starts[cuts[: clusters - 1]] = 1
    label = np.empty(order.size, dtype=np.intp)
    label[order] = np.cumsum(starts)
    return label


def _ward(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the tree of Ward's method as `_divide` does; the last merger is the first cut."""
    joined = linkage(points, method="ward")
    order, count = leaves_list(joined), len(points)
    start = np.empty(2 * count - 1, dtype=np.intp)  # position of the first leaf of each node
    start[order] = np.arange(count)
    left, right = joined[:, 0].astype(np.intp), joined[:, 1].astype(np.intp)
    for node in range(count - 1):
        start[count + node] = start[left[node]]
    return order, start[right][::-1]


def _divide(points: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide points again and again, always the cluster with the largest sum of squares about its mean.

    A cluster is cut across its longest principal axis, where the sum of squares within the two parts is least.

    Parameters
    ----------
    points, sizes : numpy.ndarray
        (n, d) and the weight of each, (n,).

    Returns
    -------
    order, cuts : numpy.ndarray
        Points in the order of the tree, int (n,), and the position in it of each cut, int (n - 1,), the first cut first. The first
        q - 1 cuts leave q clusters.
    """
    order = np.arange(len(points))
    cuts = np.empty(max(len(points) - 1, 0), dtype=np.intp)
    heap = [(0.0, 0, len(points))]
    for k in range(cuts.size):
        _, start, end = heapq.heappop(heap)
        rows = order[start:end]
        ranked, cut = _halve(points[rows], sizes[rows])
        order[start:end] = rows = rows[ranked]
        cuts[k] = start + cut
        for low, high in ((0, cut), (cut, len(rows))):
            if high - low > 1:
                part = rows[low:high]
                heapq.heappush(heap, (-_scatter(points[part], sizes[part]), start + low, start + high))
    return order, cuts


def _scatter(points: np.ndarray, sizes: np.ndarray) -> float:
    """Return the weighted sum of squares about the mean."""
    away = points - sizes @ points / sizes.sum()
    return float(sizes @ np.einsum("ij,ij->i", away, away))


def _halve(points: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the order of points along their longest principal axis, and the number of points before the best cut."""
    if len(points) == 2:
        return np.arange(2), 1
    away = points - sizes @ points / sizes.sum()
    axis = np.linalg.eigh((away * sizes[:, None]).T @ away)[1][:, -1]
    along = away @ (axis * np.sign(axis[np.abs(axis).argmax()]))  # an axis has no direction of its own
    order = np.argsort(along, kind="stable")
    weight, moment = np.cumsum(sizes[order])[:-1], np.cumsum((sizes * along)[order])[:-1]
    # `along` has a weighted mean of 0, so the sum of squares between the parts is moment² / weight + moment² / rest.
    between = moment**2 * (1 / weight + 1 / (sizes.sum() - weight))
    # Points at one place have no best cut; halves keep the tree low.
    return order, int(between.argmax()) + 1 if between.any() else len(points) // 2


def _as_points(what: str, values: np.ndarray, space: Space) -> np.ndarray:
    try:
        points = np.asarray(values, dtype="float64")
    except (TypeError, ValueError):
        raise SmgeoError(f"{_WHERE}: {what} must be an array of numbers") from None
    wide = "2), latitude and longitude in degrees" if space == "geographic" else "features)"
    if points.ndim != 2 or points.shape[1] < 1 or (space == "geographic" and points.shape[1] != 2):
        raise SmgeoError(f"{_WHERE}: {what} must have the shape (n, {wide}; got {points.shape}")
    if space == "geographic" and (np.abs(points[:, 0]) > 90).any():
        raise SmgeoError(f"{_WHERE}: {what} have latitudes beyond 90 degrees; the order is latitude, longitude")
    return points


def _numbers(group: np.ndarray | None, places: int) -> np.ndarray:
    if group is None:
        return np.arange(places)
    if np.shape(group) != (places,):
        raise SmgeoError(f"{_WHERE}: group must have one number for each of {places} places; got {np.shape(group)}")
    return np.asarray(np.unique(group, return_inverse=True)[1])


def _check_places(places: np.ndarray, space: Space) -> None:
    if lacking := int((~np.isfinite(places).all(axis=1)).sum()):
        what = "latitude and longitude" if space == "geographic" else "a value of every feature"
        raise SmgeoError(
            f"{_WHERE}: needs {what} of every place with a target; {lacking:,} of {len(places):,} lack it; add the values, leave these "
            "stations out, or use group-k-fold"
        )


def _check_folds(sizes: np.ndarray, folds: int, max_share: float) -> None:
    if folds > sizes.size:
        raise SmgeoError(
            f"{_WHERE}: {folds} folds of {sizes.size} groups with a target; folds must be from 2 to {sizes.size}"
        )
    if max_share * folds < 1:
        raise SmgeoError(
            f"{_WHERE}: {folds} folds of at most {max_share:g} of the places cannot have all of them; max_share must be at least "
            f"{1 / folds:.3g}"
        )


def _named(names: Sequence[str], which: np.ndarray) -> str:
    return ", ".join(name for name, there in zip(names, which, strict=True) if there)
