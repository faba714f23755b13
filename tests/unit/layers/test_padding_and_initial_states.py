"""Rows of different lengths, and the state before the first step."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

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
    make,
    outputs_and_gradients,
    random_states,
)

LENGTHS = np.array([TIME, 0, 2, 5], dtype="int32")
MASK = np.arange(TIME) < LENGTHS[:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_equal_a_right_padded_mask(kind):
    layer = make(kind, return_sequences=True, return_state=True)
    by_lengths = outputs_and_gradients(layer, data(), random_states(layer), lengths=LENGTHS)
    by_mask = outputs_and_gradients(layer, data(), random_states(layer), mask=MASK)
    assert_same(by_lengths, by_mask, atol=0, rtol=0)


@pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_ignored(kind, go_backwards):
    """Its values, even NaN, have no influence, and its gradient is zero."""
    layer = make(kind, return_sequences=True, return_state=True, go_backwards=go_backwards)
    junk = data()
    junk[~MASK] = [np.nan, np.inf, 1e30]
    clean = outputs_and_gradients(layer, data(), random_states(layer), lengths=LENGTHS)
    dirty = outputs_and_gradients(layer, junk, random_states(layer), lengths=LENGTHS)
    assert_same(clean, dirty, atol=0, rtol=0)
    assert not dirty[1]["sequences"][~MASK].any()
    assert dirty[1]["sequences"][MASK].any(axis=-1).all()


@settings(max_examples=len(fewer_on_jax(range(9))), deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    lengths=st.lists(st.integers(0, TIME), min_size=BATCH, max_size=BATCH),
    extra=st.integers(1, 5),
    truncate=st.sampled_from([None, 2]),
    go_backwards=st.booleans(),
)
def test_extra_padding_and_other_rows_change_nothing(kind, lengths, extra, truncate, go_backwards):
    layer = make(
        kind, return_state=True, truncate=truncate, go_backwards=go_backwards, initial="random"
    )
    lengths = np.array(lengths, dtype="int32")
    expected = outputs_and_gradients(layer, data(), lengths=lengths)

    padded = np.concatenate([data(), data(3, time=extra)], axis=1)
    outputs, gradients = outputs_and_gradients(layer, padded, lengths=lengths)
    gradients["sequences"] = gradients["sequences"][:, :TIME]
    assert_same((outputs, gradients), expected)

    for row, n in enumerate(lengths):
        if n:
            alone = as_numpy(layer(data()[row : row + 1, :n]))
            for a, b in zip(alone, expected[0], strict=True):
                np.testing.assert_allclose(a[0], b[row], atol=2e-6)


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_row_returns_its_initial_state(kind, go_backwards, return_sequences):
    layer = make(
        kind, return_state=True, return_sequences=return_sequences, go_backwards=go_backwards
    )
    first = random_states(layer)
    output, *last = as_numpy(layer(data(), initial_state=first, lengths=LENGTHS))
    for a, b in zip(last, first, strict=True):
        np.testing.assert_array_equal(a[1], b[1])
    np.testing.assert_array_equal(output[1], 0 * output[1] if return_sequences else first[0][1])


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_without_steps(kind):
    layer = make(kind, return_state=True, return_sequences=True, initial="learned")
    output, *last = layer(data()[:, :0])
    assert tuple(output.shape) == (BATCH, 0, UNITS)
    for a, b in zip(as_numpy(last), as_numpy(layer.cell.initial_vectors), strict=True):
        np.testing.assert_array_equal(a, np.tile(b, (BATCH, 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_before_the_first_real_step_are_zero(kind):
    """As in keras.layers, but always: under JAX Keras emits the initial state instead."""
    layer = make(kind, return_sequences=True, return_state=True, initial="random")
    mask = MASK[:, ::-1]  # left padding
    output, *last = as_numpy(layer(data(), mask=mask))
    assert not output[~mask].any()
    assert output[mask].any(axis=-1).all()
    np.testing.assert_array_equal(output[[0, 2, 3], -1], last[0][[0, 2, 3]])


@pytest.mark.parametrize("kind", KINDS)
def test_trace_equals_the_results_of_a_call(kind):
    for extra in fewer_on_jax(
        [{"go_backwards": True}, {"zero_output_for_mask": True}, {"unroll": True}, {}]
    ):
        layer = make(kind, return_sequences=True, return_state=True, initial="random", **extra)
        before = layer.get_weights()
        for call in ({}, {"lengths": LENGTHS}):
            output, *last = as_numpy(layer(data(), **call))
            traced = {k: ops.convert_to_numpy(v) for k, v in layer.trace(data(), **call).items()}
            np.testing.assert_array_equal(traced["hidden_state"], output)
            if kind == "LSTM":
                np.testing.assert_array_equal(traced["cell_state"][:, -1], last[1])
            assert all(v.shape == (BATCH, TIME, UNITS) for v in traced.values())
        for a, b in zip(before, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_trace_leaves_a_stateful_layer_alone():
    layer = make("GRU", stateful=True)
    layer(data())
    before = as_numpy(layer.states)
    layer.trace(data(1))
    np.testing.assert_array_equal(before, as_numpy(layer.states))


@pytest.mark.parametrize("kind", KINDS)
def test_random_initial_state_is_one_small_vector(kind):
    cls, extra = (
        (layers.GRU, {"reset_after": False}) if " " in kind else (getattr(layers, kind), {})
    )
    extra["recurrent_initializer"] = "zeros"
    one, same, other = (cls(400, initial="random", seed=s, **extra) for s in (1, 1, 2))
    for layer in (one, same, other):
        layer.build((None, None, 1))
    vectors = [as_numpy(layer.cell.initial_vectors) for layer in (one, same, other)]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not np.allclose(vectors[0], vectors[2])
    for vector in vectors[0]:
        assert abs(vector.std() - 0.05) < 0.01
    assert len(one.non_trainable_weights) == len(vectors[0])
    assert [w.path for w in one.weights[:3]] == [w.path for w in one.trainable_weights]
    for training in (True, False):  # one function, in training and when served
        np.testing.assert_array_equal(
            *as_numpy([one(data(inputs=1), training=training), one(data(inputs=1))])
        )
    if len(vectors[0]) == 2:
        assert not np.allclose(*vectors[0])


@pytest.mark.parametrize("kind", KINDS)
def test_learned_initial_state(kind):
    layer = make(kind, initial="learned", return_sequences=True)
    plain = make(kind, return_sequences=True)
    plain.set_weights(layer.get_weights()[:3])
    vectors = as_numpy(layer.cell.initial_vectors)
    first = [np.tile(v, (BATCH, 1)) for v in vectors]
    learned = outputs_and_gradients(layer, data())
    given_state = outputs_and_gradients(plain, data(), first)
    np.testing.assert_allclose(learned[0][0], given_state[0][0], atol=1e-6)
    for place, w in enumerate(layer.cell.initial_vectors):  # its gradient is summed over the batch
        gradient = learned[1][w.path.split("/", 1)[1]]
        np.testing.assert_allclose(
            gradient, given_state[1][f"state {place}"].sum(axis=0), atol=1e-5
        )
    with_given = as_numpy(layer(data(), initial_state=random_states(layer)))
    np.testing.assert_allclose(
        with_given, as_numpy(plain(data(), initial_state=random_states(plain))), atol=1e-6
    )
    fresh = layers.LSTM(3, initial="learned")
    fresh.build((None, None, 2))
    assert not any(v.any() for v in as_numpy(fresh.cell.initial_vectors))


def test_a_stateful_layer_is_reset_to_its_initial_state():
    layer = make("LSTM", stateful=True, initial="random", return_state=True)
    layer.reset_state()
    first = as_numpy(layer(data()))
    assert not np.allclose(first[0], as_numpy(layer(data()))[0])
    layer.reset_state()
    np.testing.assert_array_equal(first[0], as_numpy(layer(data()))[0])
    with pytest.raises(ValueError, match="cannot be trained with stateful=True"):
        layers.GRU(3, initial="learned", stateful=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [False, True], ids=["full", "ragged"])
def test_truncation_beyond_the_sequence_equals_full_bptt_exactly(kind, masked):
    call = {"lengths": LENGTHS} if masked else {}
    results = [
        outputs_and_gradients(
            make(kind, truncate=k, return_sequences=True, return_state=True), data(), **call
        )
        for k in (None, TIME, TIME + 3)
    ]
    for other in results[1:]:
        assert_same(results[0], other, atol=0, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_crosses_a_boundary(kind):
    """Through the last state: x_4 and x_5 are within the last piece, x_0 to x_3 are not."""
    for unroll in (False, True):
        layer = make(kind, truncate=2, unroll=unroll)
        outputs, gradients = outputs_and_gradients(layer, data(), random_states(layer))
        assert not gradients["sequences"][:, :4].any()
        assert gradients["sequences"][:, 4:].any(axis=-1).all()
        assert not gradients["state 0"].any()
        full = outputs_and_gradients(make(kind, unroll=unroll), data(), random_states(layer))
        np.testing.assert_allclose(outputs[0], full[0][0], atol=1e-6)


@pytest.mark.parametrize("k", [0, -1, 2.0, "2", True, [2]])
def test_truncate_must_be_a_number_of_steps(k):
    with pytest.raises(ValueError, match="truncate must be None or a whole number of steps >= 1"):
        layers.LSTM(3, truncate=k)


def test_truncate_takes_numpy_integers():
    assert type(layers.LSTM(3, truncate=np.int64(2)).get_config()["truncate"]) is int


def test_invalid_arguments_are_rejected():
    layer = make("LSTM")
    with pytest.raises(ValueError, match="lengths or a mask, not both"):
        layer(data(), mask=MASK, lengths=LENGTHS)
    with pytest.raises(ValueError, match="whole numbers"):
        layer(data(), lengths=LENGTHS.astype("float32"))
    with pytest.raises(ValueError, match="whole numbers"):
        layer(data(), lengths=LENGTHS[:, None])
    with pytest.raises(ValueError, match="hidden_state, cell_state, received 1"):
        layer(data(), initial_state=random_states(layer)[:1])
    with pytest.raises(ValueError, match="initial must be one of"):
        layers.GRU(3, initial="ones")
    with pytest.raises(ValueError, match="initial must be one of"):
        layers.GRUCell(3, initial="ones")
    with pytest.raises(ValueError, match=r"use_cudnn=True, but .*truncate"):
        layers.LSTM(3, use_cudnn=True, truncate=2)(data(), training=True)
    with pytest.raises(ValueError, match="use_cudnn must be"):
        layers.GRU(3, use_cudnn="yes")
    with pytest.raises(ValueError, match="before tracing"):
        layers.GRU(3).trace(data())
    with pytest.raises(ValueError, match="exists once the cell is built"):
        layers.GRUCell(3, initial="random").get_initial_state(2)


def test_the_mask_of_an_embedding_is_used():
    tokens = np.array([[3, 1, 2, 0, 0], [1, 0, 0, 0, 0]])
    embedding = keras.layers.Embedding(4, INPUTS, mask_zero=True)
    layer = make("GRU")
    embedded = embedding(tokens)
    np.testing.assert_allclose(
        as_numpy(layer(embedded))[0],
        as_numpy(layer(as_numpy(embedded)[0], lengths=np.array([3, 1])))[0],
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="not both"):
        layer(embedded, mask=tokens != 0, lengths=np.array([3, 1]))


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_one_mask_for_all_steps(kind):
    """With U = 1, W = 0 and constant input the outputs show the mask on the input."""
    n = 2000
    layer = make(
        "SimpleRNN" if kind == "GRU before" else kind,
        units=1,
        inputs=n,
        dropout=0.3,
        seed=4,
        return_sequences=True,
    )
    units_of_kernel = np.full(layer.get_weights()[0].shape, 1e-3)
    layer.set_weights([units_of_kernel, *(0 * w for w in layer.get_weights()[1:])])
    x = np.ones((2, 5, n), dtype="float32")
    drawn = [as_numpy(layer(x, training=True))[0] for _ in range(2)]
    assert not np.allclose(*drawn)
    x_mask, _ = layer.cell.dropout_masks(ops.ones((2, n)), ops.ones((2, 1)), True)
    layer.cell.reset_dropout_mask()
    kept = as_numpy(x_mask)[0]
    assert set(np.unique(kept).round(4)) == {0.0, np.float32(1 / 0.7).round(4)}
    assert abs((kept == 0).mean() - 0.3) < 0.03
    if kind in ("SimpleRNN", "GRU before"):  # tanh(u · x) alone: the same at each step
        np.testing.assert_allclose(drawn[0], drawn[0][:, :1].repeat(5, axis=1), rtol=1e-5)
        expected = np.arctanh(drawn[0][:, 0, 0]) / 1e-3 / n  # mean of the mask
        np.testing.assert_allclose(expected, 1, atol=0.1)
    still = as_numpy([layer(x, training=False), layer(x)])
    np.testing.assert_array_equal(*still)


@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_dropout(kind):
    layers_of_seed = [
        make(kind, recurrent_dropout=0.5, seed=s, return_sequences=True) for s in (1, 1, 2)
    ]
    first, same, other = (as_numpy(f(data(), training=True))[0] for f in layers_of_seed)
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)
    without = make(kind, return_sequences=True)
    if kind == "SimpleRNN":  # h_0 = 0: there is nothing to drop at the first step
        np.testing.assert_allclose(first[:, 0], as_numpy(without(data()))[0][:, 0], atol=1e-6)
    np.testing.assert_allclose(
        as_numpy(layers_of_seed[0](data(), training=False))[0],
        as_numpy(without(data()))[0],
        atol=1e-6,
    )
