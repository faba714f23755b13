"""Feed-forward against recurrent: only a network with a state sees the order of its inputs."""

from __future__ import annotations

from typing import Any

import keras

from layers import SimpleRNN
from pipelines.engine.core.tables import Table
from pipelines.lab import problems
from pipelines.lab.networks import train
from pipelines.lab.section import Section, Settings


def _feed_forward(x: Any) -> Any:
    return keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(16, activation="tanh")(x))


def _recurrent(x: Any) -> Any:
    return SimpleRNN(16)(x)


def measure(settings: Settings, steps: int) -> dict[str, float]:
    """Accuracy of each network on the order problem."""
    accuracy = {}
    for name, hidden in {"feed-forward": _feed_forward, "recurrent": _recurrent}.items():
        keras.utils.set_random_seed(settings.seed)
        accuracy[name] = train(
            hidden, problems.order, steps=steps, length=10, outputs=2, seed=settings.seed
        )
    return accuracy


def run(settings: Settings) -> Section:
    """Compare a feed-forward and a recurrent network."""
    steps = settings.choose(400, 150)
    accuracy = measure(settings, steps)
    return Section(
        title="A network without memory does not see the order",
        claim="A feed-forward network treats every input alone; a recurrent one keeps a state.",
        equation="h_t = tanh(U x_t + b)    against    h_t = tanh(U x_t + W h_{t-1} + b)",
        method="Did symbol A come before symbol B? Rows of 10 symbols, 16 units, "
        f"{steps} training steps. The feed-forward network reads every symbol and averages over "
        "them.",
        holds=accuracy["feed-forward"] < 0.6 and accuracy["recurrent"] > 0.9,
        verdict=f"The accuracy on new rows is {accuracy['feed-forward']:.1%} without memory "
        f"(chance: 50 %), and {accuracy['recurrent']:.1%} with it.",
        numbers={f"accuracy/{name}": value for name, value in accuracy.items()},
        table=Table(["network", "accuracy"], [[n, f"{a:.1%}"] for n, a in accuracy.items()]),
    )
