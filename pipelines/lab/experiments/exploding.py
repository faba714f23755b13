"""The exploding gradient: training with a large W, with and without clipping."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from pipelines.engine.core import plotting
from pipelines.engine.core.tables import Table
from pipelines.lab.networks import COLOURS, rotation_network
from pipelines.lab.section import Section, Settings

_SCALES = (0.5, 1.0, 1.25, 1.5, 2.0)
#: The clipping norm c, and the number of training steps.
_CLIP_NORM, _STEPS = 1.0, 30


class Training(NamedTuple):
    """A network's first gradient norm, and its loss after training without and with clipping."""

    gradient_norm: float
    loss: float
    clipped_loss: float


def train(
    scale: float, clip_norm: float | None, x: np.ndarray, y: np.ndarray, seed: int
) -> tuple[float, float]:
    """Train by gradient descent: the norm of the first gradient, and the loss at the end."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((30, 4))
    hidden = rotation_network("relu", scale, seed=seed, dtype="float32")
    output = keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(0.1))
    model = keras.Model(inputs, output(hidden(inputs)))
    variables = [v.value for v in model.trainable_variables]

    def loss() -> Any:
        return tf.reduce_mean((model(x, training=True) - y) ** 2)

    with tf.GradientTape() as tape:
        value = loss()
    norm = float(tf.linalg.global_norm(tape.gradient(value, variables)))
    model.compile(optimizer=keras.optimizers.SGD(0.01, global_clipnorm=clip_norm), loss="mse")
    model.fit(x, y, epochs=_STEPS, batch_size=64, verbose=0)
    return norm, float(loss())


def measure(seed: int) -> dict[float, Training]:
    """Train each network without and with clipping, by σ_max(W)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(64, 30, 4)).astype("float32")
    y = rng.normal(size=(64, 1)).astype("float32")
    trainings = {}
    for scale in _SCALES:
        _, loss = train(scale, None, x, y, seed)
        norm, clipped_loss = train(scale, _CLIP_NORM, x, y, seed)
        trainings[scale] = Training(norm, loss, clipped_loss)
    return trainings


def draw(trainings: dict[float, Training]) -> Figure:
    """Draw the norm of the first gradient by σ_max(W)."""
    figure, ax = plotting.new_figure()
    norms = [training.gradient_norm for training in trainings.values()]
    ax.semilogy(_SCALES, norms, "o-", color=COLOURS["relu"], label="‖∂L/∂θ‖")
    ax.axhline(_CLIP_NORM, color=plotting.BLUE, ls="--", label="maximum after clipping")
    ax.set(xlabel="σ_max(W)", ylabel="norm of the first gradient")
    ax.legend(frameon=False)
    return figure


def run(settings: Settings) -> Section:
    """Measure gradients and losses for several sizes of W."""
    trainings = measure(settings.seed)
    smallest, largest = (trainings[s].gradient_norm for s in (_SCALES[0], _SCALES[-1]))
    diverged = [s for s, t in trainings.items() if not math.isfinite(t.loss)]
    rescued = [s for s in diverged if math.isfinite(trainings[s].clipped_loss)]
    return Section(
        title="The gradient explodes, and is clipped",
        claim="With a large W the same product grows exponentially, and one training step "
        "ruins the weights; scaling the gradient down to a maximum norm prevents that.",
        equation="g ← g · min(1, c / ‖g‖)",
        method=f"ReLU networks of 32 units over 30 steps, {_STEPS} steps of plain gradient descent "
        f"at a learning rate of 0.01, without clipping and clipped at c = {_CLIP_NORM:g}.",
        holds=bool(diverged) and rescued == diverged and largest > 1e3 * smallest,
        verdict=f"From σ_max = {_SCALES[0]} to {_SCALES[-1]} the first gradient grows from "
        f"{smallest:.1e} to {largest:.1e}. "
        + (
            f"Without clipping the loss is no longer finite at {', '.join(map(str, diverged))}; "
            f"with clipping, at {'none' if rescued == diverged else 'some'} of these."
            if diverged
            else "The loss stays finite at all of them."
        )
        + " Clipping keeps the weights finite; it does not make the network learn.",
        numbers={f"gradient/sigma_{s}": t.gradient_norm for s, t in trainings.items()},
        figures=[draw(trainings)],
        table=Table(
            ["σ_max(W)", "first gradient", f"loss after {_STEPS} steps", "with clipping"],
            [
                [s, f"{t.gradient_norm:.1e}", f"{t.loss:.3g}", f"{t.clipped_loss:.3g}"]
                for s, t in trainings.items()
            ],
        ),
    )
