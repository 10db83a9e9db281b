"""Search specs and spaces: the study's space, what is refused and where, and that samples are spread as they say."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from smgeo.errors import SmgeoError
from smgeo.models import make_model
from smgeo.recipe.search import Range, SearchSpec
from smgeo.recipe.spec import parse_spec
from smgeo.tuning.space import check_space, default_space, sample_params

KINDS = ["ann", "gru", "lstm", "cnn", "rf"]
EXTRAS = {"rf": "ydf"}


def samples(choices, n=2000):
    return [sample_params({"p": choices}, trial, seed=5)["p"] for trial in range(n)]


def test_a_search_needs_nothing_said():
    assert SearchSpec().model_dump() == {
        "trials": 20,
        "search": "random",
        "scheduler": "asha",
        "objective": "validation",
        "epochs": None,
        "concurrent": None,
        "seed": None,
        "space": None,
    }


def test_a_search_as_recipes_had_it_is_still_one():
    spec = SearchSpec.model_validate(
        {"trials": 3, "seed": 1, "space": {"max_depth": {"integer": [1, 12]}, "leaf": [2]}}
    )
    assert (spec.trials, spec.seed, spec.space) == (3, 1, {"max_depth": Range(integer=(1, 12)), "leaf": (2,)})


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("trials", 0, "trials: needs a number not below 1; got 0"),
        ("search", "axe", "search: needs 'random', 'ax' or 'optuna'; got 'axe'"),
        ("scheduler", "hyperband", "scheduler: needs 'asha' or 'none'; got 'hyperband'"),
        ("objective", 1, "objective: needs 'validation' or a number not below 2; got 1"),
        ("objective", "test", "objective: needs 'validation' or a whole number; got 'test'"),
        ("epochs", 0, "epochs: needs a number not below 1; got 0"),
        ("concurrent", 0, "concurrent: needs a number not below 1; got 0"),
        ("seed", -1, "seed: needs a number not below 0; got -1"),
        ("space", {}, "space: needs 1 or more values; got a mapping"),
        ("space", {"units": []}, "space.units: needs 1 or more values or a mapping (key: value); got []"),
        ("space", {"units": 64}, "space.units: needs a list or a mapping (key: value); got 64"),
        (
            "space",
            {"units": {"integer": [8, 8]}},
            "space.units: a range is [least, greatest], least below greatest; got [8, 8]",
        ),
        (
            "space",
            {"u": {"uniform": [1, 0.5]}},
            "space.u: a range is [least, greatest], least below greatest; got [1, 0.5]",
        ),
        (
            "space",
            {"u": {"uniform": [0, np.inf]}},
            "space.u.uniform.1: needs a finite number; got inf",
        ),
        (
            "space",
            {"u": {"uniform": [np.nan, 1]}},
            "space.u.uniform.0: needs a finite number; got nan",
        ),
        ("space", {"rate": {"log": [0, 1]}}, "space.rate: log: both ends must be above 0; got [0, 1]"),
        ("space", {"u": {"integer": [1.5, 2]}}, "space.u.integer.0: needs a whole number; got 1.5"),
        ("space", {"u": {"intger": [1, 2]}}, "space.u: unknown key 'intger'; did you mean 'integer'?"),
        (
            "space",
            {"u": {"log": [1, 2], "uniform": [1, 2]}},
            "space.u: give one of integer, uniform, log, as [least, greatest]",
        ),
        ("sapce", {}, "unknown key 'sapce'; did you mean 'space'?"),
    ],
)
def test_what_is_wrong_in_a_search_is_said_with_its_place(key, value, says):
    with pytest.raises(SmgeoError) as error:
        parse_spec(SearchSpec, {key: value}, "search.ann")
    assert str(error.value) == f"search.ann: {says}"


def test_the_space_of_the_dense_network_is_the_studys():
    assert default_space("ann") == {
        "learning_rate": Range(log=(0.001, 0.1)),
        "dropout": Range(uniform=(0.1, 0.2)),
        "layers": Range(integer=(1, 10)),
        "units": Range(integer=(64, 256)),
        "activation": ("tanh", "sigmoid", "relu"),
        "optimizer": ("adam", "rmsprop", "sgd"),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_kinds_own_space_passes_its_models_checks(kind):
    pytest.importorskip(EXTRAS.get(kind, "keras"))
    check_space(kind, default_space(kind))
    for trial in range(20):
        params = sample_params(default_space(kind), trial)
        assert params.items() <= make_model(kind, **params).get_params().items()


def test_the_space_of_a_forest_fits_both_engines():
    check_space("rf", default_space("rf"), {"engine": "sklearn"})


def test_a_space_that_was_changed_by_its_user_is_not_changed_for_others():
    default_space("ann")["units"] = [8]
    assert default_space("ann")["units"] == Range(integer=(64, 256))


def test_a_regressor_has_no_space_of_its_own():
    with pytest.raises(
        SmgeoError,
        match=r"^Ridge has no search space .* ann, gru, lstm, cnn, rf, extra_trees, boosting\); give .* in space",
    ):
        default_space("Ridge")


@pytest.mark.parametrize(
    ("kind", "space", "says"),
    [
        ("ann", {"untis": [8]}, "space.untis: ann has no parameter 'untis'; did you mean 'units'?"),
        (
            "ann",
            {"layers": Range(integer=(0, 3))},
            "space.layers: ann: layers must be a whole number, 1 or more; got 0",
        ),
        ("ann", {"dropout": Range(uniform=(0.0, 1.0))}, "space.dropout: ann: dropout must be in [0, 1); got 1.0"),
        ("ann", {"units": Range(uniform=(8, 16))}, "space.units: ann: units must be a whole number; got 8.0"),
        ("ann", {"units": [8, "16"]}, "space.units: ann: units must be a whole number; got '16'"),
        ("ann", {"optimizer": ["adam", "adm"]}, "space.optimizer: ann: unknown optimizer 'adm'; did you mean 'adam'?"),
        ("rf", {"max_depth": Range(integer=(0, 9))}, "space.max_depth: rf: trees, max_depth"),
        ("Ridge", {"alpha": Range(uniform=(-1.0, 1.0))}, "space.alpha: The 'alpha' parameter of Ridge must be"),
    ],
)
def test_an_end_or_a_choice_that_the_model_refuses_is_refused_before_the_search(kind, space, says):
    pytest.importorskip("keras")
    with pytest.raises(SmgeoError) as error:
        check_space(kind, space, {"engine": "sklearn"} if kind == "rf" else None)
    assert str(error.value).startswith(says)


def test_a_space_may_be_of_a_users_regressor_and_of_a_part_of_a_pipeline():
    check_space(HistGradientBoostingRegressor(), {"max_leaf_nodes": Range(integer=(3, 31)), "max_depth": [None, 4]})
    check_space(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": Range(log=(0.01, 10.0))})
    with pytest.raises(SmgeoError, match=r"^space.ridge__alfa"):
        check_space(make_pipeline(StandardScaler(), Ridge()), {"ridge__alfa": [1.0]})


def test_what_is_fixed_is_checked_too():
    with pytest.raises(SmgeoError, match="unknown engine"):
        check_space("rf", {"max_depth": [3]}, {"engine": "sk"})


def test_numbers_on_an_even_scale_are_spread_evenly():
    assert stats.kstest(samples(Range(uniform=(-1.0, 3.0))), stats.uniform(-1, 4).cdf).pvalue > 0.01


def test_numbers_on_a_logarithmic_scale_are_spread_evenly_over_their_logarithm():
    values = samples(Range(log=(0.001, 0.1)))
    assert stats.kstest(values, stats.loguniform(0.001, 0.1).cdf).pvalue > 0.01
    assert stats.kstest(values, stats.uniform(0.001, 0.099).cdf).pvalue < 1e-6


@pytest.mark.parametrize("choices", [Range(integer=(-1, 2)), [-1, 0, 1, 2]])
def test_whole_numbers_and_choices_are_all_as_likely_ends_included(choices):
    counts = Counter(samples(choices))
    assert sorted(counts) == [-1, 0, 1, 2]
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_trials_of_a_seed_stay_what_they_were():
    # As drawn before spaces had a module of their own: tables of finished trials are compared with these.
    assert sample_params(default_space("ann"), 3, 0) == {
        "activation": "sigmoid",
        "dropout": pytest.approx(0.18604144367749376, rel=1e-12),
        "layers": 9,
        "learning_rate": pytest.approx(0.004392883083452412, rel=1e-12),
        "optimizer": "rmsprop",
        "units": 125,
    }


@settings(max_examples=50)
@given(st.sampled_from(KINDS), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_trial_depends_on_its_number_and_the_seed_alone(kind, trial, seed):
    space = default_space(kind)
    params = sample_params(space, trial, seed)
    assert params == sample_params(dict(reversed(space.items())), trial, seed)
    for name, value in params.items():
        choices = space[name]
        if isinstance(choices, Range):
            assert choices.ends[0] <= value <= choices.ends[1]
            assert type(value) is (int if choices.integer else float)
        else:
            assert value in choices
