"""Several faults at once: one reading of a recipe reports all of them."""

from __future__ import annotations

import copy
import re

import pytest

from smgeo.errors import SmgeoError
from smgeo.recipe.checks import RULES
from smgeo.recipe.grid import GridSpec
from smgeo.recipe.search import SearchSpec
from smgeo.recipe.spec import parse_spec
from smgeo.recipe.study import parse_recipe

VALID = {
    "name": "small",
    "period": ["2020-01-01", "2020-01-31"],
    "stations": [
        {"kind": "csv", "path": "t.csv", "columns": {"station": "id", "time": "day", "x": "e", "y": "n", "sm": "vw"}}
    ],
    "rasters": [{"kind": "geotiff", "path": "s1_*.tif", "dates": "s1_%Y%m%d.tif", "bands": ["s1_vv", "s1_vh"]}],
    "grid": {"crs": "EPSG:32632", "resolution": 100.0, "bounds": [0, 0, 1000, 1000]},
    "features": ["s1_vv", "s1_cross_ratio", "doy_sin"],
    "models": {"rf": {}, "small": {"kind": "ann", "units": 8}},
    "maps": {"dates": ["2020-01-15"]},
}


def problems_of(**parts) -> list[str]:
    """What is wrong with the valid recipe once these parts of it are replaced."""
    with pytest.raises(SmgeoError) as error:
        parse_recipe({**copy.deepcopy(VALID), **parts})
    return str(error.value).removeprefix("recipe: ").split("; ")


def test_faults_of_all_kinds_are_reported_at_once():
    found = "; ".join(
        problems_of(
            features=["s1_vvv", "s1_vv", "s1_vv", "sm", "clay"],
            period=["2020-02-01", "2020-01-01"],
            rasters=[{"kind": "geotiff", "path": "s1_*.tif", "bands": ["s1_vv"], "units": {"s1_vv": "1"}}],
            models={"rf": {"prepare": {"scale": "max", "split": {}, "window": {"lenght": 3}}}},
            maps={"dates": ["2021-01-15"], "models": ["rff"]},
            search={"ann": {}},
            prepare={"outliers": {"z": "choose", "variables": ["s1_w"]}},
            cross_validation=[{"folds": 3}],
            importance={"groups": {"radar": ["s1_vh"]}},
            report={"series": ["clay", "doy_sin"], "dates": []},
        )
    )
    for part in (
        "features: unknown variable 's1_vvv'; did you mean 's1_vv'?",
        "features: names a variable twice: s1_vv",
        "features: the target 'sm' is among the features",
        "features: 'clay': no source gives it",
        "rasters 's1_*.tif': s1_vv vary in time, so dates",
        "rasters 's1_*.tif': s1_vv is given in '1', but the cube needs 'dB'",
        "maps: model 'rff' is not in models; did you mean 'rf'?",
        "search: model 'ann' is not in models",
        "importance.groups.radar: 's1_vh' is not in features",
        "report.series: 'clay' does not vary in time and place",
        "report.series: 'doy_sin' is not in features",
        "prepare.outliers.variables: 's1_w' is not in features",
        "period: ends before it begins: 2020-02-01 to 2020-01-01",
        "maps.dates: outside period (2020-02-01 to 2020-01-01): 2021-01-15",
        "cross_validation: prepare.outliers.z is chosen on the split's validation stations",
        "models.rf.prepare: unknown key 'split'",
        "models.rf.prepare.scale: needs 'minmax', 'robust' or 'standard'; got 'max'",
        "models.rf.prepare.window: unknown key 'lenght'; did you mean 'length'?",
    ):
        assert found.count(part) == 1, part


def test_one_fault_is_reported_once():
    # The unknown variable is neither "given by no source" nor "not mapped", and a model does not repeat what is wrong in `prepare`.
    assert problems_of(features=["s1_vv", "s1_vvv"]) == [
        "features: unknown variable 's1_vvv'",
        "did you mean 's1_vv'?",
        "or describe it in variables",
    ]
    models = {"rf": {"prepare": {"scale": "robust"}}}
    assert problems_of(models=models, prepare={"fill": {"limit": {"s1_v": 2}}}) == [
        "prepare.fill.limit: 's1_v' is not in features",
        "did you mean 's1_vv'?",
    ]
    missing = problems_of(features=["s1_vv", "clay"])
    assert missing == ["features: 'clay': no source gives it", "add a source or drop the feature"]


def test_unknown_keys_do_not_hide_each_other_or_wrong_values():
    found = problems_of(
        modles={}, seeed=1, seed="x", prepare={"windw": {}, "window": {"length": 0, "mising": 0.1}}, maps={}
    )
    assert found == [
        "unknown key 'modles'",
        "did you mean 'models'?",
        "unknown key 'seeed'",
        "did you mean 'seed'?",
        "seed: needs a whole number",
        "got 'x'",
        "prepare: unknown key 'windw'",
        "did you mean 'window'?",
        "prepare.window: unknown key 'mising'",
        "did you mean 'missing'?",
        "prepare.window.length: needs a number not below 1",
        "got 0",
        "maps.dates is missing",
    ]


def test_rules_of_splits_by_days_are_reported_at_once():
    periods = {"train": ["2020-01-01", "2020-01-20"], "test": ["2020-01-21", "2020-01-31"]}
    found = "; ".join(
        problems_of(
            features=["s1_vv", "target_mean"],
            prepare={"split": {"periods": periods}, "outliers": {"z": "choose"}},
            learning_curve=True,
            intervals=True,
            applicability=True,
            search={"rf": {}, "small": {"objective": 3}},
            importance={"part": "validation"},
            cross_validation=[{"method": "spatial-blocks", "folds": 3}, {"folds": 3}],
        )
    )
    for part in (
        "learning_curve: adds training stations",
        "intervals: it is learned for new places",
        "applicability: it is learned for new places",
        "search.rf, small: with prepare.split.periods a trial is scored on the validation days",
        "prepare.outliers.z: choose scores validation stations",
        "importance.part: validation needs",
        "cross_validation: spatial-blocks, leave-location-out holds stations out",
        "maps, report: no pixel has the feature 'target_mean'",
    ):
        assert found.count(part) == 1, part


def test_every_rule_is_applied_to_a_valid_recipe():
    assert [problem for rule in RULES for problem in rule(parse_recipe(VALID))] == []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("trials", True, "trials: needs a whole number; got true"),
        ("trials", "5", "trials: needs a whole number; got '5'"),
        ("seed", False, "seed: needs a whole number; got false"),
    ],
)
def test_numbers_are_neither_text_nor_true_or_false(key, value, words):
    with pytest.raises(SmgeoError, match=re.escape(words)):
        parse_spec(SearchSpec, {key: value}, "search")


def test_days_are_no_numbers():
    with pytest.raises(SmgeoError, match=r"period\.0: needs a date such as 2020-01-31; got 0"):
        parse_spec(GridSpec, {"like": "a.tif", "period": [0, "2020-01-01"]}, "grid")


def test_a_window_longer_than_the_period_is_refused_before_any_work():
    models = {"gru": {}, "ann": {}, "gentle": {"kind": "lstm", "mode": "sequence"}, "short": {"kind": "cnn"}}
    models["short"]["prepare"] = {"window": {"length": 31}}
    assert problems_of(models=models, prepare={"window": {"length": 32}}) == [
        "models.gru: sees windows of 32 days, and period has 31",
        "give a longer period, or a shorter prepare.window.length",
    ]


def test_layers_of_maps_and_nearest_groups_need_what_they_are_made_from():
    maps = {"dates": ["2020-01-15"], "layers": ["expected_error"]}
    assert problems_of(maps=maps) == [
        "maps.layers: expected_error tell of the area of applicability",
        "add applicability: true",
    ]
    assert problems_of(maps=maps, applicability={"models": ["rf"]}) == [
        "maps.layers: applicability.models leaves out small, which maps.models maps",
        "name the same models in both",
    ]
    parse_recipe({**copy.deepcopy(VALID), "maps": maps, "applicability": True})
    assert "intervals of 90 % need nearest: 9 or more" in "; ".join(problems_of(intervals={"nearest": 8}))
    found = "; ".join(problems_of(maps={**maps, "layers": ["density"]}))
    assert "maps.layers" in found
    assert "'density'" in found
