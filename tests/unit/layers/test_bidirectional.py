"""Bidirectional equals keras.layers.Bidirectional and loses no setting."""

import keras
import numpy as np
import pytest

import layers
from tests.support.comparing import (
    BATCH,
    INPUTS,
    KINDS,
    TIME,
    UNITS,
    as_numpy,
    assert_same,
    data,
    fewer_on_jax,
    outputs_and_gradients,
    randomise,
)

LENGTHS = np.array([TIME, 1, 2, 5], dtype="int32")
MASK = np.arange(TIME) < LENGTHS[:, None]


def make(kind, module=layers, merge_mode="concat", **settings):
    if kind == "GRU before":
        kind, settings = "GRU", settings | {"reset_after": False}
    layer = module.Bidirectional(getattr(module, kind)(UNITS, **settings), merge_mode=merge_mode)
    layer.build((None, None, INPUTS))
    randomise(layer)
    return layer


MERGES = [
    ("concat", {"return_sequences": True}, True),
    ("concat", {"return_state": True, "return_sequences": True}, False),
    ("sum", {}, True),
    ("ave", {"return_sequences": True, "go_backwards": False}, True),
    ("mul", {"return_state": True}, True),
    (None, {"return_state": True, "return_sequences": True}, True),
    (None, {}, False),
]


@pytest.mark.parametrize(
    ("kind", "merge_mode", "settings", "masked"),
    fewer_on_jax((kind, *merge) for kind in ("LSTM", "GRU before") for merge in MERGES),
)
def test_equals_keras(kind, merge_mode, settings, masked):
    ours, theirs = (make(kind, m, merge_mode, **settings) for m in (layers, keras.layers))
    rng = np.random.default_rng(4)
    count = 2 * len(ours.forward_layer.state_size)
    states = [rng.normal(size=(BATCH, UNITS)).astype("float32") for _ in range(count)]
    if settings.get("return_state"):
        call = {"mask": MASK} if masked else {}
        results = [outputs_and_gradients(f, data(), states, **call) for f in (ours, theirs)]
    else:
        call = {"mask": MASK} if masked else {}
        results = [outputs_and_gradients(f, data(), **call) for f in (ours, theirs)]
    assert_same(*results)
    if masked:
        by_lengths = as_numpy(ours(data(), lengths=LENGTHS))
        for a, b in zip(by_lengths, as_numpy(ours(data(), mask=MASK)), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_the_backward_layer_reads_the_real_steps_only(kind):
    layer = make(kind, return_sequences=True)
    whole = as_numpy(layer(data(), lengths=LENGTHS))[0]
    for row, n in enumerate(LENGTHS):
        alone = as_numpy(layer(data()[row : row + 1, :n]))[0]
        np.testing.assert_allclose(whole[row, :n], alone[0], atol=2e-6)
        assert not whole[row, n:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_trace_is_in_the_order_of_the_input(kind):
    layer = make(kind, return_sequences=True, truncate=2, initial="learned")
    lengths = np.array([TIME, 0, 2, 5], dtype="int32")
    traced = layer.trace(data(), lengths=lengths)
    both = [as_numpy(traced[side]["hidden_state"])[0] for side in ("forward", "backward")]
    np.testing.assert_array_equal(
        np.concatenate(both, axis=-1), as_numpy(layer(data(), lengths=lengths))[0]
    )


def test_no_setting_is_dropped():
    settings = {"truncate": 3, "initial": "random", "use_cudnn": False, "implementation": 1}
    layer = layers.Bidirectional(layers.LSTM(4, dropout=0.2, seed=3, **settings))
    again = layers.Bidirectional.from_config(layer.get_config())
    for wrapper in (layer, again):
        for part in (wrapper.forward_layer, wrapper.backward_layer):
            assert (settings | {"dropout": 0.2, "seed": 3}).items() <= part.get_config().items()
    assert again.backward_layer.go_backwards
    assert not again.forward_layer.go_backwards
    assert again.get_config() == layer.get_config()


def test_a_given_backward_layer_keeps_its_own_settings():
    backward = layers.GRU(4, go_backwards=True, truncate=5, use_cudnn=False, initial="learned")
    layer = layers.Bidirectional(layers.LSTM(3, truncate=2), backward_layer=backward)
    again = layers.Bidirectional.from_config(layer.get_config())
    for part in (layer.backward_layer, again.backward_layer):
        assert isinstance(part, layers.GRU)
        assert (part.truncate, part.use_cudnn, part.initial) == (5, False, "learned")
    assert again.forward_layer.use_cudnn == "auto"
    assert again(data()).shape == (BATCH, 7)


def test_configs_can_be_exchanged_with_keras():
    ours = make("GRU", return_sequences=True)
    theirs = keras.layers.Bidirectional(keras.layers.GRU(UNITS, return_sequences=True))
    theirs.build((None, None, INPUTS))
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(
        as_numpy(ours(data(), mask=MASK))[0], as_numpy(theirs(data(), mask=MASK))[0], atol=1e-5
    )
    moved = layers.Bidirectional.from_config(theirs.get_config())  # ours around theirs
    assert moved.get_config()["layer"] == theirs.get_config()["layer"]
    assert moved(data(), lengths=LENGTHS).shape == (BATCH, TIME, 2 * UNITS)


def test_weights_given_to_the_constructor_are_set():
    weights = make("GRU").get_weights()
    layer = layers.Bidirectional(layers.GRU(UNITS), weights=weights)
    layer.build((None, None, INPUTS))
    for a, b in zip(layer.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_stateful():
    ours, theirs = (
        m.Bidirectional(m.GRU(UNITS, stateful=True, return_sequences=True))
        for m in (layers, keras.layers)
    )
    for layer in (ours, theirs):
        layer.build((BATCH, None, INPUTS))
        randomise(layer)
        layer(data())
        layer(data(1))
    np.testing.assert_allclose(*(as_numpy(f(data(2)))[0] for f in (ours, theirs)), atol=1e-5)
    ours.reset_state()
    assert not any(v.any() for v in as_numpy(ours.states))


def test_invalid_calls_are_rejected():
    layer = make("GRU")
    with pytest.raises(ValueError, match="lengths or a mask, not both"):
        layer(data(), mask=MASK, lengths=LENGTHS)
    with pytest.raises(ValueError, match="received 3 tensors"):
        layer(data(), initial_state=[np.zeros((BATCH, UNITS), "float32")] * 3)
