"""Features and targets that do not vary over the training stations, which no model can learn from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import xarray as xr

from smgeo.errors import SmgeoError, SmgeoWarning


def check_variation(train: xr.Dataset, features: Sequence[str], target: str) -> None:
    """Warn of features with one value, or none, over all training stations and days.

    Parameters
    ----------
    train : xarray.Dataset
        A prepared station cube of the training part; it is read once, chunk by chunk.
    features : sequence of str
        Its features.
    target : str

    Raises
    ------
    SmgeoError
        If the target has a single value, or every feature has: there is nothing to learn.
    """
    values = train[[*features, target]]
    ends = xr.concat([values.min(), values.max()], "end").compute()
    low, high = ({n: float(ends[n][end]) for n in (*features, target)} for end in (0, 1))
    if low[target] == high[target]:
        raise SmgeoError(
            f"the target {target} is the same number at all training stations on all days, so there is nothing to learn; look into the "
            "stations' files, or choose other stations, days or depths"
        )
    same = [n for n in features if not low[n] < high[n]]
    if len(same) == len(features):
        raise SmgeoError(
            f"no feature varies over the training stations ({', '.join(same)}), so there is nothing to learn; add features, or look into "
            "their sources: several stations may be in one pixel"
        )
    if same:
        warnings.warn(
            SmgeoWarning(
                f"{', '.join(same)}: one value, or none, at all training stations on all days, so models learn nothing from it; look into its "
                "source, or leave it out of features"
            ),
            stacklevel=2,
        )
