"""The measured ∂L/∂h_t equals the chapter's backward steps in NumPy, and theory."""

import keras
import numpy as np
import pytest
from keras import ops

from layers import LSTM, Bidirectional, SimpleRNN
from layers.gradient_flow import gradient_flow, make_gradient_flow
from tests.support import reference
from tests.support.comparing import (
    BATCH,
    KINDS,
    TIME,
    UNITS,
    data,
    fewer_on_jax,
    make,
    random_states,
)

LENGTHS = [6, 0, 3, 1]


def random_loss(layer, x, lengths, seed=2, **call):
    """A random linear function of all outputs, and its gradient to each of them."""
    upstream = np.random.default_rng(seed).normal(size=(BATCH, TIME, UNITS)).astype("float32")
    return lambda: ops.sum(layer(x, lengths=lengths, **call) * upstream), upstream


@pytest.mark.parametrize("truncate", [None, 2])
@pytest.mark.parametrize("kind", fewer_on_jax(KINDS))
def test_equals_the_chapters_backward_steps(kind, truncate):
    layer = make(kind, return_sequences=True, zero_output_for_mask=True, truncate=truncate)
    x, states = data(), random_states(layer)
    loss, upstream = random_loss(layer, x, LENGTHS, initial_state=states)
    found = gradient_flow(loss)[layer.name]
    w = reference.to_chapter(kind, layer.get_weights())
    backward = reference.STEPS[kind][1]
    for row, n in enumerate(LENGTHS):
        first = tuple(s[row] for s in states)
        _, kept = reference.forward_row(kind, w, x[row, :n], first)
        expected = {name: np.zeros((TIME, UNITS)) for name in found.gradients}
        d_state = tuple(np.zeros(UNITS) for _ in states)
        for t in reversed(range(n)):
            d_state = (d_state[0] + upstream[row, t], *d_state[1:])
            for name, d in zip(expected, d_state, strict=True):
                expected[name][t] = d
            d_state = backward(w, kept[t], d_state)[0]
            if truncate and t % truncate == 0:
                d_state = tuple(np.zeros_like(d) for d in d_state)
        for name, gradient in found.gradients.items():
            np.testing.assert_allclose(gradient[row], expected[name], rtol=1e-4, atol=1e-5)


def test_a_linear_network_forgets_at_the_rate_of_its_spectral_radius():
    """h_t = W h_{t-1}: the only multiplier is W, with eigenvalues of one size."""
    layer = SimpleRNN(6, activation="linear", return_sequences=True)
    layer.build((None, None, 2))
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    layer.set_weights([np.zeros((2, 6)), 0.8 * turn, np.zeros(6)])
    norms = gradient_flow(lambda: ops.sum(layer(np.zeros((3, 20, 2), "float32"))[:, -1]))[
        layer.name
    ].norms()
    np.testing.assert_allclose(norms[1:] / norms[:-1], 0.8, rtol=1e-4)


def test_distance_is_counted_from_the_last_real_step():
    layer = make("SimpleRNN")
    layer.set_weights([w * 0 for w in layer.get_weights()])  # no memory at all
    x = data()
    norms = gradient_flow(lambda: ops.sum(layer(x, lengths=LENGTHS)))[layer.name].norms()
    # Three rows have a last step, of √5 each; nothing reaches further, and none has a seventh.
    np.testing.assert_allclose(norms, [5**0.5, 0, 0, 0, 0, 0], atol=1e-6)
    only_short = gradient_flow(lambda: ops.sum(layer(x, lengths=[2, 1, 2, 0])))[layer.name].norms()
    assert np.isnan(only_short[2:]).all()


def test_every_layer_of_a_model_is_found_and_nothing_is_changed():
    inputs = keras.Input((None, 3))
    hidden = Bidirectional(LSTM(4, return_sequences=True, name="below"))(inputs)
    model = keras.Model(inputs, SimpleRNN(2, name="above")(hidden))
    x = data()
    before = ops.convert_to_numpy(model(x))
    found = gradient_flow(lambda: ops.sum(model(x)))
    assert list(found) == ["forward_below", "backward_below", "above"]
    assert found["forward_below"].gradients["cell_state"].shape == (BATCH, TIME, 4)
    # The backward layer's first step in its order is the last of the text.
    assert all(np.abs(f.gradients["hidden_state"]).sum(axis=(0, 2)).all() for f in found.values())
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), before)


def test_a_compiled_flow_reads_the_weights_of_the_moment():
    layer = make("LSTM", return_sequences=True)
    x, states = data(), random_states(layer)
    loss, _ = random_loss(layer, x, LENGTHS, initial_state=states)
    flow = make_gradient_flow(loss)
    for factor in (1.0, 0.5):
        layer.set_weights([factor * w for w in layer.get_weights()])
        (found,), (expected,) = flow().values(), gradient_flow(loss).values()
        for name, gradient in expected.gradients.items():
            np.testing.assert_allclose(found.gradients[name], gradient, rtol=1e-4, atol=1e-6)
        for one, other in zip(found.call.states, expected.call.states, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_state_of_a_stateful_layer_is_left_alone():
    layer = make("LSTM", stateful=True)
    gradient_flow(lambda: ops.sum(layer(data())))
    for state in layer.states:
        assert not ops.convert_to_numpy(state).any()
