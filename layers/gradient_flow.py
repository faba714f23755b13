"""The gradient ∂L/∂h_t at every step of every recurrent layer of a model.

Backpropagation through time multiplies one Jacobian ∂h_t/∂h_{t-1} per step, so the gradient
shrinks or grows with the distance from the loss (Bengio et al. 1994; Pascanu et al. 2013). Here
it is measured, not bounded: a perturbation δ_t = 0 is added to each state after its step and
passes on with it,

    h_t ← h_t + δ_t        and therefore        ∂L/∂δ_t = ∂L/∂h_t

over all paths from h_t to the loss, whatever the model around the layer is.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from layers.backends import Tensor, backend_module
from layers.recorder import CallRecord


class GradientFlow(NamedTuple):
    """How the loss depends on the states of one layer.

    Attributes:
        call: the recorded call of the layer.
        gradients: ∂L/∂ each state after every step, by the state's name (``hidden_state``,
            ``cell_state``): float64 NumPy [batch, time, units], 0 at padded steps. The states
            count as independent: that h_t was computed from c_t is part of ∂L/∂h_t.
    """

    call: CallRecord
    gradients: dict[str, np.ndarray]

    def norms(self) -> np.ndarray:
        """Return ‖∂L/∂(h_t, c_t)‖ by the distance from a row's last real step.

        Returns:
            float64 NumPy [time]. Entry k is the mean over the rows with more than k steps; NaN
            if there are none.
        """
        squares = sum(np.sum(np.square(g), axis=-1) for g in self.gradients.values())
        rows, time = squares.shape
        real = np.ones((rows, time), bool)
        if self.call.mask is not None:
            real = ops.convert_to_numpy(self.call.mask)
        total, count = np.zeros(time), np.zeros(time, int)
        for row in range(rows):
            backwards = np.sqrt(squares[row][real[row]][::-1])
            total[: len(backwards)] += backwards
            count[: len(backwards)] += 1
        return np.where(count, total / np.maximum(count, 1), np.nan)


def gradient_flow(loss: Callable[[], Tensor]) -> dict[str, GradientFlow]:
    """Return ∂L/∂h_t for every recurrent layer that ``loss`` calls.

    Args:
        loss: a function without arguments that runs a model and returns a scalar. It is called
            eagerly; what it assigns to Keras variables (the states of a stateful layer) is undone.

    Returns:
        `GradientFlow` by the name of the layer, in the order of the calls; for a layer that is
        called more than once, that of the last call.

    Raises:
        NotImplementedError: on a backend other than TensorFlow and JAX.
    """
    return _by_state(*_backend_module().gradients(loss))


def make_gradient_flow(loss: Callable[[], Tensor]) -> Callable[[], dict[str, GradientFlow]]:
    """Return a function that computes `gradient_flow` of ``loss`` with the weights of the moment.

    TensorFlow compiles it at the first call, so ``loss`` must be a function it can compile.
    """
    gradients = _backend_module().make_gradients(loss)
    return lambda: _by_state(*gradients())


def _backend_module() -> Any:
    module = backend_module("gradient_flow")
    if module is None:
        raise NotImplementedError(
            f"no gradients of states on the {keras.backend.backend()} backend"
        )
    return module


def _by_state(
    calls: Mapping[str, CallRecord], gradients: Mapping[str, Tensor]
) -> dict[str, GradientFlow]:
    """Split the gradients [batch, time, units of all states] by state."""
    flows = {}
    for name, call in calls.items():
        gradient = np.asarray(ops.convert_to_numpy(gradients[name]), np.float64)
        widths = [state.shape[-1] for state in call.initial_states]
        parts = np.split(gradient, np.cumsum(widths)[:-1], axis=-1)
        flows[name] = GradientFlow(call, dict(zip(call.layer.cell.state_names, parts, strict=True)))
    return flows
