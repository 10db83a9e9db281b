"""The study's split: disjoint, complete, extremes in training."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.errors import SmgeoError
from smgeo.prepare import Split, cv_folds, learnable, part_rows, split_periods, split_stations


def _extreme_ids(ds):
    """Stations of the least and the greatest value of every variable, one by one."""
    found = set()
    for name in ds.data_vars:
        values = ds[name].values.reshape(ds.sizes["station"], -1)
        for pick in (np.nanargmin, np.nanargmax):
            found.add(str(ds["station"].values[np.unravel_index(pick(values), values.shape)[0]]))
    return found


@given(st.integers(20, 50), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_parts_are_disjoint_complete_and_train_on_extremes(make_station_cube, n, seed):
    ds = make_station_cube(stations=n, days=5, seed=seed, gaps=0.2)
    split = split_stations(ds, (0.7, 0.1, 0.2), seed=seed)
    together = [*split.train, *split.validation, *split.test]
    assert sorted(together) == sorted(ds["station"].values)
    assert _extreme_ids(ds) == set(split.forced)
    assert set(split.forced) <= set(split.train)
    assert len(split.validation) == round(0.1 * n)
    assert len(split.test) == round(0.2 * n)
    assert split == split_stations(ds.chunk(station=3), (0.7, 0.1, 0.2), seed=seed)


def test_seeds_and_the_order_of_the_cube(make_station_cube):
    ds = make_station_cube(stations=40, days=3)
    one, two = split_stations(ds, seed=1, extremes_to_train=False), split_stations(ds, seed=2, extremes_to_train=False)
    assert one == split_stations(ds, seed=1, extremes_to_train=False)
    assert set(one.test) != set(two.test)
    assert not one.forced
    order = {s: i for i, s in enumerate(ds["station"].values)}
    for part in one.parts().values():
        assert [order[s] for s in part] == sorted(order[s] for s in part)


def test_extremes_name_their_variables(make_station_cube):
    ds = make_station_cube(stations=20, days=4)[["sm", "clay"]]
    ds["sm"][7, 2], ds["sm"][3, 0], ds["clay"][7], ds["clay"][11] = 0.9, 0.001, 99, 1
    assert split_stations(ds).forced == {"N/s7": ("max sm", "max clay"), "N/s3": ("min sm",), "N/s11": ("min clay",)}


def test_few_free_stations_are_shared_between_validation_and_test(make_station_cube):
    ds = make_station_cube(stations=8, days=2)
    forced = len(_extreme_ids(ds))
    assert forced < 8 - 1
    split = split_stations(ds, (0.2, 0.4, 0.4))
    assert len(split.train) == max(forced, 2)
    assert len(split.validation) + len(split.test) == 8 - max(forced, 2)


def test_stations_without_a_target_are_in_no_part_and_named(make_station_cube):
    ds = make_station_cube(stations=20, days=4)
    ds["sm"][[2, 11]] = np.nan
    ds["clay"][2] = 1e6  # no extreme: the station is not split
    split = split_stations(ds, (0.5, 0.25, 0.25), extremes_to_train=True, seed=3)
    assert split.left_out == ("N/s2", "N/s11")
    with_target = ds.isel(station=[i for i in range(20) if i not in (2, 11)])
    alone = split_stations(with_target, (0.5, 0.25, 0.25), extremes_to_train=True, seed=3)
    assert (split.parts(), split.forced) == (alone.parts(), alone.forced)
    assert not alone.left_out
    assert len(alone.test) == round(0.25 * 18)
    assert split_stations(ds.chunk(station=3), (0.5, 0.25, 0.25), seed=3) == split
    features = split_stations(ds.drop_vars("sm"), (0.5, 0.25, 0.25), extremes_to_train=False)
    assert (len(features.test), features.left_out) == (5, ())
    with pytest.raises(SmgeoError, match="none of the 20 stations has a value of the target sm"):
        split_stations(ds.assign(sm=ds["sm"].where(False).assign_attrs(ds["sm"].attrs)))


def test_text_dates_and_truth_have_no_extremes(make_station_cube):
    ds = make_station_cube(stations=12, days=3)
    n = ds.sizes["station"]
    more = {
        "sensor": ("station", np.array([f"probe {i}" for i in range(n)])),
        "since": ("station", pd.date_range("2001-01-01", periods=n)),
        "irrigated": ("station", np.arange(n) % 2 == 0),
        "soil": ("station", np.array([f"type {i}" for i in range(n)], dtype=object)),
    }
    assert split_stations(ds.assign(more), (0.5, 0.25, 0.25)) == split_stations(ds, (0.5, 0.25, 0.25))


def test_ids_are_given_as_the_cube_has_them(make_station_cube):
    ds = make_station_cube(stations=12, days=3).assign_coords(station=np.arange(100, 112))
    split = split_stations(ds, (0.5, 0.25, 0.25))
    assert all(i in split.train for i in split.forced)
    ids = [*split.train, *split.validation, *split.test]
    assert sorted(ids) == list(range(100, 112))
    np.testing.assert_array_equal(ds.sel(station=list(split.test))["station"], split.test)


@pytest.mark.parametrize("extremes", [False, True])
@pytest.mark.parametrize(("fractions", "empty"), [((0.5, 0.5, 0), "test"), ((0.5, 0.0, 0.5), "validation")])
def test_a_part_whose_share_is_0_is_empty(make_station_cube, fractions, empty, extremes):
    split = split_stations(make_station_cube(stations=20, days=3), fractions, extremes)
    other = "validation" if empty == "test" else "test"
    assert {name: len(part) for name, part in split.parts().items()} == {"train": 10, other: 10, empty: 0}


def test_an_empty_part_is_refused_by_name(make_station_cube):
    with pytest.raises(SmgeoError, match="validation and test would have no station"):
        split_stations(make_station_cube(stations=4), (0.9, 0.05, 0.05))
    with pytest.raises(SmgeoError, match="sum to 1"):
        split_stations(make_station_cube(), (0.9, 0.2, 0.1))
    for fractions in ((0.0, 0.5, 0.5), (np.nan, 0.5, 0.5), (1.2, -0.1, -0.1)):
        with pytest.raises(SmgeoError, match="sum to 1, with training above 0|fractions must be a number from 0 to 1"):
            split_stations(make_station_cube(), fractions)
    with pytest.raises(SmgeoError, match="in two parts: b"):
        Split(("a", "b"), ("b",), ("c",))


YEAR = {"train": ("2020-01-03", "2020-01-05"), "test": ("2020-01-06", "2020-01-08")}


def test_periods_hide_all_other_days_from_learning_and_keep_the_past_of_a_row(make_station_cube):
    ds = make_station_cube(stations=4, days=10)
    ds["sm"][2, 2:5] = np.nan  # never observed in the training days
    split = split_periods(ds, *YEAR.values())
    assert split.parts() == {"train": ("N/s0", "N/s1", "N/s3"), "validation": (), "test": ("N/s0", "N/s1", "N/s3")}
    assert (split.left_out, split.periods) == (("N/s2",), YEAR)
    seen = learnable(ds.chunk(station=2), split).compute()
    for name in ("sm", "s1_vv"):
        assert np.isfinite(seen[name].values).any(axis=0).tolist() == [2 <= day < 5 for day in range(10)]
        np.testing.assert_array_equal(seen[name][:, 2:5], ds[name][[0, 1, 3], 2:5])
    assert seen["clay"].values.tolist() == ds["clay"].values[[0, 1, 3]].tolist()
    held = part_rows(ds, split, "test", "sm")
    assert np.isfinite(held["sm"].values).any(axis=0).tolist() == [5 <= day < 8 for day in range(10)]
    np.testing.assert_array_equal(held["s1_vv"][:, :8], ds["s1_vv"][[0, 1, 3], :8])  # its past is there
    assert held["s1_vv"][:, 8:].isnull().all()  # what comes after is not
    assert Split.from_dict({**split.parts(), "left_out": split.left_out, "periods": split.periods}) == split


def test_a_revisit_measured_over_all_days_is_not_what_training_days_are_filled_by(make_station_cube):
    ds = make_station_cube(stations=2, days=10)
    ds["s1_vv"].attrs |= {"revisit_days": [3.0, 4.0], "revisit_stations": ["N/s0", "N/s1"]}
    seen = learnable(ds, split_periods(ds, *YEAR.values()))
    assert not {"revisit_days", "revisit_stations"} & set(seen["s1_vv"].attrs)
    assert ds["s1_vv"].attrs["revisit_days"] == [3.0, 4.0]


def test_split_by_station_learns_from_all_days_of_training_stations(make_station_cube):
    ds = make_station_cube(stations=3, days=4)
    split = Split(("N/s0", "N/s2"), (), ("N/s1",))
    assert learnable(ds, split).equals(ds.isel(station=[0, 2]))
    assert part_rows(ds, split, "test", "sm").equals(ds.isel(station=[1]))


@pytest.mark.parametrize(
    ("periods", "message"),
    [
        ((("2020-01-05", "2020-01-03"), YEAR["test"]), "train: period ends before it begins"),
        ((YEAR["train"], ("2020-01-05", "2020-01-08")), "test begins on 2020-01-05, and train ends on 2020-01-05"),
        (
            (*YEAR.values(), ("2020-01-05", "2020-01-05")),
            "validation begins on 2020-01-05, and train ends on 2020-01-05",
        ),
        (
            (YEAR["train"], ("2021-01-01", "2021-01-03")),
            r"from 2021-01-01 to 2021-01-03 \(test\); the cube's days are 2020-01-01",
        ),
    ],
)
def test_periods_that_make_no_split_are_refused(make_station_cube, periods, message):
    with pytest.raises(SmgeoError, match=message):
        split_periods(make_station_cube(stations=2, days=10), *periods)


def test_an_infinite_value_is_no_extreme_and_no_target(make_station_cube):
    ds, lacking = make_station_cube(stations=20), make_station_cube(stations=20)
    for name in ("s1_vv", "precipitation"):
        ds[name][3, 2:5], lacking[name][3, 2:5] = np.inf, np.nan
    ds["sm"][4], lacking["sm"][4] = -np.inf, np.nan
    for cube in (ds, ds.chunk(station=7)):
        assert split_stations(cube, (0.5, 0.25, 0.25)) == split_stations(lacking, (0.5, 0.25, 0.25))
    assert "N/s4" in split_stations(ds, (0.5, 0.25, 0.25)).left_out
    np.testing.assert_array_equal(cv_folds(ds, "group-k-fold", 4).rows, cv_folds(lacking, "group-k-fold", 4).rows)
