"""Read a long sequence in parts: layers continue from the state in which they ended the last."""

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

from layers.backends import Tensor


class StreamingState:
    """The states of all layers of a model, from one part of its sequences to the next.

    While it is active, every layer with a memory (a recurrent layer its states, a pooling layer
    its sums) starts from its entry in ``before`` and stores its new state in ``after``::

        first = StreamingState()
        with first.active():
            model(ids[:, :7])
        second = StreamingState(first.after)
        with second.active():
            model(ids[:, 7:])  # equals model(ids) up to rounding

    Args:
        before: the tensors of each layer by its name; None at the start of the sequences.

    Attributes:
        before: as given; empty at the start.
        after: likewise, filled by the call of the model.
    """

    def __init__(self, before: Mapping[str, list[Tensor]] | None = None) -> None:
        self.before = {} if before is None else dict(before)
        self.after: dict[str, list[Tensor]] = {}

    @contextlib.contextmanager
    def active(self) -> Iterator["StreamingState"]:
        """Let the layers called inside the ``with`` block use this state."""
        token = _STATE.set(self)
        try:
            yield self
        finally:
            _STATE.reset(token)


_STATE: ContextVar[StreamingState | None] = ContextVar("streaming_state", default=None)


def current_state() -> StreamingState | None:
    """Return the streaming state whose `StreamingState.active` block is running, or None."""
    return _STATE.get()
