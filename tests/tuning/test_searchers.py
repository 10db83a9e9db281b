"""Searchers learn from trials: from those that run at once, that failed, or that another searcher suggested."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.errors import SmgeoError
from smgeo.recipe.search import Range
from smgeo.tuning.searchers import make_searcher
from smgeo.tuning.space import sample_params


def needs(package):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


LEARNING = [pytest.param("ax", marks=needs("ax")), pytest.param("optuna", marks=needs("optuna"))]
ALL = ["random", *LEARNING]
SPACE = {
    "learning_rate": Range(log=(0.001, 0.1)),
    "dropout": Range(uniform=(0.0, 0.5)),
    "units": Range(integer=(16, 128)),
    "activation": ["relu", "tanh", "sigmoid"],
    "batch_size": [256, 512, 4096],
    "depth": [None, 3],
    "optimizer": ["adam"],
}


def rmse_of(params):
    """A smooth bowl over SPACE; 0.05 at a rate of 0.01, dropout 0.2, 64 units, tanh, batches of 512."""
    far = [
        np.log10(params["learning_rate"] / 0.01),
        (params["dropout"] - 0.2) / 0.25,
        (params["units"] - 64) / 50,
        0.7 * (params["activation"] != "tanh"),
        0.7 * (params["batch_size"] != 512),
    ]
    return float(0.05 + 0.05 * np.square(far).sum())


def search(searcher, trials, rmse=rmse_of):
    """One trial at a time: (parameters, RMSE) of each."""
    done = []
    for trial in trials:
        params = searcher.suggest(trial)
        done.append((params, rmse(params)))
        searcher.tell(trial, *done[-1])
    return done


def is_of(params, space):
    """Check that parameters are of the space, in any order, with its types."""
    assert set(params) == set(space)
    for name, value in params.items():
        choices = space[name]
        if isinstance(choices, Range):
            assert type(value) is (int if choices.integer else float)
            assert choices.ends[0] <= value <= choices.ends[1]
        else:
            assert any(value is c or (type(value) is type(c) and value == c) for c in choices)
    return True


@pytest.mark.parametrize("name", ["random", pytest.param("optuna", marks=needs("optuna"))])
def test_parameters_are_of_the_space_and_of_pythons_types(name):
    done = search(make_searcher(name, SPACE, 0), range(9))
    assert all(is_of(params, SPACE) for params, _ in done)


@needs("optuna")
@settings(max_examples=10, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.one_of(
            st.tuples(st.integers(-5, 5), st.integers(6, 20)).map(lambda e: Range(integer=e)),
            st.tuples(st.floats(-1, 0), st.floats(0.5, 1)).map(lambda e: Range(uniform=e)),
            st.tuples(st.floats(1e-6, 1e-3), st.floats(0.01, 1)).map(lambda e: Range(log=e)),
            st.lists(st.one_of(st.integers(), st.none(), st.text(max_size=3)), min_size=1, max_size=4, unique=True),
            st.lists(st.lists(st.integers(0, 9), max_size=2), min_size=1, max_size=3, unique_by=str),
            st.permutations([True, False]),
        ),
        min_size=1,
    ),
    st.integers(0, 2**32 - 1),
)
def test_any_space_is_searched_and_rebuilt_by_optuna(space, seed):
    first = make_searcher("optuna", space, seed)
    done = search(first, range(12), lambda params: len(str(params)) / 100)
    assert all(is_of(params, space) for params, _ in done)
    rebuilt = make_searcher("optuna", space, seed)
    for trial, (params, rmse) in enumerate(done):
        rebuilt.tell(trial, params, rmse)
    assert rebuilt.suggest(12) == first.suggest(12)


@pytest.mark.soak
@needs("ax")
def test_ax_searches_lists_of_any_values():
    space = {"a": [True, False], "b": [[64], [64, 32]], "c": [0.5, 2, 8.0], "d": [8, 2], "e": [None, "x", 3]}
    done = search(make_searcher("ax", space, 0), range(6), lambda p: 0.1 + p["c"] / 10 + p["a"])
    assert all(is_of(params, space) for params, _ in done)


@needs("optuna")
def test_a_searcher_that_learns_finds_more_than_chance():
    def above_the_least(searcher, seed):
        return min(rmse for _, rmse in search(make_searcher(searcher, SPACE, seed), range(40))) - 0.05

    chance = np.mean([above_the_least("random", seed) for seed in range(50)])
    assert np.mean([above_the_least("optuna", seed) for seed in range(5)]) < 0.5 * chance


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_search_and_another_seed_another(name):
    first, again = (search(make_searcher(name, SPACE, 3), range(6)) for _ in range(2))
    assert first == again
    # Ax begins with the middle of the space, whatever the seed.
    assert search(make_searcher(name, SPACE, 4), range(2))[1] != first[1]


@pytest.mark.parametrize("name", ["random", pytest.param("optuna", marks=needs("optuna"))])
def test_a_rebuilt_search_of_one_trial_at_a_time_goes_on_as_if_it_had_not_stopped(name):
    whole = search(make_searcher(name, SPACE, 1), range(25))
    rebuilt = make_searcher(name, SPACE, 1)
    for trial, (params, rmse) in enumerate(whole[:15]):
        rebuilt.tell(trial, params, rmse)
    assert search(rebuilt, range(15, 25)) == whole[15:]


@pytest.mark.parametrize(
    ("name", "trials"),
    [pytest.param("ax", 20, marks=needs("ax")), pytest.param("optuna", 30, marks=needs("optuna"))],
)
def test_a_rebuilt_search_knows_what_it_was_told(name, trials):
    # Suggested by chance, as another searcher would; two failed.
    told = [sample_params(SPACE, trial, 2) for trial in range(trials)]
    searcher = make_searcher(name, SPACE, 0)
    for trial, params in enumerate(told):
        searcher.tell(trial, params, None if trial in (4, 9) else rmse_of(params))
    found = search(searcher, range(trials, trials + 3))
    assert not [params for params, _ in found if params in told]
    # Chance is below the known median every second time.
    assert np.mean([rmse for _, rmse in found]) < np.percentile([rmse_of(p) for p in told], 20)


@pytest.mark.parametrize("name", LEARNING)
def test_the_first_points_of_a_search_killed_early_are_not_suggested_again(name):
    done = search(make_searcher(name, SPACE, 0), range(3))
    rebuilt = make_searcher(name, SPACE, 0)
    for trial, (params, rmse) in enumerate(done):
        rebuilt.tell(trial, params, rmse)
    assert not [params for params, _ in search(rebuilt, range(3, 6)) if params in [p for p, _ in done]]


@pytest.mark.parametrize("name", LEARNING)
def test_booked_trials_are_not_suggested_again_and_told_later(name):
    first = make_searcher(name, SPACE, 0)
    booked = {trial: first.suggest(trial) for trial in range(2)}
    rebuilt = make_searcher(name, SPACE, 0)
    for trial, params in booked.items():
        rebuilt.book(trial, params)
    found = [rebuilt.suggest(trial) for trial in (2, 3)]
    assert not [params for params in found if params in booked.values()]
    for trial, params in [*booked.items(), *zip((2, 3), found, strict=True)]:
        rebuilt.tell(trial, params, rmse_of(params))
    assert rebuilt.suggest(4) not in [*booked.values(), *found]


@pytest.mark.parametrize("name", ALL)
def test_trials_that_run_at_once_differ(name):
    searcher = make_searcher(name, SPACE, 0)
    for trials in (range(5), range(5, 7)):  # before anything is known, and after; scored in another order
        waiting = {trial: searcher.suggest(trial) for trial in trials}
        assert len({str(params) for params in waiting.values()}) == len(trials)
        for trial in reversed(waiting):
            searcher.tell(trial, waiting[trial], rmse_of(waiting[trial]))


@pytest.mark.parametrize("name", ALL)
def test_failed_trials_do_not_stop_a_search(name):
    searcher = make_searcher(name, SPACE, 0)
    scores = iter([None, float("nan"), float("inf")] * 3)
    failed = [params for params, _ in search(searcher, range(9), lambda params: next(scores))]
    found = [params for params, _ in search(searcher, range(9, 14))]
    assert all(is_of(params, SPACE) for params in found)
    assert not [params for params in found if params in failed]


@needs("optuna")
def test_a_search_turns_away_from_where_trials_fail():
    # Chance would send every second trial there.
    space = {"x": Range(uniform=(0.0, 1.0))}
    done = search(make_searcher("optuna", space, 0), range(60), lambda params: None if params["x"] < 0.5 else 0.1)
    assert np.mean([params["x"] < 0.5 for params, _ in done[20:]]) < 0.4


@pytest.mark.parametrize("name", ALL)
def test_a_space_with_fewer_points_than_trials_goes_on(name):
    space = {"a": [1, 2], "b": ["x"]}
    done = search(make_searcher(name, space, 0), range(4), lambda params: params["a"] / 10)
    assert all(is_of(params, space) for params, _ in done)


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize("change", [{"units": 300}, {"activation": "gelu"}, {"layers": 2}])
def test_trials_of_another_space_are_refused(name, change):
    params = {**sample_params(SPACE, 0), **change}
    with pytest.raises(
        SmgeoError, match=r"^trial 5 has the parameters .* go on with the space that the search began with"
    ):
        make_searcher(name, SPACE, 0).tell(5, params, 0.1)


@needs("ax")
def test_ax_refuses_a_space_of_one_point():
    with pytest.raises(SmgeoError, match=r"^space: units have one value each, so there is nothing to search"):
        make_searcher("ax", {"units": [64]}, 0)


def test_an_unknown_searcher_is_refused():
    with pytest.raises(SmgeoError, match="unknown searcher 'optna'; did you mean 'optuna'"):
        make_searcher("optna", SPACE, 0)


@pytest.mark.parametrize(("name", "extra"), [("ax", "ax"), ("optuna", "tune")])
def test_a_library_that_is_not_installed_is_named_with_its_extra(name, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SmgeoError, match=rf"^search: {name} needs .* pip install 'smgeo\[{extra}\]'"):
        make_searcher(name, SPACE, 0)


@pytest.mark.parametrize("name", LEARNING)
def test_a_search_writes_nothing_to_the_terminal(name):
    code = f"""
import logging, sys
logging.basicConfig(level=logging.INFO)  # as a user's own script may have it
from smgeo.tuning.searchers import make_searcher
from smgeo.recipe.search import Range
searcher = make_searcher({name!r}, {{"x": Range(uniform=(0.0, 1.0)), "n": [3]}}, 0)
searcher.tell(0, {{"x": 0.5, "n": 3}}, 0.2)
searcher.tell(1, {{"x": 0.1, "n": 3}}, None)
for trial in range(2, 6):
    params = searcher.suggest(trial)
    searcher.tell(trial, params, (params["x"] - 0.3) ** 2 if trial != 4 else None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
