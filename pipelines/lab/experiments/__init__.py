"""The experiments, in the order of the chapter: each module measures one claim."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.lab.experiments import (
    architectures,
    backpropagation,
    both_directions,
    by_hand,
    exploding,
    gates,
    long_range,
    lstm_and_gru,
    memory,
    relu,
    truncation,
    unfolding,
    vanishing,
)
from pipelines.lab.section import Section, Settings

#: The experiments by the name that ``unfold lab --only`` takes.
EXPERIMENTS: dict[str, Callable[[Settings], Section]] = {
    "memory": memory.run,
    "by_hand": by_hand.run,
    "unfolding": unfolding.run,
    "backpropagation": backpropagation.run,
    "vanishing": vanishing.run,
    "relu": relu.run,
    "exploding": exploding.run,
    "long_range": long_range.run,
    "gates": gates.run,
    "lstm_and_gru": lstm_and_gru.run,
    "both_directions": both_directions.run,
    "truncation": truncation.run,
    "architectures": architectures.run,
}
