"""What was done to a cube, carried by the cube itself.

Each step of preparation appends itself, with all it needs to be done again, to the Dataset's attribute
`smgeo_steps` (JSON). Windows hand the list on to the model, and the model repeats it on new data.
"""

from __future__ import annotations

import json
from typing import Any

import xarray as xr

ATTRIBUTE = "smgeo_steps"


def steps_of(ds: xr.Dataset) -> list[dict[str, Any]]:
    """The steps a Dataset went through, oldest first."""
    return list(json.loads(ds.attrs.get(ATTRIBUTE, "[]")))


def lasting_steps(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps that must be the same for numbers to mean the same; derived features may be added at any time.

    >>> lasting_steps([{"step": "derive"}, {"step": "fill_gaps"}])
    [{'step': 'fill_gaps'}]
    """
    return [s for s in steps if s["step"] != "derive"]


def with_step(ds: xr.Dataset, name: str, **params: Any) -> xr.Dataset:
    """`ds` with one more step in its record.

    >>> ds = with_step(xr.Dataset(), "derive", features=["ndvi"])
    >>> steps_of(ds)
    [{'step': 'derive', 'features': ['ndvi']}]
    """
    return ds.assign_attrs({ATTRIBUTE: json.dumps([*steps_of(ds), {"step": name, **params}])})


def with_steps(ds: xr.Dataset, steps: list[dict[str, Any]]) -> xr.Dataset:
    """`ds` with these steps as its record: its variables went through them one by one."""
    return ds.assign_attrs({ATTRIBUTE: json.dumps(steps)})


def without_last_step(ds: xr.Dataset) -> xr.Dataset:
    """`ds` with the last step taken from its record."""
    return ds.assign_attrs({ATTRIBUTE: json.dumps(steps_of(ds)[:-1])})
