"""Hostile names of stations and networks in everything that a run writes: shown as they are, and obeyed by nothing."""

from __future__ import annotations

import csv
import html
import re

import pytest

import smgeo
from smgeo.errors import SmgeoError
from smgeo.recipe.study import parse_recipe
from smgeo.report import draw_map, write_animation, write_slider
from tests.cli.test_cli import RECIPE, write_raster

NAMES = [
    *("$x_{^\\frac", "<script>alert(1)</script>", "=cmd()", "@SUM(1)", "a,b;c\"'", "\u202eevil", "\u540d" * 90),
    *("a\\b_c^d%e&f#g", "-x", "{{7*7}}"),
]
NETWORK = "<b>$N_{</b>"
TITLE = "<script>$_{\\</script>" + "\u00e9" * 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of ten stations with such names."""
    folder = tmp_path_factory.mktemp("names")
    for day in range(1, 11):
        write_raster(folder / f"p_202001{day:02d}.tif")
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "day", "lat", "lon", "depth", "vw"])
        for i, name in enumerate(NAMES):
            rows.writerows([name, f"2020-01-{d:02d}", f"0.{i}5", 0.05, 0.05, f"0.{d:02d}{i}"] for d in range(1, 11))
    (source,) = RECIPE["stations"]
    report = {"series": ["precipitation"]}
    recipe = {**RECIPE, "stations": [{**source, "network": NETWORK}], "report": report}
    smgeo.run(recipe, out=folder / "run", data=folder)
    return folder


def test_names_are_kept_as_they_are(folder):
    cube = smgeo.open_cube(folder / "run" / "stations.zarr")
    assert sorted(cube["station"].values.tolist()) == sorted(f"{NETWORK}/{name}" for name in NAMES)


def test_pages_show_names_and_run_nothing(folder):
    cube = smgeo.open_cube(folder / "run" / "stations.zarr")
    write_slider(folder / "run" / "maps" / "rf", folder / "p.html", cube, title=TITLE)
    for page in (folder / "run" / "report.html", folder / "p.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<script>(alert|\$)|<b>\$N", text)
    page = (folder / "p.html").read_text(encoding="utf-8")
    for name in (TITLE, *(f"{NETWORK}/{n}" for n in NAMES)):
        assert name in html.unescape(page)


def test_pictures_are_drawn(folder, tmp_path):
    cube = smgeo.open_cube(folder / "run" / "stations.zarr")
    made = folder / "run" / "maps" / "rf"
    draw_map(made, "2020-01-05", cube).savefig(tmp_path / "map.png")
    write_animation(made, tmp_path / "map.gif")
    assert (tmp_path / "map.png").stat().st_size > 10_000
    assert (tmp_path / "map.gif").read_bytes()[:3] == b"GIF"


def test_tables_have_no_formula_and_no_command(folder):
    tables = sorted((folder / "run" / "tables").iterdir())
    assert {t.suffix for t in tables} >= {".csv", ".tex"}
    for table in tables:
        text = table.read_text(encoding="utf-8")
        if table.suffix == ".csv":
            cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
            assert not [
                c for c in cells if (c[:1] in "=@+" and c) or (c[:1] == "-" and not re.fullmatch(r"-[\d.]+", c))
            ]
        elif table.suffix == ".tex":
            assert "\\frac" not in text


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ({"name": "n" * 101}, "name: must be letters, digits, '_' or '-', a letter first, at most 100 of them"),
        ({"models": {"m" * 300: {"kind": "rf"}}}, "with a letter first, at most 100 characters"),
        ({"features": ["f" * 300]}, "features: unknown variable"),
    ],
)
def test_names_too_long_for_a_folder_are_refused_before_any_work(part, place):
    with pytest.raises(SmgeoError, match=re.escape(place)):
        parse_recipe({**RECIPE, **part})
