"""Clusters: the stations that intervals and tests take for one, because they are not independent of each other."""

from __future__ import annotations

import xarray as xr

from smgeo.cube.schema import text_of
from smgeo.evaluation.intervals import FEW_CLUSTERS, Clusters
from smgeo.prepare.places import GROUP, group_stations, grouped, place_numbers


def clusters_of(stations: xr.Dataset, by: str | None = None) -> Clusters:
    """Return the cluster of each station.

    Parameters
    ----------
    stations : xarray.Dataset
        Station cube, or any Dataset with its coordinates; only the stations that are scored.
    by : str, optional
        `place`, `station`, `group`, or a coordinate of the stations, such as `network`. By default the groups that the cube was given, or if
        these are places, networks where there are ten or more, else places.

    Raises
    ------
    SmgeoError
        If the stations have no coordinate of that name.
    """
    ids = text_of(stations["station"]).tolist()
    known = grouped(stations)
    declared = str(known[GROUP].attrs["by"])
    if by is None and declared in ("place", "station") and _is_named(stations, "network"):
        networks = text_of(group_stations(known, "network")[GROUP])
        by = "network" if len(set(networks)) >= FEW_CLUSTERS else None
    if by == "place":
        return Clusters(by, dict(zip(ids, place_numbers(stations).tolist(), strict=True)))
    if by not in (None, GROUP):
        known, declared = group_stations(stations, by), str(by)
    return Clusters(declared, dict(zip(ids, text_of(known[GROUP]).tolist(), strict=True)))


def _is_named(stations: xr.Dataset, name: str) -> bool:
    return name in stations.coords and stations[name].dims == ("station",)
