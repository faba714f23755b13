"""One direction against two, where the answer depends on the next input."""

from __future__ import annotations

from typing import Any

import keras

from layers import LSTM, Bidirectional
from pipelines.engine.core.tables import Table
from pipelines.lab import problems
from pipelines.lab.networks import train
from pipelines.lab.section import Section, Settings

_LENGTH = 12
#: The best possible accuracy in one direction: 11 guesses, and at the last step the first symbol.
_BEST_ONE_WAY = ((_LENGTH - 1) / problems.SYMBOLS + 1) / _LENGTH


def _one_direction(x: Any) -> Any:
    return LSTM(16, return_sequences=True)(x)


def _bidirectional(x: Any) -> Any:
    return Bidirectional(LSTM(16, return_sequences=True))(x)


def measure(settings: Settings, steps: int) -> dict[str, float]:
    """Accuracy of each network on the next-symbol problem."""
    accuracy = {}
    for name, hidden in {"one direction": _one_direction, "bidirectional": _bidirectional}.items():
        keras.utils.set_random_seed(settings.seed)
        accuracy[name] = train(
            hidden, problems.next_symbol, steps=steps, length=_LENGTH, outputs=problems.SYMBOLS,
            seed=settings.seed, learning_rate=1e-2,
        )  # fmt: skip
    return accuracy


def run(settings: Settings) -> Section:
    """Compare one direction with two."""
    steps = settings.choose(300, 100)
    accuracy = measure(settings, steps)
    one_way, both = accuracy["one direction"], accuracy["bidirectional"]
    return Section(
        title="Both directions",
        claim="Where the answer at a step depends on what comes later, one direction cannot know.",
        equation="→h_t = f(x_t, →h_{t-1})    ←h_t = f'(x_t, ←h_{t+1})    y_t = V [→h_t ; ←h_t]",
        method="Predict the next symbol at every step (the symbols are independent; at the last of "
        f"{_LENGTH} steps, predict the first symbol); 16 units, {steps} training steps.",
        holds=one_way < _BEST_ONE_WAY + 0.02 and both > 0.9,
        verdict=f"One direction reaches {one_way:.1%}, where {_BEST_ONE_WAY:.1%} is the most "
        f"possible without the future; both directions reach {both:.1%}.",
        numbers={f"accuracy/{name}": a for name, a in accuracy.items()},
        table=Table(["network", "accuracy"], [[n, f"{a:.1%}"] for n, a in accuracy.items()]),
    )
