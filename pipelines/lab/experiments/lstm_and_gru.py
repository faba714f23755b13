"""LSTM against GRU: parameters, training time and error on the adding problem."""

from __future__ import annotations

import time
from typing import NamedTuple

import keras

from pipelines.engine.core.tables import Table
from pipelines.lab import problems
from pipelines.lab.networks import CELLS, initialize_long_memory, train
from pipelines.lab.section import Section, Settings

_LENGTH = 30


class Result(NamedTuple):
    """Parameters, training time in seconds (with set-up) and squared error of a cell."""

    parameters: int
    seconds: float
    error: float


def measure(name: str, steps: int, seed: int) -> Result:
    """Train one cell on the adding problem."""
    keras.utils.set_random_seed(seed)
    layer = CELLS[name](32)
    layer.build((None, _LENGTH, 2))
    initialize_long_memory(layer, _LENGTH, seed=seed)
    started = time.perf_counter()
    error = train(
        layer, problems.adding, steps=steps, length=_LENGTH, outputs=1, seed=seed,
        learning_rate=1e-2,
    )  # fmt: skip
    return Result(layer.count_params(), time.perf_counter() - started, error)


def run(settings: Settings) -> Section:
    """Compare the two gated cells."""
    steps = settings.choose(1200, 300)
    results = {name: measure(name, steps, settings.seed) for name in ("lstm", "gru")}
    lstm, gru = results["lstm"], results["gru"]
    share = gru.parameters / lstm.parameters
    numbers: dict[str, float] = {}
    for name, result in results.items():
        numbers[f"parameters/{name}"] = float(result.parameters)
        numbers[f"error/{name}"] = result.error
    return Section(
        title="LSTM and GRU",
        claim="The GRU does with three quarters of the parameters what the LSTM does.",
        equation="h_t = z_t ∘ h_{t-1} + (1 − z_t) ∘ h̃_t",
        method=f"The adding problem again, {_LENGTH} steps, 32 units, {steps} training steps; the "
        "biases of both start with time constants up to the length.",
        holds=max(lstm.error, gru.error) < 0.02 and share < 0.8,
        verdict=f"The GRU has {share:.0%} of the parameters; the squared errors are "
        f"{lstm.error:.4f} (LSTM) and {gru.error:.4f} (GRU), against {1 / 6:.3f} for always "
        "answering the mean.",
        numbers=numbers,
        table=Table(
            ["cell", "parameters", "seconds, with set-up", "squared error"],
            [
                [n, f"{r.parameters:,}", f"{r.seconds:.1f}", f"{r.error:.4f}"]
                for n, r in results.items()
            ],
        ),
    )
