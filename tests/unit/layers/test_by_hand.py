"""The gradient derived by hand equals the backend's own."""

import functools
import importlib

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import layers
from tests.support.comparing import (
    INPUTS,
    KINDS,
    UNITS,
    assert_same,
    data,
    fewer_on_jax,
    make,
    outputs_and_gradients,
    random_states,
)
from tests.support.matrix import thorough_after

TENSORFLOW = keras.backend.backend() == "tensorflow"
schedule = importlib.import_module("layers.schedule_tensorflow") if TENSORFLOW else None


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch):
    """Short sequences go through several blocks and shards, looped over and written out."""
    if TENSORFLOW:
        for name, value in {"STEPS": 4, "ROWS": 2, "UNROLLED": 2}.items():
            monkeypatch.setattr(schedule, name, value)
        monkeypatch.setattr(schedule, "cores", lambda: 2)


def by_hand(layer, x, states=None, **call):
    assert layer.route(training=True).name == "by_hand"
    return outputs_and_gradients(layer, x, states, compiled=True, training=True, **call)


def both(layer, x, states=None, known=True, **call):
    """Return results by hand and by the backend: those of the same layer with and without training.

    Without dropout, training changes nothing but the route. The backend's need no compilation.
    """
    assert layer.route(training=False, compiled=False).name == "portable"
    return [
        by_hand(layer, x, states, known=known, **call),
        outputs_and_gradients(layer, x, states, training=False, **call),
    ]


SETTINGS = {
    "plain": {},
    "last only": {"return_sequences": False},
    "backwards": {"go_backwards": True},
    "truncated": {"truncate": 3},
    "truncated backwards": {"truncate": 2, "go_backwards": True},
    "zero output": {"zero_output_for_mask": True},
    "no bias": {"use_bias": False},
    "learned": {"initial": "learned"},
    "learned last only": {"initial": "learned", "return_sequences": False},
    "no bias, zero output": {"use_bias": False, "zero_output_for_mask": True},
}
RAGGED, SHORT = [7, 0, 3, 9, 9, 1, 0, 5, 2], [1, 0, 2, 1, 0, 1, 0, 0, 2]
CASES = [
    ("LSTM", "truncated backwards", RAGGED),
    ("GRU", "truncated", None),
    ("GRU before", "backwards", RAGGED),
    ("SimpleRNN", "plain", RAGGED),
    ("LSTM", "learned last only", RAGGED),
    ("LSTM", "no bias, zero output", RAGGED),
    ("GRU", "plain", SHORT),
    *((kind, "plain", lengths) for kind in KINDS for lengths in (None, RAGGED)),
    *((kind, "truncated backwards", RAGGED) for kind in KINDS),
    *(("LSTM", setting, RAGGED) for setting in SETTINGS if setting != "plain"),
]
CASES = [case for place, case in enumerate(CASES) if case not in CASES[:place]]


@pytest.mark.parametrize(("kind", "setting", "lengths"), fewer_on_jax(thorough_after(7, CASES)))
def test_equals_the_portable_path(kind, setting, lengths):
    layer = make(kind, **{"return_sequences": True, "return_state": True} | SETTINGS[setting])
    call = {} if lengths is None else {"lengths": np.array(lengths, "int32")}
    states = None if setting.startswith("learned") else random_states(layer, batch=9)
    assert_same(*both(layer, data(batch=9, time=9), states, **call))


@functools.cache
def layer_of(kind, truncate=None, go_backwards=False):
    """One layer for all examples, so that its functions are compiled once."""
    settings = {"truncate": truncate, "go_backwards": go_backwards}
    return make(kind, return_sequences=True, return_state=True, **settings)


@pytest.mark.parametrize(
    ("kind", "truncate", "go_backwards"),
    fewer_on_jax(
        thorough_after(
            2,
            [
                ("LSTM", 5, True),
                ("GRU", 2, False),
                ("SimpleRNN", None, True),
                ("GRU before", None, False),
                ("LSTM", 1, False),
            ],
        )
    ),
)
@settings(max_examples=12 if TENSORFLOW else 2)
@given(batch=st.integers(1, 7), time=st.integers(1, 11), seed=st.integers(0, 1000))
def test_any_mask_and_shape(kind, truncate, go_backwards, batch, time, seed):
    """Masks with gaps too: a step that is not real is skipped wherever it is."""
    layer = layer_of(kind, truncate, go_backwards)
    mask = np.random.default_rng(seed).random((batch, time)) < 0.6
    x = data(seed, batch=batch, time=time)
    states = random_states(layer, batch=batch)
    assert_same(*both(layer, x, states, mask=mask, known=False))


@pytest.mark.parametrize(
    ("kind", "time"), thorough_after(2, [("GRU", 23), ("LSTM", 3), ("SimpleRNN", 4)])
)
def test_unknown_sizes(kind, time):
    """The graph is built before the sizes of its batches are known."""
    layer = layer_of(kind)
    x = data(batch=5, time=time)
    assert_same(*both(layer, x, random_states(layer, batch=5), known=False))


@pytest.mark.skipif(not TENSORFLOW, reason="a compiled function of JAX knows its sizes")
@pytest.mark.parametrize(("batch", "time"), [(0, 5), (3, 0), (0, 0)])
def test_an_empty_batch_of_unknown_size(batch, time):
    layer = layer_of("LSTM")
    x, states = data(batch=batch, time=time), random_states(layer, batch=batch)
    outputs, _ = by_hand(layer, x, states, known=False)
    assert outputs[0].shape == (batch, time, UNITS)
    for state, given_ in zip(outputs[1:], states, strict=True):
        np.testing.assert_allclose(state, given_)  # unchanged, or of no rows


@pytest.mark.parametrize("kind", thorough_after(1, fewer_on_jax(KINDS[::-1])))
def test_nan_padding_is_ignored(kind):
    layer = make(kind, return_sequences=True)
    lengths = np.array([5, 2, 0], "int32")
    x = data(batch=3, time=5)
    padded = np.where(np.arange(5)[None, :, None] < lengths[:, None, None], x, np.nan)
    outputs, gradients = by_hand(layer, padded.astype("float32"), lengths=lengths)
    assert all(np.isfinite(a).all() for a in [*outputs, *gradients.values()])


HALVES = [
    ("LSTM", "mixed_float16"),
    ("GRU", "mixed_bfloat16"),
    ("SimpleRNN", "mixed_float16"),
    ("SimpleRNN", "mixed_bfloat16"),
    ("GRU before", "mixed_float16"),
    ("GRU before", "mixed_bfloat16"),
    ("LSTM", "mixed_bfloat16"),
    ("GRU", "mixed_float16"),
]


@pytest.mark.parametrize(("kind", "dtype"), thorough_after(2, fewer_on_jax(HALVES)))
def test_half_precision(kind, dtype):
    """Equals the float32 result as closely as 11 or 8 bits allow over nine steps."""
    exact = make(kind, return_sequences=True)
    layer = make(kind, return_sequences=True, dtype=dtype)
    x = data(batch=4, time=9)
    outputs, gradients = by_hand(layer, x)
    tolerance = 0.2 if dtype == "mixed_bfloat16" else 0.04
    assert_same(
        [[a.astype("float32") for a in outputs], gradients],
        outputs_and_gradients(exact, x),
        atol=tolerance,
        rtol=tolerance,
    )


@pytest.mark.thorough
def test_bidirectional_and_dropout_in_fit():
    """A model with both, trained in compiled code, learns."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((None, INPUTS))
    mask = ops.any(ops.not_equal(inputs, 0.0), axis=-1)
    layer = layers.Bidirectional(layers.LSTM(UNITS, dropout=0.2, seed=4))
    assert layer.backward_layer.route(training=True).name == "by_hand"
    hidden = layer(inputs, mask=mask)
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile(keras.optimizers.Adam(0.04), "mse")
    x = data(batch=32, time=6)
    y = x[:, 0, :1]
    losses = model.fit(x, y, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


def test_input_dropout_masks_the_same_inputs_at_every_step():
    """Variational dropout (Gal & Ghahramani 2016): one mask for a sequence."""
    layer = make("SimpleRNN", inputs=4, units=4, dropout=0.5, seed=1, return_sequences=True)
    eye = [np.eye(4), np.zeros((4, 4)), np.zeros(4)]
    layer.set_weights(eye)
    x = np.ones((3, 6, 4), "float32")
    (y,), _ = by_hand(layer, x)
    assert {round(v, 4) for v in np.unique(y).tolist()} == {0.0, round(float(np.tanh(2.0)), 4)}
    assert (y == y[:, :1]).all()


@pytest.mark.skipif(not TENSORFLOW, reason="JAX compiles everything")
@pytest.mark.parametrize("lengths", [None, [6, 1, 0, 3]])
def test_inside_a_function_compiled_as_a_whole(lengths):
    import tensorflow as tf

    layer = make("GRU", return_sequences=True, return_state=True)
    x, states = data(batch=4, time=6), random_states(layer, batch=4)
    call = {} if lengths is None else {"lengths": tf.constant(lengths)}
    expected = layer(x, initial_state=states, **call)
    whole = tf.function(
        lambda x: layer(x, initial_state=states, training=True, **call), jit_compile=True
    )
    for a, b in zip(whole(x), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.skipif(not TENSORFLOW, reason="Keras handles stateful layers on JAX")
def test_a_stateful_layer_continues():
    import tensorflow as tf

    x = data(batch=4, time=8)
    whole = make("LSTM", return_sequences=True)
    halves = make("LSTM", return_sequences=True, stateful=True)
    halves.build((4, 4, INPUTS))
    halves.set_weights(whole.get_weights())
    step = tf.function(lambda x: halves(x, training=True))
    got = np.concatenate([step(x[:, :4]), step(x[:, 4:])], axis=1)
    np.testing.assert_allclose(got, whole(x), atol=1e-5)


PORTABLE = {
    "unroll=True": {"unroll": True},
    "activation=relu, not tanh": {"activation": "relu"},
    "recurrent_dropout": {"recurrent_dropout": 0.2},
    "inference; no fused GRU": {},
}


@pytest.mark.parametrize("reason", PORTABLE)
def test_the_route_gives_its_reason(reason):
    layer = make("GRU", **PORTABLE[reason])
    route = layer.route(training=not reason.startswith("inference"))
    assert route.name == "portable"
    assert route.reason.startswith(reason)


def test_the_route_of_other_gates():
    layer = make("GRU", recurrent_activation="hard_sigmoid")
    assert layer.route(training=True).reason == "recurrent_activation=hard_sigmoid, not sigmoid"
    assert make("SimpleRNN").route(training=True, compiled=False).reason.startswith("an eager call")


def test_only_training_calls_contain_compiled_code():
    """Exports are traced without training, and run in any TensorFlow."""
    if not TENSORFLOW:
        pytest.skip("exports are written by TensorFlow")
    import tensorflow as tf

    layer = make("LSTM", return_sequences=True)
    for training in (True, False):
        graph = tf.function(lambda x, t=training: layer(x, training=t))
        concrete = graph.get_concrete_function(tf.TensorSpec([None, None, INPUTS]))
        functions = concrete.graph.as_graph_def().library.function
        compiled = [f for f in functions if f.attr["_XlaMustCompile"].b]
        assert bool(compiled) == training


def test_a_long_sequence_of_every_block_length():
    """Lengths that no block length divides, with the default block length."""
    if not TENSORFLOW:
        pytest.skip("blocks are TensorFlow's")
    for time in range(1, 200):
        steps = schedule.block_length(time)
        blocks = -(-time // steps)
        assert 1 <= steps <= max(schedule.STEPS * 3 // 2, 1)
        assert blocks * steps - time < max(blocks, 2)
