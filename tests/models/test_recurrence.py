"""The recurrent layers of TensorFlow on a CPU, against Keras' own."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from smgeo.models.backend import make_step  # noqa: E402 - after the libraries that may be missing
from smgeo.models.recurrence import recurrent_layer  # noqa: E402
from smgeo.models.rows import Filled, Labelled, Rows  # noqa: E402

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras does not run on TensorFlow")


@pytest.fixture(params=["GRU", "LSTM"])
def pair(request):
    """Return Keras' layer and smgeo's, as functions of their options, with the same weights."""

    def make(**options):
        rng = np.random.default_rng(3)
        layers = [
            kind(5, **options) for kind in (getattr(keras.layers, request.param), recurrent_layer(keras, request.param))
        ]
        for layer in layers:
            layer.build((None, None, 3))
        weights = [rng.normal(size=w.shape).astype("float32") for w in layers[0].get_weights()]
        for layer in layers:
            layer.set_weights(weights)
        return layers

    return make


# 130 and 301 rows are trained in parts, of which the last of 301 has another size.
@pytest.mark.parametrize("rows", [1, 4, 9, 130, 301])
@pytest.mark.parametrize("every_day", [False, True])
def test_outputs_and_gradients_are_those_of_keras(pair, rows, every_day):
    x = tf.constant(np.random.default_rng(rows).normal(size=(rows, 7, 3)).astype("float32"))

    def learn(layer):
        @tf.function
        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                out = layer(x, training=True)
                score = tf.reduce_sum(tf.sin(3 * out))
            return [out, *tape.gradient(score, [x, *layer.trainable_variables])]

        return run(x)

    for theirs, ours in zip(*(learn(layer) for layer in pair(return_sequences=every_day)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * np.abs(theirs).max())


def test_layers_in_two_levels_and_several_days_learn_as_keras_does(pair):
    """The gradient of the inputs is that of the outputs of the layer below."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 11, 3)).astype("float32"), rng.normal(size=(40, 1)).astype("float32")
    losses = []
    for which in (0, 1):
        below = pair(return_sequences=True)[which]
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.Input((11, 3)), below, type(below)(4, seed=2), keras.layers.Dense(1, kernel_initializer="ones")]
        )
        model.compile(keras.optimizers.Adam(0.01), "mse")
        step = make_step(model)
        losses.append([float(step(x, y, np.ones(40, dtype="float32"))[1]) for _ in range(20)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert losses[1][-1] < losses[1][0]


def test_estimates_of_any_number_of_rows_and_days_are_those_of_keras(pair):
    theirs, ours = pair(return_sequences=True)
    run = tf.function(lambda x: (theirs(x), ours(x)), input_signature=[tf.TensorSpec((None, None, 3), tf.float32)])
    for rows, days in ((1, 1), (6, 40)):
        x = np.random.default_rng(days).normal(size=(rows, days, 3)).astype("float32")
        np.testing.assert_allclose(*run(x), rtol=1e-5, atol=1e-6)


def test_weights_have_the_names_of_keras(pair, tmp_path):
    theirs, ours = pair()
    x = np.random.default_rng(0).normal(size=(2, 7, 3)).astype("float32")
    models = [keras.Sequential([keras.Input((7, 3)), layer]) for layer in (theirs, ours)]
    models[0].save_weights(tmp_path / "a.weights.h5")
    ours.set_weights([0 * w for w in ours.get_weights()])
    models[1].load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_allclose(models[1](x), models[0](x), rtol=1e-5, atol=1e-6)


def test_a_step_weighs_rows_as_keras_fit_does():
    """A row of weight 0 counts in neither loss nor score: by Keras' own training with sample weights."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)).astype("float32"), rng.normal(size=(8, 1)).astype("float32")
    weights = np.array([1, 1, 1, 1, 1, 0, 0, 0], dtype="float32")
    models = []
    for _ in range(2):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
        loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
        model.compile(keras.optimizers.SGD(0.1, clipnorm=1.0), loss)
        models.append(model)
    before = models[0](x).numpy()
    count, squares = make_step(models[0])(x, y, weights).numpy()
    models[1].fit(x, y, sample_weight=weights, batch_size=8, shuffle=False, verbose=0)
    assert (count, squares) == (5, pytest.approx(np.sum((before - y)[:5] ** 2), rel=1e-5))
    for ours, theirs in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_last_batch_is_filled_with_rows_of_no_weight():
    x = np.arange(7, dtype="float32")[:, None]
    source = Filled(Labelled(Rows(x), x[:, 0]), 4)
    inputs, target, weights = source.batch(np.array([6, 2]))
    assert inputs.shape == (4, 1)
    assert inputs[:2, 0].tolist() == target[:2].tolist() == [6, 2]
    assert weights.tolist() == [True, True, False, False]
    # Fewer rows than a batch make one batch of all of them.
    assert Filled(Labelled(Rows(x), x[:, 0]), 64).batch(np.arange(7))[2].tolist() == [True] * 7
