"""Maps, block by block: on the workers of an active Dask client, or on threads."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import dask
import numpy as np
import xarray as xr
from dask.base import tokenize

from smgeo.bounds import checked, weigh_disk
from smgeo.cube.regions import Progress, Region
from smgeo.cube.store import StorePlan, regions_of, write_store
from smgeo.errors import SmgeoError
from smgeo.files import JsonObject, only_writer
from smgeo.maps.block import APPLICABLE, Outputs, predict_block
from smgeo.maps.cog import finished_cogs, write_cogs
from smgeo.maps.held_model import HeldModel, kept_model
from smgeo.maps.layout import MAP_CHUNK, NO_FLAG, describe_map_store, plan_map
from smgeo.maps.overviews import remove_overviews, write_overviews
from smgeo.maps.place import check_others, check_place
from smgeo.maps.request import Day, Extent, MapOptions, MapRequest, check_request
from smgeo.maps.stac import TITLE, write_stac
from smgeo.maps.strips import StripReader
from smgeo.maps.summary import MapSummary, read_summary, summarise_block, write_summary
from smgeo.models.protocol import Model
from smgeo.prepare.steps import Preparation


@checked
def predict_map(
    model: Model,
    grid_cube: xr.Dataset,
    out: str | Path,
    times: Sequence[Day] | None = None,
    *,
    region: Extent | None = None,
    intervals: float | bool | None = None,
    applicability: bool | None = None,
    overviews: bool = False,
    layers: Sequence[str] = (),
    resume: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Estimate soil moisture on a grid.

    The cube is prepared block by block exactly as the model's training data were; gaps are filled over a block's
    whole series, which is read once for all days. Blocks are computed on the workers of the active Dask client, otherwise on threads.
    An interrupted map continues with the blocks that are not done.

    Parameters
    ----------
    model : fitted model
        It carries features, units, gap filling, scaler and window.
    grid_cube : xarray.Dataset
        Dims (time, y, x), with a CRS, as opened (not prepared). The model's features, or the variables that they are derived from.
    out : str or Path
        A path that ends in `.zarr`, or a folder of COGs, one for each date: `sm_YYYY-MM-DD.tif`, each with a STAC item, and
        `collection.json`.
    times : sequence of dates, optional
        Days to map; all days of the cube by default.
    region : (left, bottom, right, top), str or Path, optional
        In the grid's CRS, or a file of polygons; the whole grid by default. The map is as large as the region;
        pixels with centres outside a polygon have no value.
    intervals : float or bool, optional
        Coverage of prediction intervals, such as 0.9, of a calibrated model (`smgeo.calibrate`); by default 0.9 if the model is
        calibrated, otherwise none. False or 0 for none.
    applicability : bool, optional
        Flag the pixels in the model's area of applicability (`smgeo.find_applicability`); by default if the model
        knows it.
    overviews : bool
        Add coarser copies of the map to a Zarr store, as groups `2`, `4`, ...; COGs always have overviews.
    layers : sequence of str, optional
        More of the area of applicability, for each pixel: `dissimilarity` (index to the training data; the flag is 1 where it is at most the
        threshold), `local_point_density` (training places that are similar, 0 outside the area), `expected_error` (RMSE that held-out
        stations had at this dissimilarity, in the target's unit; NaN outside the area, where none is known).
    resume : bool
        Keep what an interrupted or earlier map of the same model, cube and request finished; False starts from scratch.
    progress : callable, optional
        Called with (blocks done, blocks in all).

    Returns
    -------
    Path
        `out`. `sm` in the target's unit, and if asked for `sm_lower`, `sm_upper` and `applicable` (1 inside, 0 outside); NaN if
        features are missing (more of them than the model's window allows). The attribute `nodata_share` is the share of pixels without a
        value; `smgeo.maps.read_summary` gives it and the numbers of each day.
        Peak memory of a worker: a block of 128 × 128 pixels of one variable over its whole series, 400 MB of prepared
        features, and the block's estimates.

    Raises
    ------
    SmgeoError
        If a feature is missing or in another unit, the cube has no CRS, a day is not in the cube, the region contains no pixel, or
        the model lacks the calibration, the area of applicability or what a layer needs.
    """
    out = Path(out)
    request = check_request(model, grid_cube, times, MapOptions(region, intervals, applicability, overviews, layers))
    check_place(out, grid_cube)
    if out.suffix == ".zarr":
        with only_writer(out), kept_model(model, out) as held:
            return _write(_Order(held, request), out, overviews, resume, progress)
    out.mkdir(parents=True, exist_ok=True)
    with kept_model(model, out / f"map-{uuid.uuid4().hex[:12]}") as held:
        order = _Order(held, request)
        check_others(out, request.days, order.identity)
        # A store for each request, so that maps of other days may be made at the same time.
        store = out / f".map-{order.digest[:12]}.zarr"
        with only_writer(out / store.stem):
            if not (resume and finished_cogs(out, request.outputs.target, request.days, order.digest)):
                _weigh_cogs(request, out)
                _write(order, store, False, resume, progress)
                write_cogs(store, out, digest=order.digest, resume=resume)
            shutil.rmtree(store, ignore_errors=True)
    write_stac(out)
    return out


def _weigh_cogs(request: MapRequest, folder: Path) -> None:
    """Refuse a map whose GeoTIFFs of the days of one chunk, which are there uncompressed at the same time, do not fit on the disk."""
    days, (height, width) = min(len(request.days), MAP_CHUNK["time"]), request.box.shape.yx
    weigh_disk(
        f"a map as {days} uncompressed GeoTIFF(s) of {height:,} x {width:,} pixels",
        4.0 * len(request.outputs.names) * days * height * width,
        folder,
    )


def predict_map_files(
    model: Model,
    grid_cube: xr.Dataset,
    store: str | Path,
    cogs: str | Path,
    times: Sequence[Day] | None = None,
    *,
    options: MapOptions = MapOptions(),  # noqa: B008 - frozen
    title: str = TITLE,
    readers: Sequence[StripReader] = (),
    resume: bool = True,
    keep_cogs: bool = True,
    progress: Progress | None = None,
) -> MapSummary:
    """Write a map as a Zarr store and as a folder of COGs with a STAC catalogue; the finished store is read once, for the COGs.

    Parameters
    ----------
    model, grid_cube, times, resume, progress
        As for `predict_map`.
    store : str or Path
        The store, a path that ends in `.zarr`.
    cogs : str or Path
        Folder of the COGs and the catalogue.
    options : MapOptions
        Region, intervals, applicability, overviews and layers, as for `predict_map`.
    title : str
        Title of the STAC collection.
    readers : sequence of StripReader, optional
        They see all of the map as it is read for the COGs, such as `smgeo.maps.strips.Thinned`, which keeps what a picture shows.
    keep_cogs : bool
        Tag the COGs with a digest of what they are made from, and keep those with the same digest. False writes all of them, without
        a tag that depends on where and when the cube was written.

    Returns
    -------
    MapSummary
        Dates, shares, and the numbers of each day.

    Raises
    ------
    SmgeoError
        As `predict_map`; if `store` does not end in `.zarr`.
    """
    store, cogs = Path(store), Path(cogs)
    if store.suffix != ".zarr" or cogs.suffix == ".zarr":
        raise SmgeoError(f"a map's store ends in .zarr and its folder of GeoTIFFs does not; got {store} and {cogs}")
    request = check_request(model, grid_cube, times, options)
    for place in (store, cogs):
        check_place(place, grid_cube)
    with only_writer(store), kept_model(model, store) as held:
        order = _Order(held, request)
        check_others(cogs, request.days, order.identity)
        if not (resume and keep_cogs and finished_cogs(cogs, request.outputs.target, request.days, order.digest)):
            _weigh_cogs(request, cogs)
        _write(order, store, options.overviews, resume, progress)
        write_cogs(store, cogs, digest=order.digest if keep_cogs else "", resume=resume, readers=readers)
        write_stac(cogs, title)
        return read_summary(store)


@dataclass(frozen=True, eq=False)
class _BlockJob:
    """One block of a map, as it is sent to where it is computed."""

    held: HeldModel
    block: xr.Dataset
    inside: np.ndarray | None
    preparation: Preparation
    ends: np.ndarray
    outputs: Outputs

    def compute(self) -> dict[str, np.ndarray]:
        """Return the values of each output."""
        if self.inside is not None and not self.inside.any():
            nothing = np.full((len(self.ends), *self.inside.shape), np.nan, dtype="float32")
            made = dict.fromkeys(self.outputs.names, nothing)
        else:
            made = predict_block(self.held.model, self.block, self.preparation, self.ends, self.outputs)
        if self.inside is not None:
            made = {name: np.where(self.inside, values, np.float32(np.nan)) for name, values in made.items()}
        return {n: _as_flag(v) if n == APPLICABLE else v for n, v in made.items()}

    def __getstate__(self) -> dict[str, object]:
        # Only the block's part of the graph of a lazy cube.
        return {**self.__dict__, "block": dask.base.optimize(self.block)[0]}


def _as_flag(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), NO_FLAG, values).astype("uint8")


@dataclass(frozen=True, eq=False)
class _Order:
    """A map to make."""

    held: HeldModel
    request: MapRequest

    @cached_property
    def identity(self) -> str:
        """Digest of what the days of one map have in common: model, place and outputs."""
        box, inside = self.request.box, self.request.inside
        place = box.shape.yx, tuple(box.affine), None if inside is None else inside.values
        return str(tokenize(self.held.digest, place, self.request.outputs))

    @cached_property
    def digest(self) -> str:
        """Digest of what the map is made from."""
        return str(tokenize(self.identity, self.request.token, list(map(str, self.request.days))))

    def job(self, region: Region) -> _BlockJob:
        """Return the job of one block, which is a region of the map's store."""
        _, rows, columns = region.slices
        request = self.request
        inside = None if request.inside is None else request.inside[rows, columns].values
        part = request.cube.isel(y=rows, x=columns)
        return _BlockJob(self.held, part, inside, request.preparation, request.ends, request.outputs)


def _write(order: _Order, path: Path, overviews: bool, resume: bool, progress: Progress | None) -> Path:
    """Write the store of a map, with its summary."""
    request, outputs = order.request, order.request.outputs

    def finish(part: Path, summaries: Mapping[str, JsonObject]) -> None:
        remove_overviews(part)
        write_summary(part, list(summaries.values()), outputs, request.inside)
        if overviews:
            write_overviews(part)

    template = describe_map_store(order.held.model, request, order.identity)
    encoding = plan_map(template)
    regions = regions_of(template, encoding, outputs.names)
    inputs = {r.name: order.digest for r in regions}
    plan = StorePlan(template, encoding, regions, inputs, order.job, partial(summarise_block, outputs=outputs))
    return write_store(plan, path, resume=resume, finish=finish, progress=progress)
