"""Streams: one sequence that a model reads part by part."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import tensorflow as tf

from pipelines.engine.core.errors import UserError
from pipelines.engine.export.stateful import STATE


class Stream:
    """One sequence that is read part by part; the answers are those of a server's stream.

    A stream belongs to one thread at a time. Several streams of one model are independent.

    Args:
        served: A loaded SavedModel.
        name: The name of the model, for messages.
    """

    def __init__(self, served: Any, name: str) -> None:
        if not {"start", "step"} <= set(served.signatures):
            raise UserError(
                f"the model {name} cannot stream: it needs the whole input before it answers "
                "(e.g. it reads in both directions)"
            )
        self._step = served.signatures["step"]
        specs = self._step.structured_input_signature[1]
        self._inputs = {n: spec for n, spec in specs.items() if not n.startswith(STATE)}
        self._state: dict[str, Any] | None = dict(served.signatures["start"]())

    def send(self, text: str | None = None, /, **inputs: Any) -> dict[str, Any]:
        """Read the next part of the sequence.

        Args:
            text: The input ``text`` of the signature ``step``, if it has one.
            inputs: Its other inputs by name, without the batch axis.

        Returns:
            The outputs by name, without the batch axis, as plain data.

        Raises:
            UserError: An input is missing, unknown or of another type; the state stays as it was.
        """
        if self._state is None:
            raise UserError("the stream is closed")
        given = inputs if text is None else {"text": text, **inputs}
        if given.keys() != self._inputs.keys():
            raise UserError(
                f"send: give {', '.join(self._inputs)}, not {', '.join(given) or 'nothing'}"
            )
        tensors = {name: _tensor(name, value, self._inputs[name]) for name, value in given.items()}
        outputs = self._step(**tensors, **self._state)
        self._state = {name: t for name, t in outputs.items() if name.startswith(STATE)}
        return {name: _plain(t) for name, t in outputs.items() if name not in self._state}

    def close(self) -> None:
        """Forget the state."""
        self._state = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _tensor(name: str, value: Any, spec: Any) -> Any:
    """Return an input as a tensor of one row."""
    kind = "text" if spec.dtype == tf.string else f"numbers ({spec.dtype.name})"
    shape = "" if spec.shape.rank == 1 else f" with the shape {list(spec.shape[1:])}"
    try:
        if (spec.dtype == tf.string) != isinstance(value, str):
            raise TypeError
        tensor = tf.constant([value], spec.dtype)
    except (TypeError, ValueError, UnicodeError):
        shown = repr(value)
        raise UserError(
            f"send: {name}: must be {kind}{shape}, not {shown[:60]}{'…' * (len(shown) > 60)}"
        ) from None
    if not spec.shape.is_compatible_with(tensor.shape):
        raise UserError(
            f"send: {name}: must be {kind}{shape}, not of the shape {list(tensor.shape[1:])}"
        )
    return tensor


def _plain(tensor: Any) -> Any:
    """Return the only row of an output as plain data."""
    row = tensor.numpy()[0]
    if isinstance(row, bytes):
        return row.decode(errors="replace")
    if isinstance(row, np.ndarray) and row.dtype == object:
        return np.vectorize(lambda raw: raw.decode(errors="replace"), otypes=[object])(row).tolist()
    return row.tolist()
