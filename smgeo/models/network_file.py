"""The weights of a network in a model's folder: HDF5, which Keras reads, and which may come from anybody.

HDF5 has links to other files, and promises numbers that it does not hold; Keras takes for a network's weights what fits by its size. So a
file is read only if its arrays are exactly those that Keras would write for the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from smgeo.errors import SmgeoError
from smgeo.models.arrays import weigh

if TYPE_CHECKING:
    import h5py
    from keras import Model

_WEIGHTS = "model.weights.h5"
# Groups and arrays of a file, at most.
_MOST_PARTS = 20_000
# Shape and type of an array, and of all arrays by their paths.
_Array: TypeAlias = tuple[tuple[int, ...], np.dtype]
_Arrays: TypeAlias = dict[str, _Array]


def save_network(model: Model, folder: Path) -> None:
    """Write the weights of a network into a folder."""
    model.save_weights(str(folder / _WEIGHTS))


def load_network(folder: Path, build: Callable[[int], Model]) -> Model:
    """Return a network with the weights that `save_network` wrote.

    Parameters
    ----------
    folder : Path
    build : callable
        Returns the network; called with the count of numbers in the file. It may raise ValueError if they are too few.

    Raises
    ------
    SmgeoError
        If the file is damaged, contains other arrays than the network has, or numbers that are not finite.
    """
    file = folder / _WEIGHTS
    try:
        stored = _arrays_in(file)
        model = build(sum(math.prod(shape) for shape, _ in stored.values()))
        _check_same(stored, _arrays_of(model))
        model.load_weights(str(file))
        if not all(np.isfinite(w).all() for w in model.get_weights()):
            raise ValueError("they are not all finite")
    except (ValueError, KeyError, OSError) as error:
        raise SmgeoError(f"{file}: the weights are not those of this model: {error}; train the model again") from None
    return model


def _arrays_in(file: Path) -> _Arrays:
    """Return the arrays of a file, after it was found to lead nowhere else, without those of the optimiser, which estimates do not need.

    Raises
    ------
    ValueError
        If there is a link or storage outside the file, a group that stands in two places, or a view on another file; if numbers are not
        stored one by one, so that a small file fills the memory; if it is larger than half of the free memory; or if it is no HDF5 file.
    """
    import h5py

    seen: set[int] = set()

    def look(group: h5py.Group) -> Iterator[h5py.Dataset]:
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name} is a link")
            part = group[name]
            address = h5py.h5o.get_info(part.id).addr
            if address in seen or len(seen) > _MOST_PARTS:
                raise ValueError(f"{name} is a link, or one part of too many")
            seen.add(address)
            if isinstance(part, h5py.Group):
                yield from look(part)
            elif not isinstance(part, h5py.Dataset) or part.external or part.is_virtual or part.dtype.hasobject:
                raise ValueError(f"{name} has its numbers elsewhere")
            elif part.id.get_storage_size() != part.nbytes or len(
                part.attrs
            ):  # unwritten, packed, or of a type that an attribute names
                raise ValueError(f"{name} is not stored number by number")
            else:
                yield part

    try:
        with h5py.File(file, "r") as root:
            found = {part.name: (part.shape, part.dtype, part.nbytes) for part in look(root)}
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"it is damaged or not a file of weights: {error!r}") from None
    weigh(sum(size for *_, size in found.values()))
    return {name: (shape, dtype) for name, (shape, dtype, _) in found.items() if not name.startswith("/optimizer/")}


def _arrays_of(model: Model) -> _Arrays:
    """Return the arrays that Keras writes for a network: their names are its own."""
    with TemporaryDirectory() as folder:
        file = Path(folder, _WEIGHTS)
        model.save_weights(str(file))
        return _arrays_in(file)


def _check_same(stored: _Arrays, wanted: _Arrays) -> None:
    """Refuse arrays that the network has not, and others in the place of its own, which Keras may take for them."""
    for name in sorted(stored.keys() | wanted.keys()):
        have, need = stored.get(name), wanted.get(name)
        if not _is_same(have, need):
            raise ValueError(f"{name} is {_shown(have)}, and the network needs {_shown(need)}")


def _is_same(have: _Array | None, need: _Array | None) -> bool:
    """Return True for equal shapes and types; backends count in whole numbers of other lengths."""
    if have is None or need is None:
        return have is need
    return have[0] == need[0] and (have[1] == need[1] or have[1].kind == need[1].kind == "i")


def _shown(array: _Array | None) -> str:
    return "nothing" if array is None else f"{array[1]} of shape {array[0]}"
