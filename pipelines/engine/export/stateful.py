"""Sequences that are read in pieces as they come: the signatures ``start`` and ``step``.

``start`` takes nothing and gives the state before anything was read, of one row: tensors whose
names begin with ``state_``. ``step`` takes the next inputs, one row a sequence, and the state; it
gives the outputs, and the state under the same names, to be handed in with the next inputs. So the
state is the client's to keep, and a server of the export has none. Whatever the pieces, the
outputs are those of one pass over all that was read, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from layers.streaming import StreamingState
from pipelines.engine.export.savedmodel import Endpoint

#: How the names of the tensors of a state begin.
STATE = "state_"

State = dict[str, tf.Tensor]
#: ``(the next inputs by name, state) → (outputs by name, state)``
Step = Callable[[dict[str, tf.Tensor], State], tuple[dict[str, tf.Tensor], State]]


def endpoints(
    start: Callable[[], State], step: Step, inputs: dict[str, tf.TensorSpec]
) -> dict[str, Endpoint]:
    """The signatures ``start`` and ``step``.

    Args:
        start: the state before anything was read, of one row.
        inputs: the specs of the next inputs.
    """
    names = {
        f"{STATE}{name}": tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, f"{STATE}{name}")
        for name, tensor in start().items()
    }

    def begin() -> dict[str, tf.Tensor]:
        return {f"{STATE}{name}": tensor for name, tensor in start().items()}

    # By position, as Keras calls it.
    def go_on(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        given = dict(zip([*inputs, *names], tensors, strict=True))
        before = {name.removeprefix(STATE): given.pop(name) for name in names}
        outputs, after = step(given, before)
        return outputs | {
            name: tf.ensure_shape(after[name.removeprefix(STATE)], spec.shape)
            for name, spec in names.items()
        }

    return {"start": Endpoint(begin, {}), "step": Endpoint(go_on, inputs | names)}


def read_on(model: keras.Model, given: Any, state: State | None) -> tuple[Any, State]:
    """What a model says of its sequences so far, and what its layers remember of them.

    Args:
        given: the next piece of its inputs.
        state: what `read_on` gave of the piece before; None where the sequences begin. Other names
            than its own are ignored.
    """
    before: dict[str, list[tf.Tensor]] | None = None
    if state is not None:
        before = {}
        for name, tensor in state.items():
            before.setdefault(name.rpartition("_")[0], []).append(tensor)
    streaming = StreamingState(before)
    with streaming.active():
        outputs = model(given, training=False)
    return outputs, {
        f"{layer}_{i}": tensor
        for layer, tensors in streaming.after.items()
        for i, tensor in enumerate(tensors)
    }
