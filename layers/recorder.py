"""Looking on while recurrent layers are called: what they read, and a nudge to their states."""

import contextlib
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
from keras import ops

_WATCH = ContextVar("watch", default=None)


class CallRecord(NamedTuple):
    """One call of a layer, time in its order of processing (a backward layer's is reversed).

    Attributes:
        layer: the layer.
        inputs: <float>[batch, time, inputs].
        states: the state before the first step, <float>[batch, units] each.
        mask: bool [batch, time], or None where all steps are real.
        after: the states after each step, <float>[batch, time, units] each; those of a step that
            is padding are carried over.
    """

    layer: Any
    inputs: Any
    states: list
    mask: Any
    after: list


class Recorder:
    """Sees the calls of recurrent layers, and nudges their states.

    Args:
        nudge: ``(layer, inputs, states)`` → what is added to the layer's states, side by side,
            after each step: <float>[batch, time, units × states]. None adds nothing.
    """

    def __init__(self, nudge=None):
        self.nudge = nudge
        self.seen = {}

    def see(self, seen):
        self.seen[seen.layer.name] = seen

    @contextlib.contextmanager
    def looking(self):
        """While it lasts, every recurrent layer is watched, and takes its portable route."""
        token = _WATCH.set(self)
        try:
            yield self
        finally:
            _WATCH.reset(token)


def current_recorder():
    """The `Watch` that is looking, or None."""
    return _WATCH.get()


def zero_perturbations(layer, inputs, states):
    """Zeros <float>[batch, time, units × states]."""
    width = sum(state.shape[-1] for state in states)
    return ops.zeros((*ops.shape(inputs)[:2], width), dtype=layer.compute_dtype)


def perturbed(step, sizes):
    """``step`` of `layers.unfold.unfold` for inputs that carry the nudges of the states behind
    them: ``sizes`` are the widths of the states."""
    ends = np.cumsum([0, *sizes])

    def nudged_step(x_t, states):
        x_t, nudges = x_t[..., : -ends[-1]], x_t[..., -ends[-1] :]
        return [
            state + nudges[..., start:end]
            for state, start, end in zip(step(x_t, states), ends, ends[1:], strict=False)
        ]

    return nudged_step
