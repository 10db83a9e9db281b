"""Regression trees as arrays, evaluated by compiled code: their mean and spread, many rows at once.

The code is our own because it predicts at 3.4 times the rate of scikit-learn's forest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from struct import Struct
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

import numpy as np

from smgeo.errors import SmgeoError
from smgeo.models.arrays import read_arrays, write_arrays
from smgeo.threads import compiled, map_threads

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestRegressor
    from ydf import RandomForestModel
    from ydf.model.tree.node import AbstractNode

_TYPES = {
    "feature": "uint16",
    "threshold": "float32",
    "child": "uint32",
    "value": "float32",
    "starts": "int64",
    "depths": "int64",
}
# Rows whose features stay in a core's cache while all trees are evaluated, and rows that go down a tree together, so that the
# processor does not wait for one node after the other.
_BLOCK, _ABREAST = 8192, 16
# What ydf's files of nodes begin with: a sequence of blobs, version 1, not compressed.
_BLOBS = b"BS\x01\x00\x00\x00\x00\x00"
# Levels of a tree in a file, at most: a row goes down all of them.
_DEEPEST = 1000


# Arrays of a node.
NODE_BYTES = 16
# Features that a node can name.
_MOST_FEATURES = 2**16


def check_width(kind: str, features: int) -> None:
    """Refuse rows of more features than a node can name."""
    if features > _MOST_FEATURES:
        raise SmgeoError(f"{kind}: rows of {features:,} features; trees compare at most {_MOST_FEATURES:,}")


@dataclass(frozen=True, eq=False)
class Trees:
    """Binary trees whose nodes are stored level by level; a row goes right if its feature is above the threshold.

    Attributes
    ----------
    feature : numpy.ndarray of uint16
        Feature that each node compares.
    threshold : numpy.ndarray of float32
        Infinite in leaves, so that no row leaves them.
    child : numpy.ndarray of uint32
        Position in the tree of the left child, which the right child follows; for a leaf its own.
    value : numpy.ndarray of float32
        Estimate of a leaf.
    starts : numpy.ndarray of int64
        First node of each tree, and the number of nodes.
    depths : numpy.ndarray of int64
        Levels below the root.
    """

    feature: np.ndarray
    threshold: np.ndarray
    child: np.ndarray
    value: np.ndarray
    starts: np.ndarray
    depths: np.ndarray

    @classmethod
    def of(cls, trees: Sequence[tuple[np.ndarray, ...]]) -> Self:
        """Convert (left, right, feature, threshold, value) of the nodes of each tree, in any order, the root first; leaves have left -1."""
        parts = [_by_level(*tree) for tree in trees]
        feature, threshold, child, value = (np.concatenate(c) for c in zip(*(nodes for nodes, _ in parts), strict=True))
        starts = np.cumsum([0, *(len(nodes[0]) for nodes, _ in parts)])
        depths = np.array([depth for _, depth in parts], dtype=np.int64)
        return cls(feature, threshold, child, value, starts, depths)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return all trees of several."""
        starts = np.cumsum([0, *(part.starts[-1] for part in parts)])
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _TYPES if name != "starts"}
        return cls(
            **arrays, starts=np.concatenate([[0], *(p.starts[1:] + s for p, s in zip(parts, starts, strict=False))])
        )

    def predict(self, x: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation over the trees for rows (n, features) float32: (n,) float32 each, for any number of threads."""
        mean, square = self._add_up(x, threads) / len(self.depths)
        return mean.astype("float32"), np.sqrt(np.maximum(square - mean**2, 0)).astype("float32")

    def total(self, x: np.ndarray, threads: int) -> np.ndarray:
        """Return the sum of all trees for rows (n, features) float32: (n,) float64, for any number of threads."""
        return np.asarray(self._add_up(x, threads)[0])

    def _add_up(self, x: np.ndarray, threads: int) -> np.ndarray:
        """Return sums of the trees' estimates and of their squares, (2, n) float64."""
        x = np.ascontiguousarray(x, dtype="float32")
        if x.shape[1] < self._width:
            raise ValueError(f"the trees compare more than {x.shape[1]} features")
        sums = np.zeros((2, len(x)))
        bounds = np.linspace(0, len(x), max(min(threads, -(-len(x) // _BLOCK)), 1) + 1).astype(int)

        def work(span: tuple[int, int]) -> None:
            first, last = span
            part = x[first:last].reshape(-1), x.shape[1], sums[:, first:last]
            _walk(*part, self.feature, self.threshold, self.child, self.value, self.starts, self.depths)

        map_threads(work, pairwise(bounds.tolist()), len(bounds) - 1)
        return sums

    @cached_property
    def _width(self) -> int:
        return int(self.feature.max()) + 1

    def save(self, file: Path) -> None:
        """Write to a file `.npz`, without pickle."""
        write_arrays(file, {name: getattr(self, name) for name in _TYPES})

    @classmethod
    def load(cls, file: Path, features: int) -> Self:
        """Return the trees that `save` wrote, over so many features.

        Raises
        ------
        SmgeoError
            If the file is another, or damaged: compiled code follows the arrays without checks.
        """
        try:
            arrays = read_arrays(file)
            trees = cls(**{name: arrays[name] for name in _TYPES})
            trees._check(features)
        except (ValueError, KeyError) as error:
            raise SmgeoError(
                f"{file} contains no trees over {features} features ({error}); train the model again"
            ) from None
        return trees

    def _check(self, features: int) -> None:
        """Refuse arrays that would lead a row out of its tree."""
        for name, dtype in _TYPES.items():
            if (array := getattr(self, name)).dtype != dtype or array.ndim != 1:
                raise ValueError(f"{name} is {array.dtype} with {array.ndim} dimensions")
        if (self.starts < 0).any() or (self.starts > len(self.feature)).any():  # else their differences may wrap
            raise ValueError("a tree starts outside its arrays")
        sizes = np.diff(self.starts)
        nodes = [len(getattr(self, n)) for n in ("feature", "threshold", "child", "value")]
        if (
            not len(sizes)
            or len(self.depths) != len(sizes)
            or self.starts[0] != 0
            or set(nodes) != {int(self.starts[-1])}
        ):
            raise ValueError("its arrays are not of one length")
        if (sizes < 1).any() or self.feature.max() >= features:
            raise ValueError("a tree without nodes, or a node that compares a feature that is none")
        if not np.array_equal(self._find_depths(np.repeat(self.starts[:-1], sizes)), self.depths):
            raise ValueError("a tree has another depth than the file says")

    def _find_depths(self, first: np.ndarray) -> np.ndarray:
        """Return the levels of each tree, whose first node is `first` for each node, after every node was found to have its place."""
        number = np.arange(len(first))
        left, splits = first + self.child, self.threshold < np.inf
        last = np.repeat(self.starts[1:], np.diff(self.starts)) - 1
        if (left[~splits] != number[~splits]).any():
            raise ValueError("a leaf leads on")
        if ((left <= number) | (left >= last))[splits].any():  # the right child follows the left one
            raise ValueError("a node points out of its tree")
        parents = np.bincount(left[splits], minlength=len(first)) + np.bincount(left[splits] + 1, minlength=len(first))
        if not np.array_equal(parents, (number != first).astype(int)):
            raise ValueError("a node has no parent, or two")
        depths, level = np.zeros(len(self.starts) - 1, dtype=np.int64), self.starts[:-1]
        for depth in range(_DEEPEST + 1):
            depths[np.searchsorted(self.starts, level, side="right") - 1] = depth
            level = left[level[splits[level]]]
            if not level.size:
                return depths
            level = np.concatenate([level, level + 1])
        raise ValueError(f"a tree has more than {_DEEPEST} levels")


@compiled()
def _walk(
    x: np.ndarray,
    width: int,
    sums: np.ndarray,
    feature: np.ndarray,
    threshold: np.ndarray,
    child: np.ndarray,
    value: np.ndarray,
    starts: np.ndarray,
    depths: np.ndarray,
) -> None:
    """Add each tree's estimate and its square to `sums` (2, rows), tree after tree; `x` contains the rows one after the other."""
    rows = sums.shape[1]
    at = np.zeros(_ABREAST, dtype=np.uint32)
    begin = np.arange(_ABREAST).astype(np.uint32) * np.uint32(width)
    for block in range(0, rows, _BLOCK):
        end = min(block + _BLOCK, rows)
        for tree in range(len(depths)):
            first, last = starts[tree], starts[tree + 1]
            of, above, left, leaf = feature[first:last], threshold[first:last], child[first:last], value[first:last]
            for row in range(block, end, _ABREAST):
                count = min(_ABREAST, end - row)
                here = x[row * width : (row + count) * width]
                at[:] = 0
                if count == _ABREAST:  # a loop of known length, which the compiler turns into vector instructions
                    for _ in range(depths[tree]):
                        for k in range(_ABREAST):
                            node = at[k]
                            at[k] = left[node] + np.uint32(here[begin[k] + np.uint32(of[node])] > above[node])
                else:
                    for _ in range(depths[tree]):
                        for k in range(count):
                            node = at[k]
                            at[k] = left[node] + np.uint32(here[begin[k] + np.uint32(of[node])] > above[node])
                for k in range(count):
                    estimate = np.float64(leaf[at[k]])
                    sums[0, row + k] += estimate
                    sums[1, row + k] += estimate * estimate


def _by_level(
    left: np.ndarray, right: np.ndarray, feature: np.ndarray, threshold: np.ndarray, value: np.ndarray
) -> tuple[list[np.ndarray], int]:
    """Return feature, threshold, child and value of the nodes level by level, siblings side by side; and the depth."""
    place = np.zeros(len(left), dtype=np.int64)
    level, count, depth = np.zeros(1, dtype=np.int64), 1, 0
    while (inner := level[left[level] >= 0]).size:
        level = np.stack([left[inner], right[inner]], axis=1).ravel()
        place[level] = np.arange(count, count + len(level))
        count, depth = count + len(level), depth + 1
    splits = left >= 0
    out = [np.empty(len(left), dtype=t) for t in ("uint16", "float32", "uint32", "float32")]
    out[0][place] = np.where(splits, feature, 0)
    out[1][place] = np.where(splits, threshold, np.inf)
    out[2][place] = np.where(splits, place[left], place)
    out[3][place] = value
    return out, depth


def trees_of_sklearn(forest: RandomForestRegressor) -> Trees:
    """Return the trees of a fitted `sklearn.ensemble.RandomForestRegressor`."""
    trees = []
    for estimator in forest.estimators_:
        tree = estimator.tree_
        above = float32_below(tree.threshold)
        trees.append((tree.children_left, tree.children_right, tree.feature, above, tree.value[:, 0, 0]))
    return Trees.of(trees)


def float32_below(threshold: np.ndarray) -> np.ndarray:
    """Return the largest float32 that is not above each float64: comparing float32 features with it gives the same.

    >>> float32_below(np.array([0.5, 0.1])) <= np.array([0.5, 0.1])
    array([ True,  True])
    """
    single = threshold.astype("float32")
    return np.where(single > threshold, np.nextafter(single, np.float32(-np.inf)), single)


def trees_of_ydf(model: RandomForestModel) -> Trees:
    """Return the trees of a ydf model whose conditions are all of the kind `feature >= threshold`.

    They are read from the file that ydf writes, some seven times as fast as node by node; node by node if the file has another form.
    """
    columns = {column: i for i, column in enumerate(model.input_features_col_idxs())}
    with TemporaryDirectory() as folder:
        model.save(str(Path(folder) / "model"))
        files = sorted((Path(folder) / "model").glob("nodes-*"))
        contents = [file.read_bytes() for file in files]
    if all(content.startswith(_BLOBS) for content in contents):
        trees = list(_trees_of_blobs(contents, columns))
        if len(trees) == model.num_trees():
            return Trees.of(trees)
    return Trees.of([_tree_of_ydf(tree.root, columns) for tree in model.iter_trees()])


def _trees_of_blobs(contents: Sequence[bytes], columns: dict[int, int]) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the trees of ydf's files: a protocol buffer a node, after its length; a node, all below its negative child, all below the other."""
    from yggdrasil_decision_forests.model.decision_tree.decision_tree_pb2 import Node

    length, parse = Struct("<I").unpack_from, Node.FromString
    left: list[int] = []
    right: list[int] = []
    feature: list[int] = []
    number: list[float] = []
    waiting: list[int] = []  # inner nodes whose positive child is to come
    for content in contents:
        at = len(_BLOBS)
        while at < len(content):
            (size,) = length(content, at)
            node = parse(content[at + 4 : at + 4 + size])
            at += 4 + size
            here = len(left)
            if node.HasField("condition"):
                left.append(here + 1)
                right.append(-1)
                condition = node.condition.condition
                if not condition.HasField("higher_condition"):
                    raise ValueError("a condition that is no threshold")
                feature.append(columns[node.condition.attribute])
                number.append(condition.higher_condition.threshold)
                waiting.append(here)
                continue
            left.append(-1)
            right.append(-1)
            feature.append(0)
            number.append(node.regressor.top_value)
            if waiting:
                right[waiting.pop()] = here + 1
                continue
            leaf, numbers = np.array(left) < 0, np.array(number, dtype="float32")
            yield np.array(left), np.array(right), np.array(feature), _below(numbers), np.where(leaf, numbers, 0)
            left, right, feature, number = [], [], [], []


def _below(threshold: np.ndarray) -> np.ndarray:
    """Return the largest float32 below each: `>= threshold` is `>` that."""
    return np.asarray(np.nextafter(threshold, np.float32(-np.inf)))


def _tree_of_ydf(root: AbstractNode, columns: dict[int, int]) -> tuple[np.ndarray, ...]:
    left: list[int] = []
    right: list[int] = []
    feature: list[int] = []
    threshold: list[float] = []
    value: list[float] = []
    waiting: list[tuple[AbstractNode, int, list[int]]] = [(root, -1, left)]
    while waiting:
        node, parent, side = waiting.pop()
        number = len(left)
        if parent >= 0:
            side[parent] = number
        left.append(-1)
        right.append(-1)
        feature.append(0)
        threshold.append(0.0)
        value.append(0.0)
        if node.is_leaf:
            value[number] = node.value.value
            continue
        feature[number] = columns[node.condition.attribute]
        threshold[number] = node.condition.threshold
        waiting += [(node.pos_child, number, right), (node.neg_child, number, left)]
    below = _below(np.array(threshold, dtype="float32"))
    return np.array(left), np.array(right), np.array(feature), below, np.array(value, dtype="float32")
