"""A sequence read in pieces: what layers remember of one is where they go on with the next."""

import contextlib
from contextvars import ContextVar

_CARRY = ContextVar("carry", default=None)


class StreamingState:
    """Takes a whole model from one piece of its sequences to the next.

    While it is `carrying`, each layer that remembers anything (a recurrent layer its states, a
    pool its sums) begins with what it remembered before and hands out what it remembers after::

        first = Carry()
        with first.carrying():
            model(ids[:, :7])
        second = Carry(first.after)
        with second.carrying():
            model(ids[:, 7:])  # as model(ids), to rounding

    Args:
        before: by the name of a layer, its list of tensors; None where the sequences begin.

    Attributes:
        after: likewise, once the model was called.
    """

    def __init__(self, before=None):
        self.before = {} if before is None else before
        self.after = {}

    @contextlib.contextmanager
    def carrying(self):
        token = _CARRY.set(self)
        try:
            yield self
        finally:
            _CARRY.reset(token)


def current_state():
    """The `Carry` that is carrying, or None."""
    return _CARRY.get()
