"""scikit-learn's estimators as JSON and arrays: a file that can contain nothing that runs.

A class is named, and only the ones of `smgeo.models.known_estimators` are used without the user's word. Everything else is a number, a text,
an array, or a container of these. skops, which does this for any object, takes functions and constructors from the file.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator
from sklearn.tree._tree import NODE_DTYPE, Tree
from sklearn.utils import Bunch

from smgeo.errors import SmgeoError
from smgeo.files import parse_json
from smgeo.models.arrays import read_arrays, weigh, write_arrays
from smgeo.models.estimator_checks import complete, tree_depth
from smgeo.models.known_estimators import known_class, known_name, left_out

_FORMAT = 1
_JSON, _ARRAYS = "regressor.json", "regressor.npz"
# Values inside of values, and estimators inside of estimators: some of scikit-learn's questions to a pipeline take three times as long for each.
_DEEPEST, _MOST_ESTIMATORS = 50, 6
_PLAIN = (bool, int, str, type(None))
_TYPES = {t.__name__: t for t in (bool, int, float, str, np.float32, np.float64, np.int32, np.int64)}
# Bytes of arrays that are referred to, over the bytes that there are, and so many more: some attributes are one array.
_SHARED, _SHARED_LEAST = 4, 64 * 2**20
_MT19937 = 624  # numbers in a state of NumPy's older generator
# How pickle makes an object that is its attributes alone.
_NEW_OBJECT = object().__reduce_ex__(2)[0]
_Node = Any  # JSON


def write_estimators(folder: Path, parts: Mapping[str, object]) -> None:
    """Write named estimators into a folder.

    Raises
    ------
    SmgeoError
        If one contains something that is no data, such as an open file, or a function without a name, such as a lambda.
    """
    writer = _Writer()
    nodes = {name: writer.node(part) for name, part in parts.items()}
    write_arrays(folder / _ARRAYS, {str(i): a for i, a in enumerate(writer.arrays)})
    (folder / _JSON).write_text(json.dumps({"format": _FORMAT, "parts": nodes}, allow_nan=False), encoding="utf-8")


def names_in(folder: Path) -> list[str]:
    """Return the names of all types and functions in the file that `write_estimators` wrote."""
    return sorted(set(_names_in(list(parse_json((folder / _JSON).read_bytes())["parts"].values()))))


def read_estimators(folder: Path, names: Collection[str], trusted: Collection[str] = ()) -> dict[str, Any]:
    """Return the estimators `names` that `write_estimators` wrote.

    Parameters
    ----------
    folder : Path
    names : collection of str
        Names that the file must contain.
    trusted : collection of str
        Types and functions of others that may be imported and used, as `module.Name`.

    Raises
    ------
    SmgeoError
        Naming every type or function that is not trusted, before any of them is imported; or if the file is damaged.
    """
    file = folder / _JSON
    if not file.is_file():
        raise SmgeoError(f"{folder} was saved by an older smgeo (no {_JSON} in it); train the model again")
    try:
        content = parse_json(file.read_bytes())
        if content["format"] > _FORMAT:
            raise SmgeoError(f"{file} was written by a newer smgeo (format {content['format']}, known {_FORMAT})")
        nodes = {name: content["parts"][name] for name in names}
        foreign = sorted({n for n in _names_in(list(nodes.values())) if known_class(n) is None} - set(trusted))
        if foreign:
            raise SmgeoError(
                f"{folder} contains {', '.join(foreign)}, which could run code; nothing was loaded. Allowed are scikit-learn's regressors, "
                "scalers and pipelines that are data alone. If you know who wrote the folder: "
                f"smgeo.load_model(path, trusted={foreign!r})"
            )
        reader = _Reader(read_arrays(folder / _ARRAYS), trusted)
        return {name: reader.value(node) for name, node in nodes.items()}
    # A forged file may lack a key, have another type anywhere, or numbers that fit no estimator.
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RecursionError) as error:
        raise SmgeoError(f"{file} is damaged or of another scikit-learn ({error}); train the model again") from None


# ---- forms of values, each written and read


class _Form(NamedTuple):
    """How values of a kind are written as JSON, and made of it again; `inner` does it for the values in them."""

    fits: Callable[[Any], bool]
    write: Callable[[Any, _Writer, Callable[[object], _Node]], _Node]
    read: Callable[[Any, _Reader, Callable[[_Node], Any]], Any]


def _sequence(kind: type) -> _Form:
    return _Form(
        lambda value: type(value) is kind,
        lambda value, _, inner: [inner(v) for v in value],
        lambda content, _, inner: kind(inner(c) for c in content),
    )


def _read_dict(content: Any, _: _Reader, inner: Callable[[_Node], Any]) -> dict[Any, Any]:
    return _checked({inner(k): inner(v) for k, v in content})


def _checked(values: dict[Any, Any]) -> dict[Any, Any]:
    """Return named values that may be attributes, or arguments of a function that an estimator calls."""
    _refuse_protocols(values)
    if "n_jobs" in values:  # the function would start as many threads or processes
        raise ValueError("a number of jobs among the arguments of a function")
    return values


def _read_bunch(content: Any, _: _Reader, inner: Callable[[_Node], Any]) -> Bunch:
    return Bunch(**_checked({str(k): inner(v) for k, v in content}))


def _refuse_protocols(names: Iterable[object]) -> None:
    """Refuse names such as `__array_interface__`: NumPy follows the address in it to any place of memory."""
    if odd := [name for name in names if isinstance(name, str) and name.startswith("__")]:
        raise ValueError(f"a value named {min(odd)!r}")


def _read_objects(content: Any, _: _Reader, inner: Callable[[_Node], Any]) -> np.ndarray:
    shape, parts = content
    shape = [int(n) for n in shape]
    if min(shape, default=1) < 1 or math.prod(shape) != len(parts):  # an empty one may have any length
        raise ValueError(f"{len(parts)} objects of the shape {shape}")
    out = np.empty(len(parts), dtype=object)
    for i, part in enumerate(parts):
        out[i] = inner(part)
        # NumPy would calculate with other objects, without an end.
        if out[i] is not None and not isinstance(out[i], str | BaseEstimator):
            raise ValueError("an array of objects that are no estimators")
    return out.reshape(shape)


def _read_dtype(content: Any, *_: object) -> np.dtype:
    dtype = np.dtype(str(content))
    if dtype.kind not in "biuf":
        raise ValueError(f"the data type {dtype}, which is not of numbers")
    return dtype


def _read_random_state(content: Any, _: _Reader, inner: Callable[[_Node], Any]) -> np.random.RandomState:
    state = tuple(inner(part) for part in content)
    if not 0 <= state[2] <= _MT19937:  # NumPy does not look
        raise ValueError("a random state beyond its numbers")
    made = np.random.RandomState()
    made.set_state(state)
    return made


def _write_sparse(value: Any, writer: _Writer, _: object) -> _Node:
    rows = value.tocsr()
    return [list(rows.shape), *(writer.array(a) for a in (rows.data, rows.indices, rows.indptr))]


def _read_sparse(content: Any, reader: _Reader, _: object) -> scipy.sparse.csr_matrix:
    shape, *numbers = content
    weigh(8 * math.prod(int(n) for n in shape))  # it may be made dense
    rows = scipy.sparse.csr_matrix(tuple(map(reader.array, numbers)), shape=[int(n) for n in shape])
    rows.check_format(full_check=True)
    return rows


def _write_tree(value: Tree, writer: _Writer, _: object) -> _Node:
    state = value.__getstate__()
    return [int(value.n_features), writer.array(state["nodes"]), writer.array(state["values"])]


def _read_tree(content: Any, reader: _Reader, _: object) -> Tree:
    """Return a tree of scikit-learn, whose compiled code follows it without checks."""
    features, nodes, values = int(content[0]), reader.array(content[1], once=True), reader.array(content[2], once=True)
    if nodes.dtype != NODE_DTYPE or nodes.ndim != 1:
        raise ValueError("nodes of another kind")
    inner, number = nodes["left_child"] != -1, np.arange(len(nodes))
    children = np.concatenate([nodes[side][inner] for side in ("left_child", "right_child")])
    parents = np.concatenate([number[inner], number[inner]])
    # A child comes after its parent, so that a row arrives at a leaf.
    if not len(nodes) or (children <= parents).any() or (children >= len(nodes)).any():
        raise ValueError("a node points out of its tree")
    if not ((nodes["feature"] >= 0) & (nodes["feature"] < features))[inner].all():
        raise ValueError("a node compares a feature that is none")
    depth = tree_depth(nodes["left_child"], nodes["right_child"], inner)
    made = Tree(features, np.ones(1, dtype=np.intp), 1)
    made.__setstate__({"max_depth": depth, "node_count": len(nodes), "nodes": nodes, "values": values})
    return made


def _is_function(value: Any) -> bool:
    return callable(value) and not hasattr(value, "get_params")


def _write_object(value: Any, writer: _Writer, inner: Callable[[object], _Node]) -> _Node:
    with writer.level(isinstance(value, BaseEstimator)):
        return _write_attributes(value, inner)


def _write_attributes(value: Any, inner: Callable[[object], _Node]) -> _Node:
    kind: Any = type(value)
    name = known_name(kind) or _name_of(kind)
    try:
        how: tuple[Any, ...] = value.__reduce_ex__(2)
    except TypeError:  # an open file, a generator
        how = ()
    state = how[2] if len(how) > 2 else None
    if how[:2] != (_NEW_OBJECT, (kind,)) or not isinstance(state, dict | None) or any(how[3:]):
        raise SmgeoError(
            f"this estimator cannot be saved without pickle: it contains {name}, which is more than its attributes; build it of "
            "scikit-learn's own parts"
        )
    kept = {k: v for k, v in (state or {}).items() if k not in (*left_out(kind), "_sklearn_version")}
    return [name, [[k, inner(v)] for k, v in kept.items()]]


def _read_object(content: Any, reader: _Reader, inner: Callable[[_Node], Any]) -> Any:
    name, state = content
    known = known_class(name)
    kind: Any = known or reader.trusted(name)
    made = kind.__new__(kind)
    with reader.level(isinstance(made, BaseEstimator)):
        values = {str(k): inner(v) for k, v in state}
    _refuse_protocols(values)
    if known is None and hasattr(made, "__setstate__"):
        made.__setstate__(values)
    else:
        vars(made).update(values)
    if known is not None:
        complete(made)
    return made


# In the order in which they are tried.
_FORMS: dict[str, _Form] = {
    "float": _Form(  # one that JSON does not have
        lambda value: type(value) is float,
        lambda value, *_: str(value),
        lambda content, *_: {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[content],
    ),
    "number": _Form(
        lambda value: isinstance(value, np.generic),
        lambda value, writer, _: writer.array(np.asarray(value)),
        lambda content, reader, _: reader.array(content)[()],
    ),
    "objects": _Form(
        lambda value: isinstance(value, np.ndarray) and value.dtype == object,
        lambda value, _, inner: [list(value.shape), [inner(v) for v in value.ravel()]],
        _read_objects,
    ),
    "array": _Form(
        lambda value: isinstance(value, np.ndarray),
        lambda value, writer, _: writer.array(value),
        lambda content, reader, _: reader.array(content),
    ),
    "list": _sequence(list),
    "tuple": _sequence(tuple),
    "set": _sequence(set),
    "dict": _Form(
        lambda value: type(value) is dict,
        lambda value, _, inner: [[inner(k), inner(v)] for k, v in value.items()],
        _read_dict,
    ),
    "bunch": _Form(
        lambda value: type(value) is Bunch,
        lambda value, _, inner: [[str(k), inner(v)] for k, v in value.items()],
        _read_bunch,
    ),
    "slice": _Form(
        lambda value: isinstance(value, slice),
        lambda value, _, inner: [inner(v) for v in (value.start, value.stop, value.step)],
        lambda content, _, inner: slice(*map(inner, content)),
    ),
    "dtype": _Form(lambda value: isinstance(value, np.dtype), lambda value, *_: value.str, _read_dtype),
    "type": _Form(
        lambda value: isinstance(value, type) and _TYPES.get(value.__name__) is value,
        lambda value, *_: value.__name__,
        lambda content, *_: _TYPES[content],
    ),
    "random_state": _Form(
        lambda value: isinstance(value, np.random.RandomState),
        lambda value, _, inner: [inner(part) for part in value.get_state(legacy=True)],
        _read_random_state,
    ),
    "sparse": _Form(scipy.sparse.issparse, _write_sparse, _read_sparse),
    "tree": _Form(lambda value: isinstance(value, Tree), _write_tree, _read_tree),
    "name": _Form(_is_function, lambda value, *_: _name_of(value), lambda content, reader, _: reader.trusted(content)),
    "object": _Form(lambda value: True, _write_object, _read_object),
}


class _Levels:
    """Levels of estimators inside of estimators."""

    _levels = 0

    @contextmanager
    def level(self, one: bool) -> Iterator[None]:
        """Count a level, if it is `one`, while its parts are written or read."""
        self._levels += one
        if self._levels > _MOST_ESTIMATORS:
            raise SmgeoError(
                f"estimators are more than {_MOST_ESTIMATORS} levels deep in each other, which smgeo neither saves nor reads"
            )
        yield
        self._levels -= one


class _Writer(_Levels):
    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self._at: dict[int, int] = {}

    def node(self, value: object, depth: int = 0) -> _Node:
        """Return a value as JSON; its arrays are collected."""
        if depth > _DEEPEST:
            raise SmgeoError(f"this estimator cannot be saved: it is more than {_DEEPEST} levels deep")
        if type(value) in _PLAIN or (type(value) is float and math.isfinite(value)):
            return value
        name, form = next((n, f) for n, f in _FORMS.items() if f.fits(value))
        return {name: form.write(value, self, lambda part: self.node(part, depth + 1))}

    def array(self, array: np.ndarray) -> int:
        """Return the number of an array, which is kept once however often it stands in an estimator."""
        if array.dtype.hasobject:
            raise SmgeoError(f"this estimator cannot be saved without pickle: it contains an array of {array.dtype}")
        if id(array) not in self._at:
            self._at[id(array)] = len(self.arrays)
            self.arrays.append(array)  # kept alive, so that no other array gets its id
        return self._at[id(array)]


class _Reader(_Levels):
    def __init__(self, arrays: Mapping[str, np.ndarray], trusted: Collection[str]) -> None:
        self._arrays, self._trusted = arrays, trusted
        self._used: set[int] = set()
        self._left = _SHARED * sum(a.nbytes for a in arrays.values()) + _SHARED_LEAST

    def value(self, node: _Node, depth: int = 0) -> Any:
        """Return the value of a node; anything that `_Writer` does not write is an error."""
        if depth > _DEEPEST:
            raise ValueError(f"it is more than {_DEEPEST} levels deep")
        if type(node) in (*_PLAIN, float):
            if type(node) is int and abs(node) >= 2**63:
                raise ValueError("a whole number of more than 64 bits")
            return node
        ((name, content),) = node.items()
        return _FORMS[name].read(content, self, lambda part: self.value(part, depth + 1))

    def array(self, number: int, *, once: bool = False) -> np.ndarray:
        """Return an array by its number; `once` if no estimator has it twice, as the nodes of a tree.

        Estimators make copies, so that a small file with many references to one array could fill the memory.
        """
        if once and number in self._used:
            raise ValueError("two trees have the same nodes")
        self._used.add(number)
        array = self._arrays[str(int(number))]
        self._left -= array.nbytes
        if self._left < 0:
            raise ValueError("its arrays are used more often than in any estimator")
        return array

    def trusted(self, name: str) -> Any:
        """Import a type or function that the user trusts."""
        if name not in self._trusted:
            raise ValueError(f"{name} is not trusted")
        return _find(name)


# ---- names of types and functions


def _name_of(value: Any) -> str:
    """Return the name by which another process can import a type or function.

    Raises
    ------
    SmgeoError
        If there is none.
    """
    module = "numpy" if isinstance(value, np.ufunc) else getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", getattr(value, "__name__", repr(value)))
    try:
        if module and _find(f"{module}.{name}") is value:
            return f"{module}.{name}"
    except (ImportError, AttributeError):
        pass
    raise SmgeoError(
        f"this estimator cannot be saved without pickle: it contains {name}, which no other process can import; define it in a module"
    )


def _names_in(node: _Node) -> Iterator[str]:
    """Return the names of all types and functions."""
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "name" in part:
                yield str(part["name"])
            if "object" in part:
                yield str(part["object"][0])
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _find(name: str) -> Any:
    """Import what a name such as `package.module.Class.method` means."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise ImportError(f"no module has {name}")
