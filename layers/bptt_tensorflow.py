"""`layers.bptt` on TensorFlow, on CPU cores: compiled blocks of steps in an ordinary graph.

`layers.blocks_tensorflow` compiles the blocks, `layers.schedule_tensorflow` says which rows and
steps of a batch they take. The values are those of `layers.unfold`; the gradients are equal up
to rounding.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from layers.blocks_tensorflow import Tensors
from layers.derivatives import Equations
from layers.schedule_tensorflow import Recorded, Schedule


def is_compiled(tensor: Any) -> bool:
    """Return whether ``tensor`` is traced for a graph, and has no value."""
    return not tf.is_tensor(tensor) or bool(tf.is_symbolic_tensor(tensor))


def first_order(gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Return gradients that refuse to be differentiated, while a function is traced.

    A gradient of them would go through compiled blocks, which have none.
    """
    refusal = (
        "a compiled function has no gradient of this layer's gradient; "
        "call the layer eagerly, or build it with unroll=True"
    )
    return [tf.raw_ops.PreventGradient(input=d, message=refusal) for d in gradients]


def unfold(
    equations: type[Equations],
    x: tf.Tensor,
    states: Tensors,
    U: tf.Tensor,
    W: tf.Tensor,
    b: tf.Tensor,
    b_recurrent: tf.Tensor,
    mask: tf.Tensor | None = None,
    truncate: int | None = None,
    sequences: bool = True,
    concurrent_layers: int = 1,
) -> tuple[tf.Tensor | None, list[tf.Tensor]]:
    """Run all steps of a sequence, with the gradient derived by hand.

    Args:
        equations: a class of `layers.derivatives`.
        x: <float>[batch, time, inputs], in the order of processing.
        states: the states before the first step, each <float>[batch, units].
        U, W, b, b_recurrent: the weights, in the dtype of x.
        mask: bool [batch, time], True where a step is real; None if all are.
        truncate: k of truncated backpropagation through time, or None.
        sequences: whether to return the hidden states of all steps.
        concurrent_layers: how many layers run at once and share the cores.

    Returns:
        The hidden states [batch, time, units] (None without ``sequences``), and the last states,
        each [batch, units].

    Raises:
        LookupError: a gradient of the gradient is traced.
    """
    schedule = Schedule(x, mask, truncate, concurrent_layers)

    @tf.custom_gradient
    def through_time(x: tf.Tensor, *weights_and_states: tf.Tensor) -> Any:
        weights, states = weights_and_states[:4], weights_and_states[4:]
        hidden, last, saved = _forward(schedule, equations, x, states, weights, sequences)

        def gradient(*d_outputs: tf.Tensor) -> list[tf.Tensor]:
            d_hidden, d_last = (d_outputs[0], d_outputs[1:]) if sequences else (None, d_outputs)
            return first_order(_backward(schedule, equations, x, saved, weights, d_hidden, d_last))

        return (*([hidden] if sequences else []), *last), gradient

    outputs = through_time(x, U, W, b, b_recurrent, *states)
    return (outputs[0], list(outputs[1:])) if sequences else (None, list(outputs))


def _forward(
    schedule: Schedule,
    equations: type[Equations],
    x: tf.Tensor,
    states: Tensors,
    weights: Tensors,
    sequences: bool,
) -> tuple[tf.Tensor | None, list[tf.Tensor], list[Recorded]]:
    """Run all shards; return hidden and last states, and what each shard's way back needs."""
    x_shards = schedule.split(x)
    state_shards = [schedule.split(s, time=False) for s in states]
    hidden, last, saved = zip(
        *(
            shard.forward(equations, x, states, weights, sequences)
            for shard, x, *states in zip(schedule.shards, x_shards, *state_shards, strict=True)
        ),
        strict=True,
    )
    return (
        schedule.merge(hidden) if sequences else None,
        [schedule.merge(s, time=False) for s in zip(*last, strict=True)],
        list(saved),
    )


def _backward(
    schedule: Schedule,
    equations: type[Equations],
    x: tf.Tensor,
    saved: Sequence[Recorded],
    weights: Tensors,
    d_hidden: tf.Tensor | None,
    d_last: Tensors,
) -> list[tf.Tensor]:
    """Run all shards backwards; return ∂L/∂ x, U, W, b, b_recurrent and the first states."""
    shards = schedule.shards
    d_hidden_shards = [None] * len(shards) if d_hidden is None else schedule.split(d_hidden)
    d_last_shards = [schedule.split(d, time=False) for d in d_last]
    W_transposed = tf.transpose(weights[1])
    dx, d_states, d_weights = zip(
        *(
            shard.backward(equations, x, recorded, weights, W_transposed, d_hidden, d_last)
            for shard, x, recorded, d_hidden, *d_last in zip(
                shards, schedule.split(x), saved, d_hidden_shards, *d_last_shards, strict=True
            )
        ),
        strict=True,
    )
    return [
        schedule.merge(dx),
        *(
            tf.cast(tf.add_n(d), w.dtype)
            for w, d in zip(weights, zip(*d_weights, strict=True), strict=True)
        ),
        *(schedule.merge(d, time=False) for d in zip(*d_states, strict=True)),
    ]
