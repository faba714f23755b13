"""Inference through TensorFlow's fused LSTM equals the loop, in values and gradients."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.comparing import (
    INPUTS,
    UNITS,
    assert_same,
    data,
    make,
    outputs_and_gradients,
    random_states,
)
from tests.support.matrix import thorough_after

if keras.backend.backend() != "tensorflow":
    pytest.skip("the kernel is TensorFlow's", allow_module_level=True)

import tensorflow as tf

import layers
from layers import fused_tensorflow as fused


def both(layer, x, states=None, known=True, **call):
    """Return results of the kernel and of the loop, which needs no compilation."""
    assert layer.route().name == "fused"
    assert layer.route(compiled=False).name == "portable"
    return [
        outputs_and_gradients(layer, x, states, compiled=True, known=known, **call),
        outputs_and_gradients(layer, x, states, **call),
    ]


SETTINGS = [
    {"initial": "learned"},
    {"dropout": 0.5, "recurrent_dropout": 0.5},
    {"go_backwards": True},
    {"return_sequences": False},
    {"zero_output_for_mask": True},
    {"use_bias": False},
    {},
]


def both_of(setting, **call):
    layer = make("LSTM", **{"return_sequences": True, "return_state": True} | setting)
    states = None if "initial" in setting else random_states(layer, batch=4)
    return both(layer, data(), states, **call)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_equals_the_loop(setting):
    assert_same(*both_of(setting, lengths=np.array([3, 0, 6, 1], "int32")))


@pytest.mark.parametrize("setting", thorough_after(2, SETTINGS), ids=str)
@pytest.mark.parametrize("known", thorough_after(1, [True, False]))
def test_equals_the_loop_where_all_steps_are_real(setting, known):
    assert_same(*both_of(setting, known=known))


@pytest.mark.parametrize("rows", [2, 3])
def test_on_either_side_of_the_limit(rows, monkeypatch):
    """More rows than `ROWS` go through the loop."""
    monkeypatch.setattr(fused, "ROWS", rows)
    layer = make("LSTM", return_sequences=True, return_state=True)
    mask = np.random.default_rng(0).random((3, 5)) < 0.6
    assert_same(*both(layer, data(batch=3, time=5), random_states(layer, batch=3), mask=mask))


@pytest.fixture(scope="module")
def layer():
    """One layer for all examples, so that its functions are compiled once."""
    return make("LSTM", return_sequences=True, return_state=True)


@settings(max_examples=20)
@given(batch=st.integers(1, 6), time=st.integers(1, 9), seed=st.integers(0, 1000))
def test_any_mask_and_shape_of_unknown_size(layer, batch, time, seed):
    mask = np.random.default_rng(seed).random((batch, time)) < 0.6
    x = data(seed, batch=batch, time=time)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fused, "ROWS", 3)
        states = random_states(layer, batch=batch)
        assert_same(*both(layer, x, states, mask=mask, known=False))


@pytest.mark.parametrize(("batch", "time"), [(0, 5), (3, 0), (0, 0)])
def test_an_empty_batch_of_unknown_size(batch, time):
    layer = make("LSTM", return_sequences=True, return_state=True)
    x, states = data(batch=batch, time=time), random_states(layer, batch=batch)
    sizes = [tf.TensorSpec([None, None, INPUTS]), [tf.TensorSpec([None, UNITS])] * 2]
    outputs = tf.function(lambda x, s: layer(x, initial_state=s), input_signature=sizes)(x, states)
    assert outputs[0].shape == (batch, time, UNITS)
    for state, given_ in zip(outputs[1:], states, strict=True):
        np.testing.assert_allclose(state, given_)  # unchanged, or of no rows


def test_nan_padding_is_ignored():
    layer = make("LSTM", return_sequences=True)
    x = data()
    x[1, 2:] = np.nan
    (y,), gradients = outputs_and_gradients(
        layer, x, compiled=True, lengths=np.array([6, 2, 6, 6], "int32")
    )
    assert all(np.isfinite(a).all() for a in [y, *gradients.values()])


def test_half_precision():
    layer = make("LSTM", return_sequences=True, dtype="mixed_float16")
    half, loop = both(layer, data())
    np.testing.assert_allclose(half[0][0], loop[0][0], atol=0.01)


PORTABLE = {
    "no fused GRU": ("GRU", {}),
    "no fused LSTM in bfloat16": ("LSTM", {"dtype": "mixed_bfloat16"}),
    "does not truncate": ("LSTM", {"truncate": 2}),
    "unroll=True": ("LSTM", {"unroll": True}),
    "activation=relu": ("LSTM", {"activation": "relu"}),
}


@pytest.mark.parametrize("reason", PORTABLE)
def test_the_route_gives_its_reason(reason):
    kind, setting = PORTABLE[reason]
    route = make(kind, **setting).route()
    assert route.name == "portable"
    assert reason in route.reason


def test_not_inside_a_function_compiled_as_a_whole():
    """XLA has no such kernel."""
    layer = make("LSTM")
    whole = tf.function(lambda x: layer(x), jit_compile=True)
    np.testing.assert_allclose(whole(data()), layer(data()), atol=1e-5)


def test_few_rows_take_one_operation_for_all_steps():
    layer = layers.Bidirectional(make("LSTM", return_sequences=True))
    graph = tf.function(lambda x: layer(x)).get_concrete_function(tf.TensorSpec([2, None, INPUTS]))
    operations = [op.type for op in graph.graph.get_operations()]
    assert operations.count("BlockLSTMV2") == 2
    assert not [op for op in operations if "While" in op]
