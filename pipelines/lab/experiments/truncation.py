"""Truncated backpropagation: the bias of the gradient by the number of steps it goes back."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from pipelines.engine.core import plotting
from pipelines.lab.networks import CELLS, COLOURS
from pipelines.lab.section import Section, Settings


def recurrent_gradient(
    name: str, truncate: int | None, x: np.ndarray, y: np.ndarray, V: np.ndarray, seed: int
) -> np.ndarray:
    """∂L/∂W of a new layer, flattened; L is the squared error at every step."""
    keras.utils.set_random_seed(seed)
    layer = CELLS[name](32, return_sequences=True, truncate=truncate)
    layer.build((None, None, 4))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((layer(x) @ V - y) ** 2)
    gradient = tape.gradient(loss, layer.cell.recurrent_kernel.value)
    flat: np.ndarray = gradient.numpy().ravel()
    return flat


def measure(seed: int, length: int, truncations: list[int]) -> dict[str, dict[int, float]]:
    """The cosine between the truncated and the full ∂L/∂W, by cell and truncation k."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(16, length, 4)).astype("float32")
    y = rng.normal(size=(16, length, 1)).astype("float32")
    V = rng.normal(scale=0.3, size=(32, 1)).astype("float32")
    cosines: dict[str, dict[int, float]] = {}
    for name in CELLS:
        full = recurrent_gradient(name, None, x, y, V, seed)
        cosines[name] = {}
        for k in truncations:
            gradient = recurrent_gradient(name, k, x, y, V, seed)
            if norm := np.linalg.norm(gradient):
                cosines[name][k] = float(gradient @ full / (norm * np.linalg.norm(full)))
    return cosines


def draw(cosines: dict[str, dict[int, float]]) -> Figure:
    """Draw the cosine by truncation."""
    figure, ax = plotting.new_figure()
    for name, line in cosines.items():
        ax.semilogx(list(line), list(line.values()), "o-", color=COLOURS[name], label=name)
    ax.set(xlabel="steps the gradient may go back, k", ylabel="cosine with the full ∂L/∂W")
    ax.legend(frameon=False)
    return figure


def run(settings: Settings) -> Section:
    """Measure the bias of the truncated gradient."""
    length = settings.choose(100, 30)
    truncations = [*(k for k in (1, 2, 5, 10, 20, 50) if k < length), length]
    cosines = measure(settings.seed, length, truncations)
    short = truncations[1]
    return Section(
        title="Truncated backpropagation through time",
        claim="Cut after k steps, the gradient costs less and is biased; the bias falls with k.",
        equation="∂L/∂W ≈ Σ_t Σ_{j>t−k} (∂L/∂h_t)(∂h_t/∂h_j)(∂h_j/∂W)",
        method=f"∂L/∂W of one batch of {length} steps with a loss at each, in full and cut every k "
        "steps, at the initial weights: the cosine of the angle between the two.",
        holds=all(line[length] > 0.999 > line[short] for line in cosines.values()),
        verdict="; ".join(
            f"{name}: {line[short]:.2f} at k = {short}, {line[10]:.2f} at 10"
            for name, line in cosines.items()
        )
        + f". At k = {length} nothing is cut.",
        numbers={f"cosine/{n}/{k}": c for n, line in cosines.items() for k, c in line.items()},
        figures=[draw(cosines)],
    )
