"""Colours by the formulas of colour science, pictures and pages as a browser shows them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from PIL import Image
from pyproj import Transformer

from smgeo.errors import SmgeoError
from smgeo.report import draw_map, write_animation, write_slider
from smgeo.report.palette import soil_moisture

DAYS = [f"2020-01-0{i}" for i in range(1, 5)]


def _lab(rgb):
    """sRGB to CIELAB, one colour at a time."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    rows = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
    xyz = [sum(m * v for m, v in zip(row, linear, strict=True)) for row in rows]
    white = (0.95047, 1.0, 1.08883)
    f = [
        (v / w) ** (1 / 3) if v / w > (6 / 29) ** 3 else v / w / (3 * (6 / 29) ** 2) + 4 / 29
        for v, w in zip(xyz, white, strict=True)
    ]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _colour_blind(rgb, matrix):
    """As seen without one kind of cone (Machado, Oliveira and Fernandes 2009), in linear light."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(matrix).T, 0, 1)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)


DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]


def test_steps_of_the_palette_are_even_and_it_darkens_all_the_way():
    lab = np.array([_lab(c[:3]) for c in soil_moisture()(np.linspace(0, 1, 256))])
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert steps.std() / steps.mean() < 0.1
    assert (np.diff(lab[:, 0]) < 0).all()
    assert lab[0, 0] - lab[-1, 0] > 60


@pytest.mark.parametrize("matrix", [DEUTERANOPIA, PROTANOPIA])
def test_without_red_or_green_cones_ten_classes_stay_apart(matrix):
    ten = soil_moisture()(np.linspace(0, 1, 10))[:, :3]
    lab = np.array([_lab(c) for c in _colour_blind(ten, matrix)])
    assert (np.diff(lab[:, 0]) < 0).all()
    assert np.linalg.norm(np.diff(lab, axis=0), axis=1).min() > 7


@pytest.fixture
def made():
    """Four days of 6 x 8 pixels with all layers that a map may have; one pixel without a value."""
    box = GeoBox.from_bbox((500_000, 5_000_000, 500_800, 5_000_600), "EPSG:32632", resolution=100)
    values = np.linspace(0.1, 0.4, 48).reshape(6, 8)[None] + np.arange(4)[:, None, None] / 100
    values[:, 0, 0] = np.nan
    about = {"units": "m3 m-3", "grid_mapping": "spatial_ref"}
    dims = ("time", "y", "x")
    inside = np.where(np.isnan(values), np.nan, values > 0.2)
    data = {
        "sm": (dims, values, about),
        "sm_lower": (dims, values - 0.05, {**about, "coverage": 0.9}),
        "sm_upper": (dims, values + 0.05, about),
        "applicable": (dims, inside, {"grid_mapping": "spatial_ref"}),
    }
    return xr.Dataset(data, {"time": pd.to_datetime(DAYS), **xr_coords(box, dims=("y", "x"))})


@pytest.fixture
def stations():
    lon, lat = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True).transform(
        [500_200, 900_000], [5_000_450, 5_000_000]
    )
    sm = np.array([[0.2, np.nan, 0.3, 0.3], [0.1] * 4])
    return xr.Dataset(
        {"sm": (("station", "time"), sm, {"units": "m3 m-3"})},
        {
            "station": ["N/<b>here</b>", "N/far"],
            "time": pd.to_datetime(DAYS),
            "longitude": ("station", lon),
            "latitude": ("station", lat),
        },
    )


def test_a_picture_has_a_panel_for_each_thing_a_map_says(made, stations):
    figure = draw_map(made, DAYS[0], stations, against=made["sm"] - 0.01)
    titles = [a.get_title() for a in figure.axes if a.get_title()]
    assert titles == [
        "sm (m3 m-3)",
        "difference (m3 m-3)",
        "width of the 90 % interval (m3 m-3)",
        "inside the area of applicability",
    ]
    panel = figure.axes[0]
    image = panel.images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(image, np.nan), made["sm"].values[0])
    # A third of 800 m: 200 m.
    assert [t.get_text() for t in panel.texts] == ["200 m"]
    points = [c for c in panel.collections if len(c.get_offsets())]
    assert len(points) == 1
    np.testing.assert_allclose(points[0].get_offsets(), [[500_200, 5_000_450]], atol=0.01)
    assert points[0].get_array().tolist() == [0.2]
    # Without a measurement the point is a black cross.
    second = draw_map(made, DAYS[1], stations).axes[0].collections
    assert [c.get_facecolor().tolist() for c in second if len(c.get_offsets())] == [[[0.0, 0.0, 0.0, 1.0]]]
    with pytest.raises(SmgeoError, match="no day 2021-01-01; its days are from 2020-01-01 to 2020-01-04"):
        draw_map(made, "2021-01-01")


def test_an_animation_has_a_frame_a_day(made, tmp_path):
    file = write_animation(made, tmp_path / "sm.gif", frame_ms=120)
    with Image.open(file) as picture:
        assert picture.n_frames == 4
        assert picture.info["duration"] == 120
        assert picture.size == (800, 600)
        assert picture.convert("RGB").getpixel((5, 5)) == (220, 220, 220)
    with pytest.raises(SmgeoError, match=r"is a \.gif or \.webp file"):
        write_animation(made, tmp_path / "sm.mp4")


@pytest.fixture
def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium is installed (apt install chromium)")
        pytest.skip("needs Chromium to look at the page")

    def look(url, *options):
        command = [found, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", *options, url]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    return look


def test_a_browser_shows_the_day_that_is_asked_for(made, stations, tmp_path, browser):
    page = write_slider(made, tmp_path / "map.html", stations, title="Field <3>")
    text = page.read_text()
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", text)
    seen = {}
    for day in (DAYS[0], DAYS[2]):
        dom = browser(f"file://{page}#{day}", "--dump-dom")
        assert f">{day}</output>" in dom
        seen[day] = re.search(r'<img id="picture"[^>]*src="data:image/png;base64,([^"]+)"', dom)[1]
        assert 'title="N/&lt;b&gt;here&lt;/b&gt;"' in dom
        assert "N/far" not in dom
        assert "Field &lt;3&gt;" in dom
    layers = json.loads(re.search(r"const layers = (.*);", text)[1])
    assert [layer["label"] for layer in layers] == [
        "sm (m3 m-3)",
        "width of the 90 % interval (m3 m-3)",
        "inside the area of applicability",
    ]
    assert [seen[DAYS[0]], seen[DAYS[2]]] == [layers[0]["frames"][i] for i in (0, 2)]
    browser(f"file://{page}#{DAYS[2]}", f"--screenshot={tmp_path / 'shot.png'}", "--window-size=900,900")
    with Image.open(tmp_path / "shot.png") as shot:
        colours = {c for _, c in shot.convert("RGB").getcolors(1_000_000)}
    expected = soil_moisture()(np.linspace(0, 1, 256))[:, :3] * 255
    # Most of the palette is on the screen: in the map or in the legend.
    near = [min(np.abs(np.array(c) - w).max() for c in colours) <= 4 for w in expected[::16]]
    assert np.mean(near) > 0.9
