"""What comes back through time: ∂L/∂h_t, at every step of every recurrent layer of a model.

Backpropagation through time multiplies one Jacobian ∂h_t/∂h_{t-1} a step, so what the loss says
of a state shrinks or grows with the distance (Bengio et al. 1994; Pascanu et al. 2013). Here it is
measured, not bounded: to each state a nudge δ_t = 0 is added after its step and goes on with it,

    h_t ← h_t + δ_t        and therefore        ∂L/∂δ_t = ∂L/∂h_t

over all paths from h_t to the loss, whatever the model around the layer is.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from layers.recorder import CallRecord
from layers.unfold import of_backend


class GradientFlow(NamedTuple):
    """How the loss depends on the states of one layer.

    Attributes:
        seen: the call.
        gradients: by the name of a state (``hidden_state``, ``cell_state``), ∂L/∂ that state as
            it is handed on after each step, float64 NumPy [batch, time, units]; 0 at padded
            steps. The two are what is handed on side by side: that h_t was read from c_t counts
            in ∂L/∂h_t.
    """

    seen: CallRecord
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


def gradient_flow(loss):
    """∂L/∂h_t of every recurrent layer that ``loss`` calls.

    Args:
        loss: a function without arguments that runs a model and returns a scalar. It is called
            eagerly; what it assigns to Keras variables (a carried state) is undone.

    Returns:
        `Flow` by the name of the layer, in the order of the calls. Of a layer that is called more
        than once, the last call.

    Raises:
        NotImplementedError: on a backend other than TensorFlow and JAX.
    """
    return _flows(*_of_backend().gradients(loss))


def repeated(loss):
    """A function that gives `flows` of ``loss`` as often as it is called, for weights that change.

    TensorFlow compiles it once, at the first call; ``loss`` has to be one that it can compile.
    """
    look = _of_backend().repeated(loss)
    return lambda: _flows(*look())


def _of_backend():
    own = of_backend("gradient_flow")
    if own is None:
        raise NotImplementedError(f"no gradients of states on {keras.backend.backend()}")
    return own


def _flows(calls, gradients):
    found = {}
    for name, seen in calls.items():
        gradient = np.asarray(ops.convert_to_numpy(gradients[name]), np.float64)
        names = seen.layer.cell.state_names
        parts = np.split(gradient, np.cumsum([s.shape[-1] for s in seen.states])[:-1], axis=-1)
        found[name] = GradientFlow(seen, dict(zip(names, parts, strict=True)))
    return found
