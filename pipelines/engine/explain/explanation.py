"""What a task tells of one input, and what the cells that it went through say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from layers.recorder import CallRecord, Recorder

#: The units of a layer that are told of, and the inputs of each that switch it.
UNITS, INPUTS = 8, 3
#: What is shown of a cell, in this order, and what it is.
MEANINGS = {
    "forget_gate": "how much of the cell state is kept (1) or forgotten (0)",
    "input_gate": "how much of the candidate is written",
    "output_gate": "how much of the cell state is read",
    "update_gate": "how much of the state is kept (1) or replaced by the candidate (0)",
    "reset_gate": "how much of the state the candidate looks back at",
    "candidate": "what is to be written",
    "cell_state": "what is remembered",
    "hidden_state": "what the rest of the network reads",
}


#: Steps of a part that are shown, at most.
LONGEST = 2_000


@dataclass(frozen=True)
class Attention:
    """How much each step looked at each place.

    Attributes:
        weights: ``<float>[steps, places]``.
        places: their names; none where they are a picture's.
        grid: rows and columns of a picture's places.
        picture: PNG.
    """

    weights: np.ndarray
    places: Sequence[str] = ()
    grid: tuple[int, int] | None = None
    picture: bytes = b""


@dataclass(frozen=True)
class Segment:
    """One sequence that went through recurrent layers, in one call of them.

    Attributes:
        name: what the model does in it: reads, or writes.
        about: what a step is, in a sentence.
        tokens: what is at each step: words, characters, dates.
        recorder: has recorded the call, of one row, whose real steps are ``tokens``.
        curves: by name the answer as far as it is known after each step, ``<float>[steps]``; NaN
            where there is none.
        scale: what the curves are measured in.
        details: of each step, what else there is to say; empty: nothing.
        guesses: of each step, what is likeliest, with its probability; empty: none.
        attention: None where the model has none.
    """

    name: str
    about: str
    tokens: Sequence[str]
    recorder: Recorder
    curves: dict[str, np.ndarray]
    scale: str = "probability"
    details: Sequence[str] = ()
    guesses: Sequence[Sequence[tuple[str, float]]] = ()
    attention: Attention | None = None

    @cached_property
    def layers(self) -> list[LayerTrace]:
        """The cells of the call, in the order in which they were called.

        Raises:
            ValueError: the call has not as many real steps as there are tokens.
        """
        return [LayerTrace.of(call, len(self.tokens)) for call in self.recorder.calls.values()]


@dataclass(frozen=True)
class Explanation:
    """
    Attributes:
        given: the input, in a line.
        answer: in a line.
        parts: in their order.
    """

    given: str
    answer: str
    parts: list[Segment] = field(default_factory=list)


class Switch(NamedTuple):
    """A unit that an input turned: at step ``place`` its hidden state went ``before → after``."""

    place: int
    before: float
    after: float


@dataclass(frozen=True)
class LayerTrace:
    """One direction of a layer, its steps in the order of the input.

    Attributes:
        cell: the name of its class.
        backward: whether it was read from the end.
        values: gates, candidate and states, ``<float32>[steps, units]`` by the names that
            `layers.unfold.Unfolded.trace` gives them.
        before: the hidden state before each step, in the layer's own order, as ``values``.
    """

    name: str
    cell: str
    backward: bool
    values: dict[str, np.ndarray]
    before: np.ndarray

    @classmethod
    def of(cls, call: CallRecord, steps: int) -> LayerTrace:
        """
        Raises:
            ValueError: the call has not so many real steps.
        """
        taken = call.trace()
        arrays = {
            name: ops.convert_to_numpy(ops.cast(taken[name], "float32"))[0]
            for name in MEANINGS
            if name in taken
        }
        first = ops.convert_to_numpy(ops.cast(call.initial_states[0], "float32"))[:1]
        real = np.ones(len(arrays["hidden_state"]), bool)
        if call.mask is not None:
            real = ops.convert_to_numpy(call.mask)[0]
        if real.sum() != steps:
            raise ValueError(f"{call.layer.name}: {real.sum()} real steps, but {steps} tokens")
        arrays = {name: value[real] for name, value in arrays.items()}
        arrays["before"] = np.concatenate([first, arrays["hidden_state"]])[:-1]
        backward = bool(call.layer.go_backwards)
        if backward:
            arrays = {name: value[::-1] for name, value in arrays.items()}
        before = arrays.pop("before")
        return cls(call.layer.name, type(call.layer).__name__, backward, arrays, before)

    @property
    def title(self) -> str:
        way = ", from the end" if self.backward else ""
        return f"{self.name} ({self.cell}{way})"

    def turns(self) -> np.ndarray:
        """How far each step moved each unit, ``<float32>[steps, units]``: h_t − h_{t−1}."""
        return self.values["hidden_state"] - self.before

    def order(self) -> np.ndarray:
        """The units, those first that are moved most on average."""
        return np.argsort(-np.abs(self.turns()).mean(axis=0), kind="stable")

    def switches(self) -> list[tuple[int, list[Switch]]]:
        """The units that switch most, each with the steps that switch it, the farthest first."""
        turns, after = np.abs(self.turns()), self.values["hidden_state"]
        found = []
        for unit in self.order()[:UNITS].tolist():
            places = np.argsort(-turns[:, unit], kind="stable")[:INPUTS].tolist()
            moved = [Switch(t, float(self.before[t, unit]), float(after[t, unit])) for t in places]
            found.append((unit, moved))
        return found

    def means(self) -> dict[str, np.ndarray]:
        """Of each step the mean over units, of what has a sign that of its size."""
        return {
            name: value.mean(axis=1) if name.endswith("_gate") else np.abs(value).mean(axis=1)
            for name, value in self.values.items()
        }


def data(account: Explanation, number: Any = None) -> dict[str, Any]:
    """All of it as JSON has it.

    Args:
        number: how arrays of layers and attention are written; as lists of numbers, if not given.
    """
    write = number or (lambda array: array.astype(float).round(4).tolist())
    return {
        "input": account.given,
        "answer": account.answer,
        "parts": [_part(part, write) for part in account.parts],
    }


def _part(part: Segment, write: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": part.name,
        "about": part.about,
        "tokens": list(part.tokens),
        "details": list(part.details),
        "scale": part.scale,
        "curves": {name: _numbers(values) for name, values in part.curves.items()},
        "guesses": [[[token, round(float(p), 4)] for token, p in some] for some in part.guesses],
        "layers": [_layer(layer, write) for layer in part.layers],
    }
    if part.attention is not None:
        found["attention"] = {
            "weights": write(part.attention.weights),
            "places": list(part.attention.places),
            "grid": part.attention.grid,
        }
    return found


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(f"{v:.6g}") for v in values]


def _layer(layer: LayerTrace, write: Any) -> dict[str, Any]:
    return {
        "name": layer.name,
        "title": layer.title,
        "cell": layer.cell,
        "backward": layer.backward,
        "order": layer.order().tolist(),
        "values": {name: write(value) for name, value in layer.values.items()},
        "switches": [
            {"unit": unit, "inputs": [{k: round(v, 4) for k, v in s._asdict().items()} for s in at]}
            for unit, at in layer.switches()
        ],
    }
