"""Backpropagation through time: our gradients against autodiff and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipelines.engine.core.tables import Table
from pipelines.lab.networks import CELLS
from pipelines.lab.section import Section, Settings

_REFERENCES = ("automatic", "finite differences")


def finite_differences(loss: Callable[[], Any], weight: Any, epsilon: float = 1e-5) -> np.ndarray:
    """∂L/∂w of each entry of a variable, by central differences."""
    value, gradient = weight.numpy(), np.zeros(weight.shape)
    for index in np.ndindex(*value.shape):
        losses = []
        for sign in (1, -1):
            changed = value.copy()
            changed[index] += sign * epsilon
            weight.assign(changed)
            losses.append(float(loss()))
        gradient[index] = (losses[0] - losses[1]) / (2 * epsilon)
    weight.assign(value)
    return gradient


def measure(layer: Any, x: np.ndarray, upstream: np.ndarray) -> dict[str, float]:
    """The largest relative error of the training gradient, by reference gradient."""
    weights = [v.value for v in layer.trainable_variables]

    def loss() -> Any:
        return tf.reduce_sum(layer(x, training=True) * upstream)

    def gradient() -> Any:
        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, weights)

    # Eager execution differentiates the unfolded loop; a graph uses layers/bptt.py.
    automatic = [g.numpy() for g in gradient()]
    ours = [g.numpy() for g in tf.function(gradient, autograph=False)()]
    # Hundreds of losses: compiled they take no time.
    compiled = tf.function(loss, autograph=False)
    numeric = [finite_differences(compiled, w) for w in weights]
    return {
        name: max(
            float(np.abs(a - b).max() / np.abs(b).max())
            for a, b in zip(ours, reference, strict=True)
        )
        for name, reference in zip(_REFERENCES, (automatic, numeric), strict=True)
    }


def run(settings: Settings) -> Section:
    """Compare the gradients of every cell."""
    rng = np.random.default_rng(settings.seed)
    x, upstream = rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 6, 3))
    numbers: dict[str, float] = {}
    rows = []
    for name, cell in CELLS.items():
        keras.utils.set_random_seed(settings.seed)
        layer = cell(3, return_sequences=True, dtype="float64")
        layer.build((None, None, 3))
        errors = measure(layer, x, upstream)
        numbers |= {f"error/{name}/{reference}": e for reference, e in errors.items()}
        route = layer.route(training=True).name
        rows.append([name, route, *(f"{errors[reference]:.1e}" for reference in _REFERENCES)])
    largest = max(numbers.values())
    return Section(
        title="Backpropagation through time by hand",
        claim="∂L/∂W is a sum over all steps, each with the gradient that came back to it.",
        equation="∂L/∂h_{t-1} = Wᵀ (∂L/∂h_t ∘ (1 − h_t²)) + …        "
        "∂L/∂W = Σ_t (∂L/∂h_t ∘ (1 − h_t²)) h_{t-1}ᵀ",
        method="The gradient used in training, derived by hand in layers/derivatives.py, against "
        "automatic differentiation of the unfolded loop and against central differences, in "
        "float64: two rows of six steps, three units.",
        holds=largest < 1e-6,
        verdict=f"They agree to {largest:.0e} of the largest entry.",
        numbers=numbers,
        table=Table(["cell", "training uses", "against automatic", "against differences"], rows),
    )
