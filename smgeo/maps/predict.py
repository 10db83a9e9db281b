"""A map, block by block: on the workers of an active Dask client, or on threads."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from dask.base import tokenize

from smgeo.cube.executor import active_client
from smgeo.cube.regions import Progress, plan_regions
from smgeo.cube.regions import Region as Block
from smgeo.cube.store import shards_of, write_store
from smgeo.errors import SmgeoError
from smgeo.files import hash_file, only_writer
from smgeo.maps.block import APPLICABLE, Outputs, predict_block
from smgeo.maps.cog import finished_cogs, write_cogs
from smgeo.maps.layout import NO_FLAG, describe_map_store, plan_map, say_shares
from smgeo.maps.overviews import remove_overviews, write_overviews
from smgeo.maps.place import check_others, check_place
from smgeo.maps.request import MapRequest, Region, check_request
from smgeo.maps.stac import write_stac
from smgeo.models import load_model

# Coverage of the intervals of a calibrated model, where none is asked for.
LEVEL = 0.9


def predict_map(
    model: Any,
    grid_cube: xr.Dataset,
    out: str | Path,
    times: Sequence[Any] | None = None,
    *,
    region: Region | None = None,
    intervals: float | bool | None = None,
    applicability: bool | None = None,
    overviews: bool = False,
    resume: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Estimate soil moisture on a grid.

    The cube is prepared block by block exactly as the model's training data were; gaps are filled over a block's
    whole series, which is read once for all days. Blocks are computed on the workers of the active Dask client, else on threads.
    An interrupted map goes on with the blocks that are not done.

    Parameters
    ----------
    model : fitted model
        It carries features, units, gap filling, scaler and window.
    grid_cube : xarray.Dataset
        Dims (time, y, x), with a CRS, as opened (not prepared). The model's features, or what they are derived from.
    out : str or Path
        A path that ends in `.zarr`, or a folder of COGs, one a date: `sm_YYYY-MM-DD.tif`, with a STAC item each and `collection.json`.
    times : sequence of dates, optional
        Days to map; all days of the cube by default.
    region : (left, bottom, right, top), str or Path, optional
        In the grid's CRS, or a polygon file; all of the grid by default. The map is as large as the region;
        pixels whose centres lie outside a polygon hold no value.
    intervals : float or bool, optional
        Coverage of prediction intervals, such as 0.9, as the model was calibrated (`smgeo.calibrate`); by default 0.9 where it was, none
        else. False or 0 for none.
    applicability : bool, optional
        Whether to say which pixels lie in the model's area of applicability (`smgeo.find_applicability`); by default where the
        model knows it.
    overviews : bool
        Whether a Zarr store gets coarser copies of the map, as groups `2`, `4`, ...; COGs always have overviews.
    resume : bool
        Keep what an interrupted or an earlier map of the same model, cube and request finished; False starts again.
    progress : callable, optional
        Called with (blocks done, blocks in all).

    Returns
    -------
    Path
        `out`. `sm` in the target's unit, and where asked for `sm_lower`, `sm_upper` and `applicable` (1 inside, 0 outside); NaN where
        features are missing (more of them than the model's window allows), and the attribute `nodata_share` says how often.
        Peak memory of a worker: a block of 128 × 128 pixels of one variable over its whole series, 400 MB of prepared
        features, and the block's estimates.

    Raises
    ------
    SmgeoError
        If a feature is missing or in another unit, the cube has no CRS, a day is not in the cube, the region holds no pixel, or
        the model lacks the calibration or the area of applicability that is asked for.
    """
    out = Path(out)
    request = check_request(model, grid_cube, times, region)
    outputs = _choose_outputs(model, request, intervals, applicability)
    check_place(out, grid_cube)
    if out.suffix == ".zarr":
        with only_writer(out), _kept_model(model, out) as held:
            return _write(_Order(held, request, outputs), out, overviews, resume, progress)
    out.mkdir(parents=True, exist_ok=True)
    with _kept_model(model, out / f"map-{uuid.uuid4().hex[:12]}") as held:
        order = _Order(held, request, outputs)
        check_others(out, request.days, order.identity)
        # A store for each request, so that maps of other days may be made at the same time.
        store = out / f".map-{order.digest[:12]}.zarr"
        with only_writer(out / store.stem):
            if not (resume and finished_cogs(out, outputs.target, request.days, order.digest)):
                _write(order, store, False, resume, progress)
                write_cogs(store, out, digest=order.digest, resume=resume)
            shutil.rmtree(store, ignore_errors=True)
    write_stac(out)
    return out


def _choose_outputs(
    model: Any, request: MapRequest, intervals: float | bool | None, applicability: bool | None
) -> Outputs:
    """What is written, of what the model knows and what is asked for."""
    calibration, area = (getattr(model, name, None) for name in ("calibration_", "applicability_"))
    level: float | None = None
    if intervals is None or intervals is True:
        level = LEVEL if calibration is not None or intervals else None
    elif intervals:
        level = float(intervals)
        if not 0 < level < 1:
            raise SmgeoError(f"intervals is a coverage between 0 and 1, such as 0.9; got {intervals}")
    if level is not None:
        if calibration is None:
            raise SmgeoError(
                "intervals: the model is not calibrated; smgeo.calibrate(model, ds, split) does it on stations that it was not trained on"
            )
        calibration.check_level(level)
    if applicability and area is None:
        raise SmgeoError(
            "applicability: the model does not know its area of applicability; smgeo.find_applicability(model, ds, split) finds it"
        )
    wanted = area is not None if applicability is None else bool(applicability)
    return Outputs(request.preparation["target"], level, wanted)


class HeldModel:
    """A model that is sent to workers as the path of its file, and read there once.

    Parameters
    ----------
    model : fitted model
    digest : str
        What the model is.
    path : Path or None
        Where it is saved, seen by all workers; None for a model that is sent as it is.
    """

    def __init__(self, model: Any, digest: str, path: Path | None = None) -> None:
        self._model, self.digest, self._path = model, digest, path

    @property
    def model(self) -> Any:
        """The model itself."""
        return self._model if self._model is not None else _read_model(self._path, self.digest)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": self._model if self._path is None else None}


@lru_cache(maxsize=1)
def _read_model(path: Path, digest: str) -> Any:
    """By its digest too: another model may have been saved there since."""
    return load_model(path)


@contextmanager
def _kept_model(model: Any, out: Path) -> Iterator[HeldModel]:
    """The model; saved beside the map while it is made, where workers have to read it or nothing else tells what it is."""
    known = getattr(model, "digest_", None)
    if known is not None and active_client() is None:
        yield HeldModel(model, known)
        return
    path = out.with_name(f".{out.name.removeprefix('.')}.model").absolute()
    try:
        try:
            model.save(path)
        except (AttributeError, SmgeoError):  # a class of the user's own, which saves no file: another model each time
            yield HeldModel(model, uuid.uuid4().hex)
            return
        # What scikit-learn's file may hold is trusted by the user's word alone, which workers have not heard.
        sent = getattr(model, "kind", None) == "sklearn"
        yield HeldModel(model, hash_file(path / "model.json") or "", None if sent else path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True, eq=False)
class _BlockJob:
    """One block of a map, as it is sent to where it is computed."""

    held: HeldModel
    block: xr.Dataset
    inside: np.ndarray | None
    preparation: dict[str, Any]
    ends: np.ndarray
    outputs: Outputs

    def compute(self) -> dict[str, np.ndarray]:
        """Values of each output."""
        if self.inside is not None and not self.inside.any():
            nothing = np.full((len(self.ends), *self.inside.shape), np.nan, dtype="float32")
            made = dict.fromkeys(self.outputs.names, nothing)
        else:
            made = predict_block(self.held.model, self.block, self.preparation, self.ends, self.outputs)
        if self.inside is not None:
            made = {name: np.where(self.inside, values, np.float32(np.nan)) for name, values in made.items()}
        return {n: _as_flag(v) if n == APPLICABLE else v for n, v in made.items()}

    def __getstate__(self) -> dict[str, Any]:
        # Of a lazy cube its part of the graph alone.
        return {**self.__dict__, "block": dask.optimize(self.block)[0]}


def _as_flag(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), NO_FLAG, values).astype("uint8")


@dataclass(frozen=True, eq=False)
class _Order:
    """A map that is to be made."""

    held: HeldModel
    request: MapRequest
    outputs: Outputs

    @cached_property
    def identity(self) -> str:
        """What the days of one map have in common: model, place, and what is told."""
        box, inside = self.request.box, self.request.inside
        place = box.shape.yx, tuple(box.affine), None if inside is None else inside.values
        return str(tokenize(self.held.digest, place, self.outputs))

    @cached_property
    def digest(self) -> str:
        """What it is made from."""
        return str(tokenize(self.identity, self.request.token, list(map(str, self.request.days))))

    def job(self, block: Block) -> _BlockJob:
        """One block of it."""
        _, rows, columns = block.slices
        request = self.request
        inside = None if request.inside is None else request.inside[rows, columns].values
        part = request.cube.isel(y=rows, x=columns)
        return _BlockJob(self.held, part, inside, request.preparation, request.ends, self.outputs)


def _write(order: _Order, path: Path, overviews: bool, resume: bool, progress: Progress | None) -> Path:
    outputs = order.outputs

    def finish(part: Path) -> None:
        remove_overviews(part)
        say_shares(part, outputs, order.request.inside)
        if overviews:
            write_overviews(part)

    template = describe_map_store(order.held.model, order.request, outputs, order.identity)
    plan = plan_map(template)
    dims = dict.fromkeys(outputs.names, ("time", "y", "x"))
    blocks = plan_regions(dims, {n: template[n].shape for n in outputs.names}, shards_of(plan, outputs.names))
    return write_store(
        template,
        plan,
        blocks,
        {b.name: order.digest for b in blocks},
        order.job,
        path,
        resume=resume,
        finish=finish,
        progress=progress,
    )
