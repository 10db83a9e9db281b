"""A recipe that asks for intervals and the area of applicability, from the models to the maps."""

from __future__ import annotations

import copy
import json
import warnings

import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio

import smgeo
from smgeo.errors import SmgeoError, SmgeoWarning


@pytest.fixture(scope="module")
def recipe(toy_recipe):
    values = copy.deepcopy(toy_recipe)
    values["models"] = {"rf": {"trees": 5}, "ann": {"units": 4, "epochs": 1}}
    values["prepare"]["split"]["fractions"] = [0.5, 0.3, 0.2]
    values["intervals"] = {"level": 0.8}
    values["applicability"] = {"models": ["rf"], "folds": 3, "weights": "equal"}
    values["maps"]["region"] = [4_400_000, 0, 9_000_000, 9_000_000]
    return values


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    values = copy.deepcopy(recipe)
    del values["maps"]["region"]
    return smgeo.run(values, out=tmp_path_factory.mktemp("uncertain") / "run")


def test_results_tell_of_coverage_and_area(run):
    found = run.results["prediction_intervals"]
    assert set(found) == {"rf", "ann"}
    for c in found.values():
        assert c["level"] == 0.8
        assert 0 < c["covered"] <= 1
        parts = run.results["split"]
        assert c["calibrated_on"]["stations"] == len(parts["train"]) + len(parts["validation"])
        assert sum(g["rows"] for g in c["groups"]["network"]) == c["rows"]
    area = run.results["applicability"]
    assert set(area) == {"rf"}
    assert 0 <= area["rf"]["share_inside"] <= 1
    assert len(set(area["rf"]["weights"].values())) == 1
    table = pd.read_csv(run.folder / "tables" / "prediction_intervals.csv")
    assert list(table["model"].unique()) == ["rf", "ann"]
    page = run.report.read_text()
    assert "Prediction intervals" in page
    assert "Area of applicability" in page


def test_maps_have_the_bands_that_models_know(run):
    bands = {}
    for name in ("rf", "ann"):
        with rasterio.open(run.folder / "maps" / name / "sm_2016-02-10.tif") as src:
            bands[name] = src.descriptions
    assert bands == {"rf": ("sm", "sm_lower", "sm_upper", "applicable"), "ann": ("sm", "sm_lower", "sm_upper")}


def test_maps_are_a_stac_catalogue(run):
    folder = run.folder / "maps" / "rf"
    collection = pystac.Collection.from_file(str(folder / "collection.json"))
    items = sorted(collection.get_items(), key=lambda i: i.id)
    assert [i.id for i in items] == ["sm_2016-02-10", "sm_2016-03-01"]
    for item in items:
        with rasterio.open(folder / f"{item.id}.tif") as src:
            assert item.properties["proj:shape"] == list(src.shape)
            assert [b["name"] for b in item.to_dict()["assets"]["map"]["bands"]] == list(src.descriptions)
            assert item.properties["proj:transform"][:6] == pytest.approx(list(src.transform)[:6])
        # Its own schema, without the extensions', which lie on the network.
        item.stac_extensions = []
        item.validate()
        west, south, east, north = item.bbox
        assert -180 <= west < east <= 180
        assert -90 <= south < north <= 90
    collection.validate()


def test_a_second_run_has_nothing_to_do(run, recipe):
    before = json.loads((run.folder / "results.json").read_text())
    values = copy.deepcopy(recipe)
    del values["maps"]["region"]
    said = []

    class Listens(smgeo.study.progress.Reporter):
        def say(self, text):
            said.append(text)

    again = smgeo.run(values, out=run.folder, reporter=Listens())
    assert again.results == before
    assert all("unchanged" in text for text in said if text.startswith(("model", "intervals", "applicability", "map")))
    assert [text for text in said if text.startswith("intervals rf")]


def test_a_region_beside_the_grid_is_refused(run, recipe):
    with pytest.raises(SmgeoError, match="contains no pixel of the grid"):
        smgeo.run({**recipe, "maps": {**recipe["maps"], "region": [0, 0, 1, 1]}}, out=run.folder)


def test_a_recipe_asks_for_layers_and_nearest_groups(recipe, tmp_path):
    values = copy.deepcopy(recipe)
    del values["models"]["ann"], values["maps"]["region"]
    values["intervals"]["nearest"] = 6
    values["maps"]["layers"] = ["local_point_density", "expected_error"]
    run = smgeo.run(values, out=tmp_path / "run")
    with rasterio.open(run.folder / "maps" / "rf" / "sm_2016-02-10.tif") as src:
        assert src.descriptions[3:] == ("applicable", "local_point_density", "expected_error")
        inside, density, error = (src.read(band) for band in (4, 5, 6))
        assert src.units[5] == "m3 m-3"
    assert ((density > 0) == (inside == 1)).all()
    assert (np.isfinite(error) == (inside == 1)).all()
    area = run.results["applicability"]["rf"]
    assert 0 < area["rmse_expected"] < 0.2
    assert smgeo.load_model(run.folder / "models" / "rf").calibration_.local.nearest == 6


@pytest.mark.parametrize("key", ["intervals", "applicability"])
def test_splits_in_time_have_neither(recipe, key, tmp_path):
    values = copy.deepcopy(recipe)
    del values["maps"], values["intervals"], values["applicability"]
    values["prepare"]["split"] = {
        "periods": {"train": ["2016-01-01", "2016-01-31"], "test": ["2016-02-10", "2016-03-01"]}
    }
    with pytest.raises(SmgeoError, match=f"{key}: it is learned for new places"):
        smgeo.run({**values, key: True}, out=tmp_path / "run")


def test_too_few_stations_for_the_level_are_told(recipe, tmp_path):
    values = {**copy.deepcopy(recipe), "intervals": {"level": 0.99}}
    values["models"] = {"rf": {"trees": 2}}
    del values["maps"]
    with pytest.raises(SmgeoError, match="intervals of 99 % need 99 stations"):
        smgeo.run(values, out=tmp_path / "run")
    values["intervals"] = {"level": 0.9, "method": "split"}
    with pytest.raises(SmgeoError, match="intervals of 90 % need 9 stations"):
        smgeo.run(values, out=tmp_path / "run")


@pytest.mark.parametrize("method", ["folds", "split"])
def test_errors_at_stations_that_chose_a_threshold_are_too_small(recipe, tmp_path, method):
    """Folds learn without them; where there are no others, it is said."""
    values = copy.deepcopy(recipe)
    del values["maps"], values["applicability"]
    values["models"] = {"rf": {"trees": 5}}
    values["prepare"]["outliers"] = {"z": "choose", "variables": ["sm"]}
    values["intervals"] = {"level": 0.6, "method": method}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SmgeoWarning)
        run = smgeo.run(values, out=tmp_path / "run")
    said = [
        str(w.message) for w in caught if "intervals of rf are learned at the validation stations" in str(w.message)
    ]
    learned = run.results["prediction_intervals"]["rf"]["calibrated_on"]["stations"]
    parts = run.results["split"]
    assert (len(said), learned) == ((0, len(parts["train"])) if method == "folds" else (1, len(parts["validation"])))
