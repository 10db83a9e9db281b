"""The check of a recipe's inputs: all faults at once, and archives that a run scans once."""

from __future__ import annotations

import pytest

import smgeo
from smgeo.errors import SmgeoError
from smgeo.recipe.study import parse_recipe
from smgeo.sources.stations import ismn
from smgeo.study.inputs import check_inputs, open_all_stations


@pytest.fixture
def data(tmp_path):
    """Four stations of ten days."""
    folder = tmp_path / "data" / "archive"
    folder.mkdir(parents=True)
    for name in "ABCD":
        rows = [f"2015/04/{d:02d} {h:02d}:00 0.2 G M" for d in range(1, 11) for h in range(24)]
        file = f"N_N_{name}_sm_0.050000_0.050000_P_20150401_20150410.stm"
        (folder / file).write_text("\n".join([f"N N {name} 45.{ord(name)} 3.0 100.0 0.05 0.05 P", *rows]))
    return tmp_path / "data"


RECIPE = {"name": "r", "stations": [{"kind": "ismn", "path": "archive"}], "features": ["doy_sin", "doy_cos"]}


def test_a_run_scans_an_archive_once(data, tmp_path, monkeypatch):
    scans = []
    plain = ismn.find_sensors
    monkeypatch.setattr(ismn, "find_sensors", lambda *args: scans.append(args) or plain(*args))
    smgeo.run(RECIPE, out=tmp_path / "run", data=data)
    assert len(scans) == 1
    cube = smgeo.open_cube(tmp_path / "run" / "stations.zarr")
    assert cube["station"].values.tolist() == [f"N/{name}" for name in "ABCD"]
    assert float(cube["sm"].min()) == float(cube["sm"].max()) == pytest.approx(0.2)


def test_the_check_gives_what_the_sources_give(data, tmp_path):
    recipe = parse_recipe(RECIPE)
    opened = check_inputs(recipe, data, tmp_path)
    assert opened is not None
    assert opened.identical(open_all_stations(recipe, data))
    assert check_inputs(parse_recipe({**RECIPE, "world": {}}), tmp_path / "world", tmp_path) is None


def test_all_faults_are_listed_at_once(data, tmp_path):
    sources = [{"kind": "ismn", "path": "nowhere"}, {"kind": "ismn", "path": "archive", "variables": ["wind"]}]
    recipe = parse_recipe(
        {
            **RECIPE,
            "stations": sources,
            "variables": {"wind": {"units": "m s-1", "long_name": "wind", "kind": "dynamic"}},
            "rasters": [{"kind": "geotiff", "path": "none_*.tif", "bands": {"elevation": 1}}],
            "models": {"rf": {"n_estimators": -1}},
        }
    )
    with pytest.raises(SmgeoError) as error:
        check_inputs(recipe, data, tmp_path)
    message = str(error.value)
    for words in ("4 faults: (1) models.rf: ", "nowhere not found", "does not contain 'wind'", "none_*.tif"):
        assert words in message


def test_all_that_too_few_stations_cannot_give_is_listed(data, tmp_path):
    recipe = parse_recipe(
        {
            **RECIPE,
            "models": {"rf": {}},
            "cross_validation": {"method": "group-k-fold", "folds": 9},
            "leakage_audit": {"folds": 8},
        }
    )
    with pytest.raises(SmgeoError) as error:
        check_inputs(recipe, data, tmp_path)
    for words in (
        "cross_validation.folds (group-k-fold): 9 folds of 4",
        "leakage_audit.folds: 8 folds of 4",
        "validation",
    ):
        assert words in str(error.value)
