"""Unfolding over time: a layer against its own cell, called once per step."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from pipelines.engine.core.tables import Table
from pipelines.lab.networks import CELLS
from pipelines.lab.section import Section, Settings

_STEPS = 30


def measure(name: str, x: np.ndarray, seed: int) -> tuple[int, float]:
    """The layer's number of parameters, and its largest difference from its unfolded cell."""
    keras.utils.set_random_seed(seed)
    layer = CELLS[name](8, return_sequences=True)
    outputs = ops.convert_to_numpy(layer(x))
    states = layer.cell.get_initial_state(len(x))
    difference = 0.0
    for t in range(_STEPS):
        _, states = layer.cell(x[:, t], states)
        error = np.abs(ops.convert_to_numpy(states[0]) - outputs[:, t]).max()
        difference = max(difference, float(error))
    return layer.count_params(), difference


def run(settings: Settings) -> Section:
    """Compare every cell with its layer."""
    x = np.random.default_rng(settings.seed).normal(size=(4, _STEPS, 3)).astype("float32")
    measured = {name: measure(name, x, settings.seed) for name in CELLS}
    largest = max(difference for _, difference in measured.values())
    return Section(
        title="Unfolding over time",
        claim="The network is one cell, applied at every step with the same U, W and b.",
        equation="h_t = f(x_t, h_{t-1}; U, W, b)        t = 1 … T",
        method=f"A layer over {_STEPS} steps, against its own cell called {_STEPS} times.",
        holds=largest < 1e-5,
        verdict=f"The largest difference over all cells and steps is {largest:.1e}; the number of "
        "parameters does not depend on the number of steps.",
        numbers={"difference": largest},
        table=Table(
            ["cell", "parameters", "largest difference"],
            [[n, f"{count:,}", f"{difference:.1e}"] for n, (count, difference) in measured.items()],
        ),
    )
