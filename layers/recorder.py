"""Record what recurrent layers compute while a model is called, and perturb their states."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from layers.backends import Tensor

#: ``(layer, inputs, initial_states) -> <float>[batch, time, units of all states]``
Perturbation = Callable[[Any, Tensor, list[Tensor]], Tensor]


class CallRecord(NamedTuple):
    """One call of a recurrent layer.

    Time is in the layer's order of processing: a backward layer reads the last step first.

    Attributes:
        layer: the layer, a `layers.base.RecurrentLayer`.
        inputs: <float>[batch, time, inputs].
        initial_states: the states before the first step, each <float>[batch, units].
        mask: bool [batch, time], True where a step is real; None if all are.
        states: the states after every step, each <float>[batch, time, units]. A padded step
            repeats the states before it.
    """

    layer: Any
    inputs: Tensor
    initial_states: list[Tensor]
    mask: Tensor | None
    states: list[Tensor]

    def trace(self) -> dict[str, Tensor]:
        """Return every gate, candidate and state of the call by name, see `RecurrentLayer.trace`.

        Unlike there, the hidden state of a padded step repeats the one before it.
        """
        values: dict[str, Tensor] = self.layer.evaluate_steps(
            self.inputs, self.initial_states, self.mask, self.states
        )
        return values


class Recorder:
    """Records the calls of recurrent layers, and perturbs their states.

    ::

        with Recorder().recording() as recorder:
            model(x)
        recorder.calls["recurrent_1"].trace()["forget_gate"]

    Args:
        perturbation: ``(layer, inputs, initial_states)`` → what is added to the layer's states,
            concatenated, after each step: <float>[batch, time, units of all states]. None adds
            nothing.

    Attributes:
        calls: the last `CallRecord` of each layer by its name, in the order of the first calls.
    """

    def __init__(self, perturbation: Perturbation | None = None) -> None:
        self.perturbation = perturbation
        self.calls: dict[str, CallRecord] = {}

    def record(self, call: CallRecord) -> None:
        """Keep ``call`` as the last one of its layer."""
        self.calls[call.layer.name] = call

    @contextlib.contextmanager
    def recording(self) -> Iterator["Recorder"]:
        """Record every recurrent layer that is called inside the ``with`` block.

        Recorded calls take the portable route, which keeps the states of all steps.
        """
        token = _RECORDER.set(self)
        try:
            yield self
        finally:
            _RECORDER.reset(token)


_RECORDER: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def current_recorder() -> Recorder | None:
    """Return the recorder whose `Recorder.recording` block is active, or None."""
    return _RECORDER.get()


def zero_perturbations(layer: Any, inputs: Tensor, initial_states: Sequence[Tensor]) -> Tensor:
    """Return perturbations δ_t = 0 of a call, <float>[batch, time, units of all states]."""
    width = sum(state.shape[-1] for state in initial_states)
    return ops.zeros((*ops.shape(inputs)[:2], width), dtype=layer.compute_dtype)


def perturbed(
    step: Callable[[Tensor, list[Tensor]], list[Tensor]], sizes: Sequence[int]
) -> Callable[[Tensor, list[Tensor]], list[Tensor]]:
    """Return ``step`` followed by h_t ← h_t + δ_t, for every state.

    Args:
        step: ``(x_t, states) -> next states``, as `layers.unfold.unfold` takes it.
        sizes: the width of each state.

    Returns:
        The same for ``[x_t ; δ_t]``: inputs with the perturbations of all states behind them.
    """
    ends = np.cumsum([0, *sizes]).tolist()

    def perturbed_step(x_t: Tensor, states: list[Tensor]) -> list[Tensor]:
        x_t, delta = x_t[..., : -ends[-1]], x_t[..., -ends[-1] :]
        return [
            state + delta[..., start:end]
            for state, start, end in zip(step(x_t, states), ends, ends[1:], strict=False)
        ]

    return perturbed_step
