"""The vanishing gradient: how much of ∂L/∂h_T is left many steps back."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from matplotlib.figure import Figure

from pipelines.engine.core import plotting
from pipelines.engine.core.tables import Table
from pipelines.engine.training.diagnostics import decay
from pipelines.lab.networks import (
    CELLS,
    COLOURS,
    gradient_norms,
    initialize_long_memory,
    rotation_network,
)
from pipelines.lab.section import Section, Settings

#: γ = max|f'| of each activation.
_LARGEST_SLOPES = {"tanh": 1.0, "sigmoid": 0.25, "relu": 1.0}


class Signal(NamedTuple):
    """The gradient signal of one network.

    Attributes:
        norms: ‖∂L/∂h_t‖ by distance, relative to the last step.
        decay: factor per step over the first 50 steps.
        slope: the base γ of the bound (σ_max = 1); None for gated cells.
    """

    norms: np.ndarray
    decay: float
    slope: float | None


def _gated_layer(name: str, length: int, seed: int) -> Any:
    keras.utils.set_random_seed(seed)
    layer = CELLS[name](32, dtype="float64")
    layer.build((None, None, 4))
    initialize_long_memory(layer, length, seed=seed)
    return layer


def measure(settings: Settings, length: int) -> dict[str, Signal]:
    """The signal of each network, by its name."""
    seed = settings.seed
    networks: dict[str, tuple[Any, float | None]] = {
        name: (rotation_network(name, 1.0, seed=seed), slope)
        for name, slope in _LARGEST_SLOPES.items()
    }
    for name in ("lstm", "gru"):
        networks[f"{name}, long memory"] = (_gated_layer(name, length, seed), None)
    signals = {}
    for name, (layer, slope) in networks.items():
        norms = gradient_norms(layer, length=length, seed=seed)
        signals[name] = Signal(norms / norms[0], decay(norms[:51]), slope)
    return signals


def draw(signals: dict[str, Signal], length: int) -> Figure:
    """Draw the signal by distance: the first 50 steps, and all."""
    figure, axes = plotting.new_figure(10, 4, 2)
    for name, signal in signals.items():
        for ax, end in zip(axes, (51, length), strict=True):
            ax.semilogy(np.maximum(signal.norms[:end], 1e-30), color=COLOURS[name], label=name)
            if signal.slope is not None and signal.slope < 1:
                k = np.arange(end)
                bound = np.maximum(signal.slope**k, 1e-30)
                ax.semilogy(k, bound, ls=":", color=COLOURS[name], label=f"{name}: the bound")
    axes[0].set(xlabel="steps back", ylabel="‖∂L/∂h_t‖, relative to the last step")
    axes[1].set(xlabel="steps back")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def run(settings: Settings) -> Section:
    """Measure the signal of activations and gated cells."""
    length = settings.choose(400, 100)
    signals = measure(settings, length)
    left = {name: float(signal.norms[50]) for name, signal in signals.items()}
    numbers: dict[str, float] = {}
    rows = []
    for name, signal in signals.items():
        numbers[f"left_after_50/{name}"] = left[name]
        numbers[f"decay/{name}"] = signal.decay
        bound = "" if signal.slope is None else f"{signal.slope**50:.1g}"
        rows.append([name, f"{left[name]:.1e}", bound, f"{signal.decay:.3f}"])
    return Section(
        title="The gradient vanishes",
        claim="∂h_T/∂h_t is a product of T − t Jacobians, which shrinks exponentially if "
        "σ_max(W) · max|f'| < 1: always for the sigmoid (max f' = ¼), and for tanh where it is "
        "not at its steepest.",
        equation="‖∂h_T/∂h_t‖ ≤ Π_k ‖W‖ · ‖diag f'(a_k)‖ ≤ (σ_max(W) γ)^{T−t}",
        method=f"Networks of 32 units over {length} steps of noise; W is a rotation (σ_max = 1), "
        "so only f' can shrink the signal. The bound is dotted where it is below 1. “Long memory” "
        "are gated cells whose biases start with time constants up to the length "
        "(Tallec & Ollivier 2018): the gradient flows back through the open gates.",
        holds=left["tanh"] < 0.1 and left["sigmoid"] < left["tanh"],
        verdict=f"50 steps back, {left['tanh']:.0e} of the last step's signal is left with tanh, "
        f"{left['sigmoid']:.0e} with the sigmoid (its bound: {0.25**50:.0e}), "
        f"{left['relu']:.0e} with ReLU, {left['lstm, long memory']:.2f} with the LSTM and "
        f"{left['gru, long memory']:.2f} with the GRU. The largest slope of tanh is 1, so its "
        "bound says nothing: the signal vanishes at the steps where tanh is flatter.",
        numbers=numbers,
        figures=[draw(signals, length)],
        table=Table(["network", "left after 50 steps", "bound", "factor per step"], rows),
    )
