"""Description and pictures of a grid cube, against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from smgeo.cube.writing import write_cube
from smgeo.report.grid_contents import average_days, choose_days, describe_grid
from smgeo.report.grid_pictures import draw_daily_means, draw_last_days, stretch
from smgeo.report.schema import DailyMeans, Grid


def variables_of(shown):
    return Grid.model_validate(shown).variables


@pytest.fixture
def cube(make_grid_cube):
    return make_grid_cube(days=6, height=3, width=4, gaps=0.3)


def test_description_counts_what_is_there(cube, tmp_path):
    cube["s1_vv"][:] = np.nan
    cube["s1_vv"][1, 0, :2] = -10.0
    cube["s1_vv"][4, 0, 0] = -10.0
    cube["clay"][2] = np.nan
    cube["temperature"][:] = np.nan
    about = describe_grid(write_cube(cube.chunk(), tmp_path / "g.zarr"), ["clay", "s1_vv", "temperature"])
    assert about["days"] == {"first": "2020-01-01", "last": "2020-01-06", "count": 6}
    assert list(about["variables"]) == ["clay", "s1_vv", "temperature"]
    radar = about["variables"]["s1_vv"]
    assert (radar["days"], radar["first_day"], radar["last_day"]) == (2, "2020-01-02", "2020-01-05")
    assert radar["valid_share"] == pytest.approx(3 / 24)
    assert about["variables"]["clay"]["valid_share"] == pytest.approx(8 / 12, abs=1e-6)
    empty = about["variables"]["temperature"]
    assert (empty["days"], empty["first_day"], empty["last_day"], empty["valid_share"]) == (0, None, None, 0.0)


def test_means_of_decibels_are_of_their_power(cube):
    cube["s1_vv"][:] = np.nan
    cube["s1_vv"][2, 0, :2] = [0.0, -10.0]  # powers 1 and 0.1
    found = average_days(cube.chunk(), ["s1_vv"], None)["s1_vv"]
    assert found["days"] == ["2020-01-03"]
    assert found["pixels"] == [2]
    assert found["mean"] == pytest.approx([10 * np.log10(0.55)], rel=1e-6)


def test_means_are_of_the_pixels_inside(cube):
    inside = np.zeros((3, 4), bool)
    inside[1] = True
    found = average_days(cube.chunk({"x": 2}), ["temperature"], inside)["temperature"]
    row = cube["temperature"].values[:, 1].astype(float)
    seen = np.isfinite(row).any(axis=1)
    assert found["mean"] == pytest.approx(np.nanmean(row[seen], axis=1), rel=1e-6)
    assert found["pixels"] == np.isfinite(row).sum(axis=1)[seen].tolist()


def test_days_chosen_have_the_most_pixels_with_every_band(cube):
    for name in ("s1_vv", "temperature"):
        cube[name][:] = 1.0
    cube["s1_vv"][[0, 1], 0] = np.nan  # the first row of two days
    cube["temperature"][[2, 3], 1] = np.nan
    cube["temperature"][4] = np.nan
    assert choose_days(cube.chunk(), ["s1_vv", "temperature"], 1) == ["2020-01-06"]
    assert choose_days(cube.chunk(), ["s1_vv", "temperature"], 3) == ["2020-01-01", "2020-01-04", "2020-01-06"]
    assert len(choose_days(cube.chunk(), ["s1_vv", "temperature"], 9)) == 5


def test_stretch_is_from_the_2nd_to_the_98th_percentile():
    red = np.arange(101, dtype="float32").reshape(1, 1, 101)
    blue = np.where(red == 50, np.nan, red)
    colours = stretch([red, 2 * red + 7, blue])
    assert colours[0, 0, [0, 2, 98, 100], 0].tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(colours[0, 0, 3:98, 0], (np.arange(3, 98) - 2) / 96, rtol=1e-5)
    np.testing.assert_allclose(colours[..., 1], colours[..., 0], rtol=1e-5)
    assert colours[0, 0, 50, 3] == 0
    assert colours[0, 0, [49, 51], 3].tolist() == [1, 1]


def test_last_day_drawn_is_the_last_with_a_value(cube, tmp_path):
    cube["temperature"][4:] = np.nan
    names = ["temperature", "clay"]
    shown = describe_grid(write_cube(cube.chunk(), tmp_path / "grid.zarr"), names)
    figure = draw_last_days(tmp_path, variables_of(shown))
    panels = {a.get_title(): a for a in figure.axes if a.get_title()}
    assert set(panels) == {"temperature, 2020-01-04", "clay, static"}
    image = panels["temperature, 2020-01-04"].images[0]
    np.testing.assert_array_equal(np.ma.filled(image.get_array(), np.nan), cube["temperature"].values[3])
    # Pixels of 100 m from x 500 000, y 5 000 000 downwards, equal in width and height, the first row on top.
    assert tuple(image.get_extent()) == (500_000, 500_400, 4_999_700, 5_000_000)
    assert image.origin == "upper"
    assert panels["temperature, 2020-01-04"].get_aspect() == 1


def test_daily_means_are_drawn_with_their_pixels():
    series = {"ndvi": {"units": "1", "days": ["2020-01-01", "2020-01-03"], "mean": [0.2, 0.4], "pixels": [7, 5]}}
    line, bars = draw_daily_means({n: DailyMeans.model_validate(one) for n, one in series.items()}).axes
    assert line.lines[0].get_ydata().tolist() == [0.2, 0.4]
    assert [b.get_height() for b in bars.patches] == [7, 5]


def test_cube_without_days_with_values_is_drawn(cube, tmp_path):
    cube = cube[["temperature"]]
    cube["temperature"] = xr.full_like(cube["temperature"], np.nan)
    shown = describe_grid(write_cube(cube.chunk(), tmp_path / "grid.zarr"), ["temperature"])
    assert draw_last_days(tmp_path, variables_of(shown)) is not None
    assert choose_days(cube.chunk(), ["temperature"]) == []
    assert average_days(cube.chunk(), ["temperature"], None)["temperature"]["mean"] == []
