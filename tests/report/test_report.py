"""The report: one self-contained page with the numbers of results.json."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil

import numpy as np
import pytest
import xarray as xr

from smgeo.errors import SmgeoError
from smgeo.report.page import write_report
from smgeo.report.run_pictures import choose_series
from smgeo.report.schema import SCHEMA_VERSION, read_provenance, read_results

pytest.importorskip("tensorflow")
pytest.importorskip("ydf")
pytest.importorskip("ismn")


@pytest.fixture(scope="module")
def page(toy_run):
    return (toy_run.folder / "report.html").read_text(encoding="utf-8")


def test_page_needs_nothing_from_outside(page):
    links = re.findall(r"""(?:src|href|action|data)\s*=\s*["']([^"']*)""", page)
    assert links
    assert [v[:40] for v in links if not v.startswith(("data:", "#"))] == []
    assert not re.search(r"url\(|@import|<script[^>]+src|<link", page)


def test_the_results_of_a_run_fit(toy_run):
    found = read_results(toy_run.folder)
    assert found.schema_version == SCHEMA_VERSION
    assert found.model_dump(mode="json", exclude_unset=True) == toy_run.results
    assert set(read_provenance(toy_run.folder).stages) >= {"stations", "split", "model rf"}


def test_pictures_are_pictures(page):
    pictures = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    assert len(pictures) >= 4  # stations, scatter, series, maps
    assert all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    assert len(re.findall(r"<img[^>]*>", page)) == len(re.findall(r'<img[^>]*\salt="[^"]+', page))


def test_page_shows_every_score(page, toy_run):
    text = re.sub(r"<[^>]+>", " ", page)
    for parts in toy_run.results["models"].values():
        for scores in parts.values():
            assert f"{scores['rmse']:.3f}" in text
            assert f"{scores['n']:,}" in text


def test_page_holds_the_resolved_recipe(page, toy_run):
    assert html.escape((toy_run.folder / "recipe.yaml").read_text()).splitlines()[0] in page


def test_text_from_a_recipe_is_not_taken_for_html(toy_run, tmp_path):
    folder = shutil.copytree(toy_run.folder, tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    results["name"] = "<script>alert(1)</script>"
    (folder / "results.json").write_text(json.dumps(results))
    write_report(folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_folder_without_a_run(tmp_path):
    with pytest.raises(SmgeoError, match="not a finished run"):
        write_report(tmp_path)


def test_series_shown_are_test_stations_from_best_to_worst():
    # Errors of the stations, constant in time: the RMSE is the error itself. Station 1 is no test station.
    errors = np.array([0.5, 0.0, 0.1, 0.3, 0.2, 0.4])
    observed = np.zeros((6, 3))
    ds = xr.Dataset(
        {"observed": (("station", "time"), observed), "predicted": (("station", "time"), observed + errors[:, None])},
        {"part": ("station", ["test", "train", "test", "test", "test", "test"])},
    )
    assert choose_series(ds, 2) == [2, 0]
    assert choose_series(ds, 5) == [2, 4, 3, 5, 0]
    ds["predicted"][2, :] = np.nan
    assert choose_series(ds, 2) == [4, 0]
