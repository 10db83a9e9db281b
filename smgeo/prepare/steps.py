"""The record of preparation steps that a cube carries in its attributes.

Each step appends itself, with all that is needed to repeat it, to the Dataset's attribute `smgeo_steps` (JSON). Windows pass
the list on to the model, and the model repeats it on new data.
"""

from __future__ import annotations

import json
from typing import Literal, NotRequired

import xarray as xr
from typing_extensions import TypedDict  # pydantic reads no TypedDict of Python 3.11

from smgeo.files import JsonObject

ATTRIBUTE = "smgeo_steps"

# One step of preparation: its name under `step`, and all that is needed to repeat it.
Step = JsonObject


class Preparation(TypedDict):
    """How the windows of a model were made, as JSON types; kept in its model file.

    Attributes
    ----------
    features : list of str
        Channels of X, in order.
    units : dict of str to str
        Unit of each feature.
    target, target_units : str
        Variable that is estimated, and its unit.
    length : int
        Days in a window.
    mode : {"window", "sequence"}
        Windows, or whole series.
    missing : float
        Share of values that a window may lack.
    fill : list of float or None
        Stands where a value is missing, one number a feature.
    steps : list of dict
        Steps of preparation that the cube went through, oldest first.
    references : dict of str to str, optional
        What the numbers of a feature refer to: a vertical datum, an angle, a kind of backscatter.
    """

    features: list[str]
    units: dict[str, str]
    target: str
    target_units: str
    length: int
    mode: Literal["window", "sequence"]
    missing: float
    fill: list[float] | None
    steps: list[Step]
    references: NotRequired[dict[str, str]]


def steps_of(ds: xr.Dataset) -> list[Step]:
    """Return the steps that a Dataset went through, oldest first."""
    return list(json.loads(ds.attrs.get(ATTRIBUTE, "[]")))


def lasting_steps(steps: list[Step]) -> list[Step]:
    """Return the steps that must agree for values to be comparable; derived features may be added at any time.

    >>> lasting_steps([{"step": "derive"}, {"step": "fill_gaps"}])
    [{'step': 'fill_gaps'}]
    """
    return [s for s in steps if s["step"] != "derive"]


def with_step(ds: xr.Dataset, name: str, **params: object) -> xr.Dataset:
    """Return `ds` with one more step in its record.

    >>> ds = with_step(xr.Dataset(), "derive", features=["ndvi"])
    >>> steps_of(ds)
    [{'step': 'derive', 'features': ['ndvi']}]
    """
    return ds.assign_attrs({ATTRIBUTE: json.dumps([*steps_of(ds), {"step": name, **params}])})


def with_steps(ds: xr.Dataset, steps: list[Step]) -> xr.Dataset:
    """Return `ds` with these steps as its record, for variables that went through them one by one."""
    return ds.assign_attrs({ATTRIBUTE: json.dumps(steps)})


def without_last_step(ds: xr.Dataset) -> xr.Dataset:
    """Return `ds` without the last step in its record."""
    return ds.assign_attrs({ATTRIBUTE: json.dumps(steps_of(ds)[:-1])})
