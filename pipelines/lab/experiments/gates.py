"""The LSTM's gates, each fixed in turn."""

from __future__ import annotations

import keras
from keras import ops

from layers import LSTM
from pipelines.engine.core.tables import Table
from pipelines.lab import problems
from pipelines.lab.networks import initialize_long_memory, train
from pipelines.lab.section import Section, Settings

#: A bias that fixes a gate: σ(±30) is 1 or 0 in float32, with a gradient of practically 0.
_SATURATING_BIAS = 30.0
_ALL_GATES, _FORGET_SHUT = "all gates", "forget gate shut: forgets all"
#: The variants: the biases of the fixed gates.
_VARIANTS: dict[str, dict[str, float]] = {
    _ALL_GATES: {},
    "forget gate open: never forgets": {"f": _SATURATING_BIAS},
    _FORGET_SHUT: {"f": -_SATURATING_BIAS},
    "input gate open: writes all": {"i": _SATURATING_BIAS},
    "output gate open: shows all": {"o": _SATURATING_BIAS},
}
_LENGTH = 30


def measure(fixed: dict[str, float], steps: int, seed: int) -> float:
    """The squared error on the adding problem with some gates' biases set to ``fixed``."""
    keras.utils.set_random_seed(seed)
    layer = LSTM(32)
    layer.build((None, _LENGTH, 2))
    initialize_long_memory(layer, _LENGTH, seed=seed)
    bias = ops.convert_to_numpy(layer.cell.bias).copy()
    for gate, value in fixed.items():
        start = layer.cell.gate_order.index(gate) * layer.units
        bias[start : start + layer.units] = value
    layer.cell.bias.assign(bias)
    return train(
        layer, problems.adding, steps=steps, length=_LENGTH, outputs=1, seed=seed,
        learning_rate=1e-2,
    )  # fmt: skip


def run(settings: Settings) -> Section:
    """Train the LSTM with each gate fixed in turn."""
    steps = settings.choose(1200, 300)
    error = {name: measure(fixed, steps, settings.seed) for name, fixed in _VARIANTS.items()}
    worse = [name for name, e in error.items() if e > 2 * error[_ALL_GATES]]
    return Section(
        title="Each gate switched off in turn",
        claim="Selective write, selective forget and selective read each have their part.",
        equation="c_t = f_t ∘ c_{t-1} + i_t ∘ g_t        h_t = o_t ∘ tanh(c_t)",
        method=f"The adding problem over {_LENGTH} steps (two of the numbers are marked; always "
        f"answering the mean of their sum has an error of {1 / 6:.3f}), 32 units, {steps} training "
        "steps. A bias fixes one gate at 1 or 0; the others start with time constants up to the "
        "length.",
        holds=set(_VARIANTS) - {_ALL_GATES} <= set(worse),
        verdict=f"The squared error is {error[_ALL_GATES]:.4f} with all gates, and "
        f"{error[_FORGET_SHUT]:.4f} with the forget gate shut, when only h_{{t-1}} carries the "
        f"past. More than twice as bad: {', '.join(worse) or 'none'}. This problem does not need "
        "the gates missing from that list.",
        numbers={f"error/{name}": e for name, e in error.items()},
        table=Table(["LSTM", "squared error"], [[n, f"{e:.4f}"] for n, e in error.items()]),
    )
