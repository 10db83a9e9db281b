"""Clusters: the stations that intervals and tests take for one, because they are not independent of each other."""

from __future__ import annotations

import xarray as xr

from smgeo.cube.schema import text_of
from smgeo.evaluation.intervals import FEW_CLUSTERS, Clusters
from smgeo.prepare.places import GROUP, group_stations, place_numbers


def clusters_of(stations: xr.Dataset, by: str | None = None) -> Clusters:
    """Return the cluster of each station.

    Parameters
    ----------
    stations : xarray.Dataset
        Station cube, or any Dataset with its coordinates; only the stations that are scored.
    by : str, optional
        `place`, `station`, `group`, or a coordinate of the stations, such as `network`. By default networks, if there are ten or more, else
        groups, which are places unless the cube says otherwise.

    Raises
    ------
    SmgeoError
        If the stations have no coordinate of that name.
    """
    ids = text_of(stations["station"]).tolist()
    if by is None:
        networks = set(text_of(stations["network"])) - {""} if "network" in stations.coords else set()
        by = "network" if len(networks) >= FEW_CLUSTERS else GROUP
    if by == "place":
        return Clusters(by, dict(zip(ids, place_numbers(stations).tolist(), strict=True)))
    grouped = stations
    if by != GROUP or "by" not in stations.coords.get(GROUP, xr.DataArray()).attrs:
        grouped = group_stations(stations, None if by == GROUP else by)
    word = str(grouped[GROUP].attrs["by"])
    return Clusters(word, dict(zip(ids, text_of(grouped[GROUP]).tolist(), strict=True)))
