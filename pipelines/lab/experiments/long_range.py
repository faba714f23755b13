"""Long-range memory: the longest time over which each cell learns to remember a symbol."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
from matplotlib.figure import Figure

from layers import GRU, LSTM, SimpleRNN
from pipelines.engine.core import plotting
from pipelines.engine.core.tables import Table
from pipelines.lab import problems
from pipelines.lab.networks import COLOURS, initialize_long_memory, train
from pipelines.lab.section import Section, Settings

#: The networks: how to make a layer, and whether its gates are initialized for long memory.
_NETWORKS: dict[str, tuple[Callable[[int], Any], bool]] = {
    "rnn": (lambda units: SimpleRNN(units), False),
    "relu": (
        lambda units: SimpleRNN(
            units, activation="relu", recurrent_initializer=keras.initializers.Identity()
        ),
        False,
    ),
    "gru": (lambda units: GRU(units), False),
    "lstm": (lambda units: LSTM(units), False),
    "gru, long memory": (lambda units: GRU(units), True),
    "lstm, long memory": (lambda units: LSTM(units), True),
}


@dataclass
class Result:
    """Results of one network.

    Attributes:
        accuracy: by length.
        parameters: number of weights.
        seconds: training time at the last length.
    """

    accuracy: dict[int, float] = field(default_factory=dict)
    parameters: int = 0
    seconds: float = 0.0

    @property
    def reach(self) -> int:
        """The greatest length with an accuracy above 90 %; 0 if there is none."""
        return max((length for length, share in self.accuracy.items() if share > 0.9), default=0)


def measure(name: str, lengths: list[int], steps: int, seed: int) -> Result:
    """Train one network at increasing lengths, until it fails at one."""
    make_layer, long_memory = _NETWORKS[name]
    result = Result()
    for length in lengths:
        keras.utils.set_random_seed(seed)
        layer = make_layer(32)
        layer.build((None, length, problems.SYMBOLS))
        if long_memory:
            initialize_long_memory(layer, length, seed=seed)
        started = time.perf_counter()
        result.accuracy[length] = train(
            layer, problems.recall, steps=steps, length=length, outputs=2, seed=seed
        )
        result.seconds = time.perf_counter() - started
        result.parameters = layer.count_params()
        if result.accuracy[length] < 0.6:
            break  # a network that fails at a length also fails at greater ones
    return result


def draw(results: dict[str, Result], lengths: list[int]) -> Figure:
    """Draw the accuracy by length."""
    figure, ax = plotting.new_figure()
    for name, result in results.items():
        x, y = list(result.accuracy), list(result.accuracy.values())
        ax.semilogx(x, y, "o-", color=COLOURS[name], label=name)
    ax.axhline(0.5, color=plotting.GREY, lw=1, ls="--")
    ax.set(xlabel="steps between the symbol and the question", ylabel="accuracy")
    ax.set_xticks(lengths, [str(n) for n in lengths])
    ax.minorticks_off()
    ax.legend(frameon=False)
    return figure


def tabulate(results: dict[str, Result], lengths: list[int]) -> Table:
    """One row per network, one column per length."""
    rows = []
    for name, result in results.items():
        shares = [f"{result.accuracy[n]:.0%}" if n in result.accuracy else "" for n in lengths]
        rows.append([name, f"{result.parameters:,}", *shares, f"{result.seconds:.1f}"])
    columns = ["network", "parameters", *(f"T = {n}" for n in lengths), "seconds, last length"]
    return Table(columns, rows)


def run(settings: Settings) -> Section:
    """Measure how far each network remembers."""
    lengths = [50] if settings.fast else [50, 100, 200, 500, 1000]
    steps = settings.choose(600, 150)
    results = {name: measure(name, lengths, steps, settings.seed) for name in _NETWORKS}
    reach = {name: result.reach for name, result in results.items()}
    best = max(reach[name] for name in reach if name not in ("rnn", "relu"))
    accuracies = {
        f"accuracy/{name}/{length}": share
        for name, result in results.items()
        for length, share in result.accuracy.items()
    }
    return Section(
        title="Memory over a long time",
        claim="Gated cells carry information over hundreds of steps where a vanilla network "
        "cannot.",
        equation="c_t = f_t ∘ c_{t-1} + i_t ∘ g_t        ∂c_t/∂c_{t-1} = diag(f_t) + …",
        method="Which of two symbols came first? The question is asked after T other symbols. "
        f"32 units, {steps} training steps with Adam at one learning rate, one seed. A length "
        "that a network fails to learn ends its row. “Long memory” are cells whose biases start "
        "with time constants up to T; “relu” is the vanilla network with ReLU and W = I at the "
        "start (Le et al. 2015).",
        holds=best > reach["rnn"] and best > 0,
        verdict="Learned with an accuracy above 90 % up to T = "
        + ", ".join(f"{length or 'none'} ({name})" for name, length in reach.items())
        + ". The initial gates decide: with the usual biases an LSTM forgets a quarter of its "
        "state at each step, and a GRU half.",
        numbers={**accuracies, **{f"reach/{name}": float(n) for name, n in reach.items()}},
        figures=[draw(results, lengths)],
        table=tabulate(results, lengths),
    )
