"""What intervals and tests take for independent, and what is said where that is doubtful."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from smgeo.evaluation.clusters import clusters_of
from smgeo.evaluation.scores import score_stations
from smgeo.report.results import describe_coverage
from smgeo.report.schema import StationScores
from smgeo.report.score_tables import _about_clusters


def stations_of(networks: list[str]) -> xr.Dataset:
    """Stations 1 degree apart, each in a network."""
    ids = [f"{network}/s{i}" for i, network in enumerate(networks)]
    degrees = np.arange(len(ids), dtype="float64")
    coords = {"station": ids, "network": ("station", networks)}
    return xr.Dataset(coords={**coords, "latitude": ("station", degrees), "longitude": ("station", degrees)})


@pytest.mark.parametrize(
    ("networks", "by", "expected"),
    [
        (["A", "A", "A", "B", "B", "C"], None, ("place", 2)),
        (["A", "A", "A", "B", "B", "C"], "network", ("network", 0)),
        (["A", "A", "A"], None, ("place", 1)),
        ([*list("ABCDEFGHIJ"), "A"], None, ("network", 0)),
        ([*list("ABCDEFGHIJ"), "A"], "place", ("place", 1)),
        (list("ABC"), None, ("place", 0)),
    ],
)
def test_networks_whose_stations_count_as_independent_are_counted(networks, by, expected):
    found = clusters_of(stations_of(networks), by)
    assert (found.by, found.networks_of_several) == expected


def test_without_networks_nothing_is_said_of_them():
    assert clusters_of(stations_of(["A", "A"]).drop_vars("network")).networks_of_several is None


@pytest.mark.parametrize(("by", "said"), [(None, True), ("network", False)])
def test_the_report_says_that_stations_of_a_network_are_taken_for_independent(by, said):
    ds = stations_of(["A"] * 4 + ["B"] * 4 + ["C"])
    station = np.repeat(ds["station"].values, 12)
    random = np.random.default_rng(0)
    observed, predicted = random.random((2, station.size))
    found = score_stations(observed, predicted, station, clusters_of(ds, by))
    words = _about_clusters([StationScores.model_validate(found)])
    assert ("taken for independent of each other, in 2 of the networks" in words) == said
    assert ("p-values too small" in words) == said


def test_coverage_over_places_has_an_interval_over_clusters():
    """Twelve places of one station each; the interval of a mean of independent values is Student's, or wider."""
    ds = stations_of(["A"] * 12)
    covered = [1.0, 0.8, 0.9, 1.0, 0.7, 1.0] * 2
    table = pd.DataFrame(
        {"rows": range(10, 130, 10), "covered": covered, "width": 0.2, "group": range(12)},
        index=ds["station"].values,
    )
    found = describe_coverage(table, ds)
    assert found["covered_groups"] == pytest.approx(0.9)
    assert found["places"] == 12
    low, high = found["covered_groups_interval"]
    half = 2.201 * np.std(covered, ddof=1) / np.sqrt(12)  # Student's t of 11 degrees of freedom
    assert low <= 0.9 - half + 1e-4
    assert 0.9 + half - 1e-4 <= high <= 1.0
    (network,) = found["groups"]["network"]
    assert network["covered_groups_interval"] == [low, high]
    # Nine clusters have none, nor have shares that are all 1: another place may have less.
    assert describe_coverage(table[:9], ds)["covered_groups_interval"] == [None, None]
    assert describe_coverage(table.assign(covered=1.0), ds)["covered_groups_interval"] == [None, None]
    assert describe_coverage(table[:0], ds)["covered_groups"] is None
