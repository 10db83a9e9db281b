"""Clusters: the stations that intervals and tests take for one, because they are not independent of each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

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
    networks = text_of(group_stations(known, "network")[GROUP]).tolist() if _is_named(stations, "network") else []
    if by is None and declared in ("place", "station") and len(set(networks)) >= FEW_CLUSTERS:
        by = "network"
    if by == "place":
        declared, of = by, place_numbers(stations).tolist()
    else:
        if by not in (None, GROUP):
            known, declared = group_stations(stations, by), str(by)
        of = text_of(known[GROUP]).tolist()
    return Clusters(declared, dict(zip(ids, of, strict=True)), _count_several(networks, of))


def _count_several(networks: Sequence[object], clusters: Sequence[object]) -> int | None:
    """Return how many networks have more than one cluster; None without networks.

    >>> _count_several(["DWD", "DWD", "SCAN"], [0, 1, 2])
    1
    """
    if not networks:
        return None
    of_network = Counter(network for network, _ in set(zip(networks, clusters, strict=True)))
    return sum(count > 1 for count in of_network.values())


def _is_named(stations: xr.Dataset, name: str) -> bool:
    return name in stations.coords and stations[name].dims == ("station",)
