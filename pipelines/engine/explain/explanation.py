"""The explanation of one input: its segments, and the gates and states of their layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from layers.recorder import CallRecord, Recorder

#: Units shown of each layer, and steps shown of each unit: those with the largest changes.
SHOWN_UNITS, SHOWN_CHANGES = 8, 3
#: Quantities of a cell, in the order in which they are shown, with their descriptions.
QUANTITIES = {
    "forget_gate": "how much of the cell state is kept (1) or forgotten (0)",
    "input_gate": "how much of the candidate is written",
    "output_gate": "how much of the cell state is read",
    "update_gate": "how much of the state is kept (1) or replaced by the candidate (0)",
    "reset_gate": "how much of the state enters the candidate",
    "candidate": "what would be written",
    "cell_state": "the cell's memory",
    "hidden_state": "what the rest of the network reads",
}
#: The longest segment that can be explained, in steps.
MAX_STEPS = 2_000

#: Converts an array for JSON.
Encoder = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Attention:
    """Attention weights of a segment.

    Attributes:
        weights: ``<float>[steps, positions]``; each row sums to 1.
        positions: tokens of the input; empty if the input is an image.
        grid: rows and columns of an image's positions.
        image: the image as PNG.
    """

    weights: np.ndarray
    positions: Sequence[str] = ()
    grid: tuple[int, int] | None = None
    image: bytes = b""


@dataclass(frozen=True)
class Segment:
    """One sequence processed by recurrent layers, each called once.

    Attributes:
        name: what the model does with the sequence: "reads" or "writes".
        description: a sentence saying what a step is.
        tokens: one label per step: a word, a character, a date.
        recorder: recorded the calls, of one row whose unpadded steps are ``tokens``.
        curves: the answer as known after each step, ``<float>[steps]`` by name; NaN where there
            is none.
        scale: unit of the curves.
        details: a note on each step; empty if there are none.
        top_tokens: the likeliest tokens of each step with their probabilities; empty if there
            are none.
        attention: None for a model without attention.
    """

    name: str
    description: str
    tokens: Sequence[str]
    recorder: Recorder
    curves: dict[str, np.ndarray]
    scale: str = "probability"
    details: Sequence[str] = ()
    top_tokens: Sequence[Sequence[tuple[str, float]]] = ()
    attention: Attention | None = None

    @cached_property
    def layers(self) -> list[LayerTrace]:
        """The layers, in the order of their calls.

        Raises:
            ValueError: the number of unpadded steps differs from the number of tokens.
        """
        calls = self.recorder.calls.values()
        return [LayerTrace.from_call(call, len(self.tokens)) for call in calls]


@dataclass(frozen=True)
class Explanation:
    """What a model did with one input.

    Attributes:
        input: the input, on one line.
        answer: the model's answer.
        segments: in the order in which the model processes them.
    """

    input: str
    answer: str
    segments: list[Segment] = field(default_factory=list)


class StateChange(NamedTuple):
    """A change of one unit: at step ``place``, h_{t−1} = ``before`` becomes h_t = ``after``."""

    place: int
    before: float
    after: float


@dataclass(frozen=True)
class LayerTrace:
    """Gates and states of one layer in one direction, with steps in the order of the input.

    Attributes:
        name: name of the layer.
        cell: name of the layer's class.
        backward: whether the layer reads from the end.
        values: gates, candidate and states, ``<float32>[steps, units]``, under the names of
            `layers.base.RecurrentLayer.trace`.
        before: the hidden state that each step starts from, ``<float32>[steps, units]``.
    """

    name: str
    cell: str
    backward: bool
    values: dict[str, np.ndarray]
    before: np.ndarray

    @classmethod
    def from_call(cls, call: CallRecord, steps: int) -> LayerTrace:
        """Compute gates and states from a recorded call.

        Args:
            call: of one row.
            steps: expected number of unpadded steps.

        Raises:
            ValueError: the number of unpadded steps is another.
        """
        trace = call.trace()
        arrays = {
            name: ops.convert_to_numpy(ops.cast(trace[name], "float32"))[0]
            for name in QUANTITIES
            if name in trace
        }
        initial = ops.convert_to_numpy(ops.cast(call.initial_states[0], "float32"))[:1]
        real = np.ones(len(arrays["hidden_state"]), bool)
        if call.mask is not None:
            real = ops.convert_to_numpy(call.mask)[0]
        if real.sum() != steps:
            raise ValueError(f"{call.layer.name}: {real.sum()} real steps, but {steps} tokens")
        arrays = {name: array[real] for name, array in arrays.items()}
        before = np.concatenate([initial, arrays["hidden_state"]])[:-1]
        backward = bool(call.layer.go_backwards)
        if backward:
            arrays = {name: array[::-1] for name, array in arrays.items()}
            before = before[::-1]
        return cls(call.layer.name, type(call.layer).__name__, backward, arrays, before)

    @property
    def title(self) -> str:
        direction = ", from the end" if self.backward else ""
        return f"{self.name} ({self.cell}{direction})"

    def state_changes(self) -> np.ndarray:
        """The change of each unit at each step, h_t − h_{t−1}, ``<float32>[steps, units]``."""
        change: np.ndarray = self.values["hidden_state"] - self.before
        return change

    def units_by_change(self) -> np.ndarray:
        """The units by mean |h_t − h_{t−1}|, largest first, ``<int>[units]``."""
        return np.argsort(-np.abs(self.state_changes()).mean(axis=0), kind="stable")

    def largest_changes(self) -> list[tuple[int, list[StateChange]]]:
        """The units that change most, each with its largest changes, largest first."""
        sizes, after = np.abs(self.state_changes()), self.values["hidden_state"]
        largest = []
        for unit in self.units_by_change()[:SHOWN_UNITS].tolist():
            steps = np.argsort(-sizes[:, unit], kind="stable")[:SHOWN_CHANGES].tolist()
            changes = [
                StateChange(t, float(self.before[t, unit]), float(after[t, unit])) for t in steps
            ]
            largest.append((unit, changes))
        return largest

    def means(self) -> dict[str, np.ndarray]:
        """Means over units, ``<float32>[steps]``: of gates, and of signed values' magnitudes."""
        return {
            name: value.mean(axis=1) if name.endswith("_gate") else np.abs(value).mean(axis=1)
            for name, value in self.values.items()
        }


def to_dict(explanation: Explanation, encode: Encoder | None = None) -> dict[str, Any]:
    """The explanation as JSON data.

    Args:
        explanation: the explanation.
        encode: converts the arrays of layers and attention; by default to rounded lists.
    """
    encode = encode or _rounded_list
    return {
        "input": explanation.input,
        "answer": explanation.answer,
        "parts": [_segment_dict(segment, encode) for segment in explanation.segments],
    }


def _rounded_list(array: np.ndarray) -> Any:
    return array.astype(float).round(4).tolist()


def _segment_dict(segment: Segment, encode: Encoder) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": segment.name,
        "about": segment.description,
        "tokens": list(segment.tokens),
        "details": list(segment.details),
        "scale": segment.scale,
        "curves": {name: _nan_to_none(values) for name, values in segment.curves.items()},
        "guesses": [
            [[token, round(float(p), 4)] for token, p in tokens] for tokens in segment.top_tokens
        ],
        "layers": [_layer_dict(layer, encode) for layer in segment.layers],
    }
    if segment.attention is not None:
        result["attention"] = {
            "weights": encode(segment.attention.weights),
            "places": list(segment.attention.positions),
            "grid": segment.attention.grid,
        }
    return result


def _nan_to_none(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(f"{v:.6g}") for v in values]


def _layer_dict(layer: LayerTrace, encode: Encoder) -> dict[str, Any]:
    return {
        "name": layer.name,
        "title": layer.title,
        "cell": layer.cell,
        "backward": layer.backward,
        "order": layer.units_by_change().tolist(),
        "values": {name: encode(value) for name, value in layer.values.items()},
        "switches": [
            {
                "unit": unit,
                "inputs": [{k: round(v, 4) for k, v in c._asdict().items()} for c in changes],
            }
            for unit, changes in layer.largest_changes()
        ],
    }
