"""Networks of the experiments: how they are made, initialized and trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from layers import GRU, LSTM, SimpleRNN
from layers.gradient_flow import gradient_flow
from pipelines.engine.core import plotting
from pipelines.lab.problems import Problem

#: The three cells by name.
CELLS: dict[str, Any] = {"rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}
#: Colours of the networks in all figures.
COLOURS = {
    "rnn": plotting.GREY, "tanh": plotting.GREY, "sigmoid": "#7a4fa0", "relu": "#9c2f2f",
    "lstm": plotting.BLUE, "lstm, long memory": "#12365f",
    "gru": plotting.ORANGE, "gru, long memory": "#8a4510",
}  # fmt: skip


def train(
    hidden: Callable[[Any], Any],
    problem: Problem,
    *,
    steps: int,
    length: int,
    outputs: int,
    seed: int,
    learning_rate: float = 5e-3,
) -> float:
    """Train a network with a dense output layer V on fresh rows at every step, and test it.

    Args:
        hidden: the network below V, a function of Keras tensors. A layer draws its initial
            weights when it is created.
        problem: generates the rows.
        steps: batches of 64 rows.
        length: time steps of a row.
        outputs: number of classes; 1 means regression with the squared error.
        seed: of the rows.
        learning_rate: of Adam.

    Returns:
        On 1,000 new rows, the accuracy or the mean squared error.
    """
    rng = np.random.default_rng(seed)
    features = problem(rng, 1, length)[0].shape[-1]
    inputs = keras.Input((length, features))
    model = keras.Model(inputs, keras.layers.Dense(outputs, name="V")(hidden(inputs)))
    regression = outputs == 1
    loss = (
        keras.losses.MeanSquaredError()
        if regression
        else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.compile(optimizer=keras.optimizers.Adam(learning_rate, global_clipnorm=1.0), loss=loss)
    x, y = problem(rng, 64 * steps, length)
    model.fit(x, y, batch_size=64, shuffle=False, verbose=0)
    x, y = problem(rng, 1000, length)
    outcome = model.predict(x, batch_size=250, verbose=0)
    if regression:
        return float(np.mean((outcome - y) ** 2))
    return float(np.mean(outcome.argmax(axis=-1) == y))


def rotation_network(
    activation: str, scale: float, *, seed: int, dtype: str = "float64"
) -> SimpleRNN:
    """A vanilla layer of 32 units whose W is ``scale`` times a rotation: σ_max = ρ = scale."""
    layer = SimpleRNN(
        32,
        activation=activation,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.3, seed=seed),
        recurrent_initializer=keras.initializers.Orthogonal(gain=scale, seed=seed),
        dtype=dtype,
    )
    layer.build((None, None, 4))
    return layer


def initialize_long_memory(layer: Any, length: int, *, seed: int) -> None:
    """Set gate biases for time constants T ~ U(1, length − 1) (Tallec & Ollivier 2018)::

        b_f = log T, b_i = −log T        LSTM
        b_z = log T                      GRU

    A unit then keeps σ(log T) = T / (T + 1) of its state at each step.

    Args:
        layer: a built LSTM or GRU.
        length: the longest time to remember, in steps.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    bias = ops.convert_to_numpy(layer.cell.bias).copy()
    log_times = np.log(rng.uniform(1, max(length - 1, 2), layer.units))
    flat = bias[0] if bias.ndim == 2 else bias
    gates = {
        gate: slice(i * layer.units, (i + 1) * layer.units)
        for i, gate in enumerate(layer.cell.gate_order)
    }
    if "f" in gates:
        flat[gates["f"]], flat[gates["i"]] = log_times, -log_times
    else:
        flat[gates["z"]] = log_times
    layer.cell.bias.assign(bias)


def gradient_norms(layer: Any, *, length: int, seed: int) -> np.ndarray:
    """‖∂L/∂h_t‖ by distance from the last step, for L = Σ vᵀ h_T with a random v.

    Args:
        layer: a built layer that returns its last state.
        length: steps of noise that the layer reads.
        seed: of the noise and of v.

    Returns:
        ``<float64>[length]``.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(8, length, layer.cell.kernel.shape[0]))
    v = rng.normal(size=layer.units)
    flow = gradient_flow(lambda: ops.sum(layer(x) * v))[layer.name]
    norms: np.ndarray = flow.norms()
    return norms
