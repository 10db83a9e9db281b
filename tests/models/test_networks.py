"""Parameters of networks: shared ones in one place, and still scikit-learn's contract of a constructor."""

import inspect
import warnings

import numpy as np
import pytest
from sklearn.base import clone

from smgeo.errors import SmgeoError, SmgeoWarning
from smgeo.models import load_model, make_model
from smgeo.models.keras_model import KerasModel
from smgeo.models.networks import Ann, Cnn, Gru, Lstm
from smgeo.recipe.models import NETWORKS, is_network

pytest.importorskip("keras")

SHARED = {
    "dropout": 0.1,
    "input_dropout": 0.0,
    "optimizer": "adam",
    "learning_rate": None,
    "schedule": "constant",
    "batch_size": None,
    "standardize": True,
    "seed": 0,
}
RECURRENT = {
    **SHARED,
    "mode": "window",
    "crop_days": 180,
    "layers": 1,
    "units": 64,
    "epochs": 8,
    "patience": None,
    "dropout": 0.4,
    "input_dropout": 0.3,
    "schedule": "cosine",
}
DEFAULTS = {
    Ann: {"layers": 2, "units": 254, "activation": "relu", "epochs": 60, "patience": 8, **SHARED},
    Gru: RECURRENT,
    Lstm: RECURRENT,
    Cnn: {"layers": 2, "filters": 64, "kernel": 5, "activation": "relu", "epochs": 30, "patience": 5, **SHARED},
}


@pytest.mark.parametrize("network", DEFAULTS)
def test_a_constructor_names_every_parameter_and_only_stores_it(network):
    signature = inspect.signature(network)
    assert {p.name: p.default for p in signature.parameters.values()} == DEFAULTS[network]
    assert {p.kind for p in signature.parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    given = {name: object() for name in signature.parameters}
    model = network(**given)
    assert vars(model) == given
    assert model.get_params() == given


@pytest.mark.parametrize("network", DEFAULTS)
def test_parameters_are_set_and_copied(network):
    model = network(seed=3).set_params(layers=4, learning_rate=0.5)
    copy = clone(model)
    assert copy is not model
    assert copy != model  # models are compared as objects, and may be keys
    assert (
        copy.get_params() == model.get_params() == {**DEFAULTS[network], "seed": 3, "layers": 4, "learning_rate": 0.5}
    )


@pytest.mark.parametrize("network", DEFAULTS)
def test_every_parameter_is_described_once(network):
    described = [line.strip() for c in network.__mro__ for line in (vars(c).get("__doc__") or "").splitlines()]
    heads = [name for line in described if " : " in line for name in line.split(" : ")[0].split(", ")]
    assert [heads.count(name) for name in DEFAULTS[network]] == [1] * len(DEFAULTS[network])


def test_networks_are_the_kinds_that_keras_trains():
    assert {kind for kind in NETWORKS if isinstance(make_model(kind), KerasModel)} == set(NETWORKS)
    for kind in ("rf", "Ridge", make_model("Ridge").estimator):
        assert not is_network(kind)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); got 1.0"),
        ({"input_dropout": -0.1}, r"input_dropout must be in \[0, 1\); got -0.1"),
        ({"layers": 0}, "layers must be a whole number, 1 or more; got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0 and at most 100; got 0.0"),
        ({"learning_rate": 1e30}, "learning_rate must be above 0 and at most 100; got 1e"),
        ({"optimizer": "adamm"}, "unknown optimizer 'adamm'; did you mean 'adam'"),
    ],
)
@pytest.mark.parametrize("kind", NETWORKS)
def test_shared_parameters_are_checked_for_every_network(kind, params, message):
    with pytest.raises(SmgeoError, match=message):
        make_model(kind, **params)


@pytest.mark.parametrize(
    ("kind", "options", "weights"),
    [
        ("ann", {"units": 65_536, "layers": 32}, "137,438,953,472"),
        ("gru", {"units": 65_536, "layers": 32}, "824,633,720,832"),
        ("cnn", {"filters": 65_536, "layers": 32, "kernel": 5}, "687,194,767,360"),
    ],
)
def test_a_network_larger_than_memory_is_refused_before_it_is_built(kind, options, weights):
    x = np.zeros((4, 2) if kind == "ann" else (4, 6, 2), "float32")
    with pytest.raises(
        SmgeoError, match=f"{kind}: a network of about {weights} weights needs about .*SMGEO_ANY_SIZE=1"
    ):
        make_model(kind, epochs=1, **options).fit(x, np.zeros(4, "float32"))


def test_a_training_that_ended_before_it_began_says_so():
    """At the validation rows the rule is the opposite one: all that is learned is worse than the mean."""
    x = np.random.default_rng(0).random((400, 3), dtype="float32")
    model = make_model("ann", units=16, epochs=9, patience=3, batch_size=16)
    with pytest.warns(
        SmgeoWarning, match="ann: training ended before it began: at no epoch it was better .* than the mean"
    ):
        model.fit(x, x[:, 0], validation=(x, 1 - x[:, 0]))


def test_a_training_that_learned_says_nothing():
    x = np.random.default_rng(0).random((400, 3), dtype="float32")
    y = x @ np.array([1, 2, 3], dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_model("ann", units=16, epochs=5, patience=5, batch_size=16).fit(
            x[:300], y[:300], validation=(x[300:], y[300:])
        )


@pytest.mark.parametrize(("kind", "shape"), [("ann", (500, 4)), ("gru", (500, 6, 4)), ("cnn", (500, 6, 4))])
def test_channels_are_left_out_on_all_days(kind, shape):
    """Of ones that are not standardised, a channel that is kept is 2 on all days, and one that is left out 0."""
    model = (
        make_model(kind, units=2, input_dropout=0.5, standardize=False, epochs=1)
        if kind != "cnn"
        else make_model(kind, input_dropout=0.5, standardize=False, epochs=1, kernel=2)
    )
    x = np.ones(shape, dtype="float32")
    model.fit(x, np.zeros(len(x), dtype="float32"))
    left = np.asarray(model._model.get_layer("input_dropout")(x, training=True))
    assert set(np.unique(left)) == {0, 2}
    assert (left == left.reshape(len(x), -1, 4)[:, :1].reshape(len(x), *[1] * (x.ndim - 2), 4)).all()
    assert np.mean(left == 0) == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(model.predict(x), np.full(len(x), model.predict(x)[0]))


@pytest.mark.parametrize("kind", ["ann", "lstm"])
def test_a_file_from_before_input_dropout_is_read(kind, tmp_path, forge):
    """Such a file does not name the parameter, and its network has no such layer."""
    x = np.random.default_rng(0).random((60, 3) if kind == "ann" else (60, 5, 3), dtype="float32")
    model = make_model(kind, units=4, input_dropout=0.0, epochs=1).fit(x, x.reshape(60, -1)[:, 0])
    model.save(tmp_path / "m")
    forge(tmp_path / "m", lambda about: about["params"].pop("input_dropout"))
    np.testing.assert_array_equal(load_model(tmp_path / "m").predict(x), model.predict(x))


@pytest.mark.parametrize("kind", NETWORKS)
def test_without_patience_all_epochs_are_trained_and_the_last_weights_kept(kind):
    """Validation rows of the opposite rule are worse with each epoch, and decide nothing."""
    x = np.random.default_rng(0).random((200, 3) if kind == "ann" else (200, 4, 3), dtype="float32")
    y = x.reshape(200, -1)[:, -1]
    size = {"filters": 4, "kernel": 2} if kind == "cnn" else {"units": 8}
    fixed = {**size, "epochs": 4, "batch_size": 16, "patience": None}
    alone = make_model(kind, **fixed).fit(x, y)
    held = make_model(kind, **fixed).fit(x, y, validation=(x, 1 - y))
    np.testing.assert_array_equal(held.predict(x), alone.predict(x))
    assert not held.uses_validation
    assert len(held.history_["val_rmse"]) == 4
