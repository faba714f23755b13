"""What comes back through time: ∂L/∂h_t, at every step of every recurrent layer of a model.

Backpropagation through time multiplies one Jacobian ∂h_t/∂h_{t-1} a step, so what the loss says
of a state shrinks or grows with the distance (Bengio et al. 1994; Pascanu et al. 2013). Here it is
measured, not bounded: to each state a nudge δ_t = 0 is added after its step and goes on with it,

    h_t ← h_t + δ_t        and therefore        ∂L/∂δ_t = ∂L/∂h_t

over all paths from h_t to the loss, whatever the model around the layer is.
"""

import contextlib
from contextvars import ContextVar
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

_WATCH = ContextVar("watch", default=None)


class Seen(NamedTuple):
    """One call of a layer, time in its order of processing (a backward layer's is reversed).

    Attributes:
        layer: the layer.
        inputs: <float>[batch, time, inputs].
        states: the state before the first step, <float>[batch, units] each.
        mask: bool [batch, time], or None where all steps are real.
    """

    layer: Any
    inputs: Any
    states: list
    mask: Any


class Watch:
    """Sees the calls of recurrent layers, and nudges their states.

    Args:
        nudges: by the name of a layer, what is added to its states, side by side, after each step:
            <float>[batch, time, units × states]. None adds nothing.
    """

    def __init__(self, nudges=None):
        self.nudges = nudges
        self.seen = {}

    def see(self, layer, inputs, states, mask):
        """The nudges for this call, or None."""
        self.seen[layer.name] = Seen(layer, inputs, list(states), mask)
        return None if self.nudges is None else self.nudges[layer.name]

    @contextlib.contextmanager
    def looking(self):
        """While it lasts, every recurrent layer is watched, and takes its portable route."""
        token = _WATCH.set(self)
        try:
            yield self
        finally:
            _WATCH.reset(token)


def watch():
    """The `Watch` that is looking, or None."""
    return _WATCH.get()


def nudged(step, sizes):
    """``step`` of `layers.unfold.unfold` for inputs that carry the nudges of the states behind
    them: ``sizes`` are the widths of the states."""
    ends = np.cumsum([0, *sizes])

    def nudged_step(x_t, states):
        x_t, nudges = x_t[..., : -ends[-1]], x_t[..., -ends[-1] :]
        return [
            state + nudges[..., start:end]
            for state, start, end in zip(step(x_t, states), ends, ends[1:], strict=False)
        ]

    return nudged_step


class Flow(NamedTuple):
    """How the loss depends on the states of one layer.

    Attributes:
        seen: the call.
        gradients: by the name of a state (``hidden_state``, ``cell_state``), ∂L/∂ that state as
            it is handed on after each step, float64 NumPy [batch, time, units]; 0 at padded
            steps. The two are what is handed on side by side: that h_t was read from c_t counts
            in ∂L/∂h_t.
    """

    seen: Seen
    gradients: dict

    def norms(self):
        """‖∂L/∂(h_t, c_t)‖ by the distance from a row's last real step.

        Returns:
            float64 NumPy [time]: at k the mean over the rows that have more than k steps; NaN
            where no row has.
        """
        squares = sum(np.sum(np.square(g), axis=-1) for g in self.gradients.values())
        rows, time = squares.shape
        real = np.ones((rows, time), bool)
        if self.seen.mask is not None:
            real = ops.convert_to_numpy(self.seen.mask)
        total, count = np.zeros(time), np.zeros(time, int)
        for row in range(rows):
            backwards = np.sqrt(squares[row][real[row]][::-1])
            total[: len(backwards)] += backwards
            count[: len(backwards)] += 1
        return np.where(count, total / np.maximum(count, 1), np.nan)


def flows(loss):
    """∂L/∂h_t of every recurrent layer that ``loss`` calls.

    Args:
        loss: a function without arguments that runs a model and returns a scalar. It is called
            twice, eagerly; what it assigns to Keras variables (a carried state) is undone.

    Returns:
        `Flow` by the name of the layer, in the order of the calls. Of a layer that is called more
        than once, the last call.

    Raises:
        NotImplementedError: on a backend other than TensorFlow and JAX.
    """
    with keras.StatelessScope(), Watch().looking() as first:
        loss()
    zeros = {
        name: ops.zeros(
            (*seen.inputs.shape[:2], sum(s.shape[-1] for s in seen.states)),
            dtype=seen.layer.compute_dtype,
        )
        for name, seen in first.seen.items()
    }

    def nudged_loss(nudges):
        with keras.StatelessScope(), Watch(nudges).looking():
            return loss()

    gradients = _gradients(nudged_loss, zeros)
    found = {}
    for name, seen in first.seen.items():
        gradient = np.asarray(ops.convert_to_numpy(gradients[name]), np.float64)
        names = seen.layer.cell.state_names
        parts = np.split(gradient, np.cumsum([s.shape[-1] for s in seen.states])[:-1], axis=-1)
        found[name] = Flow(seen, dict(zip(names, parts, strict=True)))
    return found


def _gradients(function, values):
    """∂ function(values) / ∂ values, for a dict of tensors."""
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(values)
                loss = function(values)
            return tape.gradient(loss, values, unconnected_gradients="zero")
        case "jax":
            import jax

            return jax.grad(function)(values)
        case backend:
            raise NotImplementedError(f"no gradients of states on the {backend} backend")
