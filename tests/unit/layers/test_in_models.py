"""The layers in models: unknown sizes, compilation, saving, training, export."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

import layers
from tests.support.comparing import (
    BATCH,
    INPUTS,
    TIME,
    UNITS,
    as_numpy,
    data,
    make,
    randomise,
)
from tests.support.matrix import thorough_after

LENGTHS = np.array([TIME, 0, 2, 5], dtype="int32")


def model_of(seed=1):
    """Every layer and every setting of ours, with lengths as an input of the model."""
    x = keras.Input((None, INPUTS), name="x")
    lengths = keras.Input((), dtype="int32", name="lengths")
    h = layers.SimpleRNN(4, return_sequences=True, initial="random")(x, lengths=lengths)
    h = layers.Bidirectional(layers.LSTM(5, return_sequences=True, truncate=2))(h, lengths=lengths)
    h, state = layers.GRU(6, initial="learned", return_sequences=True, return_state=True)(
        h, lengths=lengths
    )
    y = layers.GRU(6, reset_after=False)(h, initial_state=state, lengths=lengths)
    model = keras.Model([x, lengths], y)
    randomise(model, seed)
    return model


def test_saved_models_load_where_layers_is_imported(tmp_path):
    model, path = model_of(), tmp_path / "model.keras"
    model.save(path)
    (expected,) = as_numpy(model([data(), LENGTHS]))
    again = keras.saving.load_model(path)
    np.testing.assert_array_equal(as_numpy(again([data(), LENGTHS]))[0], expected)
    assert again.to_json() == model.to_json()
    np.save(tmp_path / "x.npy", data())
    np.save(tmp_path / "expected.npy", expected)
    script = f"""
        import keras, numpy, pathlib
        import layers
        at = pathlib.Path({str(tmp_path)!r})
        model = keras.saving.load_model(at / "model.keras")
        lengths = numpy.array({LENGTHS.tolist()}, "int32")
        y = model([numpy.load(at / "x.npy"), lengths])
        y = keras.ops.convert_to_numpy(y)
        numpy.testing.assert_allclose(y, numpy.load(at / "expected.npy"), atol=1e-5)
        print("equal")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split()[-1:] == ["equal"], done.stderr


def test_only_modules_named_after_a_backend_import_it():
    """The others run on whichever backend Keras uses."""
    found = set()
    for path in Path(layers.__file__).parent.glob("*.py"):
        if path.stem.endswith(("_tensorflow", "_jax")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
    assert {"keras", "layers"} <= found <= {"keras", "numpy", "layers", *sys.stdlib_module_names}


def test_a_model_learns():
    """The sum of a sequence of which only the first steps count; and fit, evaluate, predict."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 5, 1)).astype("float32")
    lengths = rng.integers(0, 6, size=256).astype("int32")
    y = (x[..., 0] * (np.arange(5) < lengths[:, None])).sum(axis=1, keepdims=True)
    inputs, valid = keras.Input((None, 1)), keras.Input((), dtype="int32")
    hidden = layers.LSTM(16, initial="learned", dropout=0.01)(inputs, lengths=valid)
    model = keras.Model([inputs, valid], keras.layers.Dense(1)(hidden))
    model.compile(keras.optimizers.Adam(0.02), "mse")
    before = model.evaluate([x, lengths], y, verbose=0)
    model.fit([x, lengths], y, epochs=12, batch_size=64, verbose=0)
    assert model.evaluate([x, lengths], y, verbose=0) < 0.2 * before


@pytest.mark.parametrize("kind", thorough_after(2, ["LSTM", "GRU before", "GRU", "SimpleRNN"]))
def test_compiled_calls_equal_eager_calls(kind):
    """One compilation for any batch and time where the backend allows it; XLA too."""
    layer = make(kind, return_sequences=True, truncate=4, initial="learned")
    sizes = [(2, 3), (3, 3), (2, 9)]
    expected = [as_numpy(layer(data(batch=b, time=t)))[0] for b, t in sizes]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        traces = []

        @tf.function(input_signature=[tf.TensorSpec([None, None, INPUTS])])
        def call(x):
            traces.append(x.shape)
            return layer(x)

        compiled = tf.function(layer, jit_compile=True)
    else:
        import jax

        weights = [v.value for v in layer.trainable_variables]
        others = [v.value for v in layer.non_trainable_variables]
        compiled = jax.jit(lambda x: layer.stateless_call(weights, others, x)[0])
        traces, call = [None], compiled
    for (b, t), want in zip(sizes, expected, strict=True):
        np.testing.assert_allclose(as_numpy(call(data(batch=b, time=t)))[0], want, atol=1e-5)
    assert len(traces) == 1
    np.testing.assert_allclose(as_numpy(compiled(data(batch=2, time=3)))[0], expected[0], atol=1e-5)


if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    @pytest.mark.parametrize(
        ("batch", "time", "tall"),
        thorough_after(
            3,
            [
                (BATCH, None, True),
                (None, TIME, False),
                (BATCH, TIME, False),
                (BATCH, TIME, True),
                (BATCH, None, False),
                (None, TIME, True),
            ],
        ),
    )
    def test_graph_gradients_with_half_known_sizes(batch, time, tall, monkeypatch):
        monkeypatch.setattr("layers.unfold.TALL", 1 if tall else 256)
        layer = make("LSTM", return_sequences=True, truncate=4)

        def gradients(x, lengths):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(layer(x, lengths=lengths) ** 2)
            return tape.gradient(loss, [x, *(v.value for v in layer.weights)])

        x = tf.constant(data(time=TIME if time else 9))
        signature = [
            tf.TensorSpec([batch, time, INPUTS]),
            tf.TensorSpec([batch], tf.int32),
        ]
        expected = gradients(x, tf.constant(LENGTHS))
        for jit in (False, True) if batch and time else (False,):
            compiled = tf.function(gradients, input_signature=signature, jit_compile=jit)
            for a, b in zip(compiled(x, LENGTHS), expected, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)

    def test_xla_trains_with_sizes_unknown_to_the_graph():
        layer = make("GRU", return_sequences=True)

        @tf.function(
            input_signature=[tf.TensorSpec([None, None, INPUTS])],
            jit_compile=True,
        )
        def gradient(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(layer(x) ** 2)
            return tape.gradient(loss, x)

        assert np.isfinite(gradient(data())).all()

    def second_order(layer, x):
        """The gradient of a gradient's squared norm."""
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(layer(x, training=True) ** 2)
            norm = tf.reduce_sum(inner.gradient(loss, x) ** 2)
        return outer.gradient(norm, x)

    @pytest.mark.parametrize("kind", thorough_after(1, ["LSTM", "GRU", "SimpleRNN"]))
    def test_a_gradient_of_a_gradient_is_right_or_refused_while_tracing(kind):
        layer, unrolled = make(kind), make(kind, unroll=True)
        x = tf.constant(data())
        with pytest.raises(LookupError, match="unroll=True"):
            tf.function(second_order, autograph=False)(layer, x)
        expected = second_order(layer, x)
        np.testing.assert_allclose(second_order(unrolled, x), expected, rtol=1e-4, atol=1e-5)
        compiled = tf.function(second_order)(unrolled, x)
        np.testing.assert_allclose(compiled, expected, rtol=1e-4, atol=1e-5)

    def test_an_export_serves_without_the_code(tmp_path):
        model = model_of()
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint(
            "serve",
            lambda x, lengths: model([x, lengths], training=False),
            input_signature=[
                tf.TensorSpec([None, None, INPUTS], name="x"),
                tf.TensorSpec([None], tf.int32, name="lengths"),
            ],
        )
        archive.write_out(tmp_path / "export", verbose=False)
        export = tf.saved_model.load(tmp_path / "export")
        served = export.serve(tf.constant(data()), tf.constant(LENGTHS))
        np.testing.assert_allclose(served, as_numpy(model([data(), LENGTHS]))[0], atol=1e-5)


def test_units_must_be_positive():
    with pytest.raises(ValueError, match="units"):
        layers.GRU(0)
    with pytest.raises(TypeError, match="units"):
        layers.GRU()
    assert layers.GRU(UNITS).units == UNITS
