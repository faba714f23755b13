"""The forward pass by hand: the layer against the equations in NumPy."""

from __future__ import annotations

import numpy as np
from keras import ops

from layers import SimpleRNN
from pipelines.engine.core.tables import Table
from pipelines.lab.section import Section, Settings

_U = np.array([[0.5, -0.3]])
_W = np.array([[0.1, 0.4], [-0.2, 0.3]])
_B = np.array([0.0, 0.1])
_V = np.array([[1.0, -1.0], [0.5, 0.5]])
_INPUTS = (1.0, -2.0, 0.5)


def forward_pass() -> tuple[np.ndarray, np.ndarray]:
    """Compute hidden states and outputs in NumPy, each ``<float64>[steps, 2]``."""
    h = np.zeros(2)
    states, outputs = [], []
    for x in _INPUTS:
        h = np.tanh(x * _U[0] + h @ _W + _B)
        exp = np.exp(h @ _V)
        states.append(h)
        outputs.append(exp / exp.sum())
    return np.array(states), np.array(outputs)


def measure(states: np.ndarray) -> float:
    """The largest difference between the states and those of `layers.SimpleRNN`."""
    layer = SimpleRNN(2, return_sequences=True)
    layer.build((None, None, 1))
    layer.set_weights([_U, _W, _B])
    computed = ops.convert_to_numpy(layer(np.array(_INPUTS, "float32")[None, :, None]))[0]
    return float(np.abs(computed - states).max())


def run(settings: Settings) -> Section:
    """Compare two units over three steps with the layer."""
    states, outputs = forward_pass()
    error = measure(states)
    return Section(
        title="The forward pass by hand",
        claim="The layer is the equations, and nothing else.",
        equation="h_t = tanh(U x_t + W h_{t-1} + b)        ŷ_t = softmax(V h_t)",
        method="Two units, one input per step: U = [0.5, −0.3], W = [[0.1, 0.4], [−0.2, 0.3]] "
        "(as Keras stores it: h_{t-1} multiplies it from the left), b = [0, 0.1], "
        "V = [[1, −1], [0.5, 0.5]]; computed in NumPy and by layers.SimpleRNN.",
        holds=error < 1e-6,
        verdict=f"The largest difference is {error:.1e}.",
        numbers={"difference": error},
        table=Table(
            ["t", "x_t", "h_t[1]", "h_t[2]", "ŷ_t[1]", "ŷ_t[2]"],
            [
                [t, x, *(f"{v:.6f}" for v in (*h, *y))]
                for t, (x, h, y) in enumerate(zip(_INPUTS, states, outputs, strict=True), 1)
            ],
        ),
    )
