"""The layers equal the chapter's equations and BPTT, written in NumPy, in every gradient."""

import itertools

import numpy as np
import pytest
from keras import ops

import layers
from tests.support import reference
from tests.support.comparing import (
    BATCH,
    INPUTS,
    KINDS,
    TIME,
    UNITS,
    as_numpy,
    data,
    fewer_on_jax,
    loss_weights,
    make,
    outputs_and_gradients,
)
from tests.support.comparing import random_states as states_for

RAGGED = [TIME, 0, 2, 5]


@pytest.mark.parametrize(
    ("kind", "backwards", "lengths", "truncate"),
    fewer_on_jax(itertools.product(KINDS, [False, True], [None, RAGGED], [None, 2])),
)
def test_outputs_states_and_gradients(kind, backwards, lengths, truncate):
    layer = make(
        kind,
        dtype="float64",
        return_sequences=True,
        return_state=True,
        go_backwards=backwards,
        truncate=truncate,
    )
    x, states = data(dtype="float64"), states_for(layer, dtype="float64")
    call = {} if lengths is None else {"lengths": np.array(lengths)}
    outputs, gradients = outputs_and_gradients(layer, x, states, seed=9, **call)

    d_outputs = loss_weights(9, 0, (BATCH, TIME, UNITS))
    d_states = [loss_weights(9, 1 + i, (BATCH, UNITS)) for i in range(len(states))]
    expected, last, dx, d_first, d_weights = reference.layer(
        kind,
        layer.get_weights(),
        x,
        states,
        [TIME] * BATCH if lengths is None else lengths,
        d_outputs,
        d_states,
        k=truncate,
        backwards=backwards,
    )
    for got, want in zip(outputs, [expected, *last], strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)
    for (name, got), want in zip(gradients.items(), [dx, *d_first, *d_weights], strict=True):
        np.testing.assert_allclose(got, want, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(kind):
    layer = make(kind, dtype="float64", return_state=True, initial="learned")
    x, lengths = data(dtype="float64"), np.array([TIME, 1, 3, 0], dtype="int32")
    _, gradients = outputs_and_gradients(layer, x, seed=9, lengths=lengths)
    weights, epsilon = layer.get_weights(), 1e-6

    def loss(weights, x):
        layer.set_weights(weights)
        outputs = as_numpy(layer(x, lengths=lengths))
        return sum(np.sum(y * loss_weights(9, i, y.shape)) for i, y in enumerate(outputs))

    rng = np.random.default_rng(3)
    for index, (name, gradient) in enumerate(gradients.items()):
        direction = rng.normal(size=gradient.shape)
        losses = []
        for step in (epsilon, -epsilon):
            shifted = [x, *weights]
            shifted[index] = shifted[index] + step * direction
            losses.append(loss(shifted[1:], shifted[0]))
        slope = (losses[0] - losses[1]) / (2 * epsilon)
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_one_product_for_all_steps_changes_nothing(kind, monkeypatch):
    layer = make(kind, dtype="float64", return_sequences=True, return_state=True, truncate=2)
    x, lengths = data(dtype="float64"), np.array(RAGGED)
    step_by_step = outputs_and_gradients(layer, x, lengths=lengths)
    monkeypatch.setattr("layers.unfold.multiplies_first", lambda inputs: True)
    at_once = outputs_and_gradients(layer, x, lengths=lengths)
    for a, b in zip(step_by_step[0], at_once[0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)
    for name, gradient in step_by_step[1].items():
        np.testing.assert_allclose(gradient, at_once[1][name], atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_trace_equals_the_equations(kind):
    layer = make(kind, dtype="float64")
    x, states = data(dtype="float64"), states_for(layer, dtype="float64")
    traced = {k: ops.convert_to_numpy(v) for k, v in layer.trace(x, initial_state=states).items()}
    w = reference.to_chapter(kind, layer.get_weights())
    for row in range(BATCH):
        _, kept = reference.forward_row(kind, w, x[row], tuple(s[row] for s in states))
        for t, of_step in enumerate(kept):
            for name in traced.keys() & of_step.keys():
                np.testing.assert_allclose(traced[name][row, t], of_step[name], atol=1e-12)
    names = {
        "SimpleRNN": {"pre_activation", "hidden_state"},
        "LSTM": {
            "input_gate",
            "forget_gate",
            "output_gate",
            "candidate",
            "cell_state",
            "hidden_state",
        },
    }
    gru = {"update_gate", "reset_gate", "candidate", "hidden_state"}
    assert traced.keys() == names.get(kind, gru)


def test_gates_of_an_lstm_with_chosen_weights():
    """σ(±30) is 1 or 0 to float precision: write step 1 only, keep it, read it at step 3."""
    lstm = layers.LSTM(1, dtype="float64")
    lstm.build((None, None, 4))
    on = 60.0  # each input switches one gate from closed (-30) to open (+30)
    kernel = np.diag([on, on, 0.0, on])
    kernel[2, 2] = np.arctanh(0.5)
    lstm.set_weights([kernel, np.zeros((1, 4)), np.array([-30.0, -30.0, 0.0, -30.0])])
    #             i  f  g  o
    x = np.array([[[1, 0, 1, 0], [0, 1, -1, 0], [0, 1, 1, 1], [0, 0, 0, 1]]], dtype="float64")
    traced = {name: ops.convert_to_numpy(v)[0, :, 0] for name, v in lstm.trace(x).items()}
    expected = {
        "input_gate": [1, 0, 0, 0],
        "forget_gate": [0, 1, 1, 0],
        "output_gate": [0, 0, 1, 1],
        "candidate": [0.5, -0.5, 0.5, 0],
        "cell_state": [0.5, 0.5, 0.5, 0],
        "hidden_state": [0, 0, np.tanh(0.5), 0],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(traced[name], values, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_the_gates_by_the_chapters_names(kind):
    layer = make(kind)
    blocks = reference.to_chapter(kind, layer.get_weights())
    for name, block in blocks.items():
        view = name.replace("b'", "b_recurrent")
        if kind == "SimpleRNN":
            view = view[0]
        for owner in (layer, layer.cell):
            value = getattr(owner, view)
            np.testing.assert_allclose(ops.convert_to_numpy(value).T, block, rtol=1e-6)
            with pytest.raises(AttributeError):
                setattr(owner, view, value)
    assert layer.U_z.shape == (INPUTS, UNITS) if kind.startswith("GRU") else True


def test_the_candidate_can_still_be_read_by_its_earlier_letter():
    layer = make("LSTM")
    for letter in "UWb":
        old, new = (getattr(layer, f"{letter}_{gate}") for gate in "cg")
        np.testing.assert_array_equal(ops.convert_to_numpy(old), ops.convert_to_numpy(new))


def test_views_of_missing_weights():
    assert make("LSTM", use_bias=False).b_i is None
    assert make("GRU", use_bias=False).b_recurrent_z is None
    with pytest.raises(AttributeError, match="reset_after=False"):
        _ = make("GRU before").b_recurrent_z
