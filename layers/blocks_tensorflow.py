"""`layers.bptt` on TensorFlow: a block of steps, forwards or backwards, compiled by XLA.

The loop over the steps of a block is then machine code that reuses the same few buffers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from layers import bptt
from layers.derivatives import Equations
from layers.xla_tensorflow import join

Tensors = Sequence[tf.Tensor]


def scan(
    step: Callable[..., tuple[Any, Any]],
    states: Tensors,
    xs: Any,
    reverse: bool = False,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Apply ``step(states, x) -> (states, y)`` over the first axis of ``xs``.

    XLA needs to know its size.

    Returns:
        The last states, and each y of all steps, stacked along the first axis.
    """

    def entry(t: Any) -> Any:
        return tf.nest.map_structure(lambda x: x[t], xs)

    first = tf.nest.flatten(xs)[0]
    time = tf.shape(first)[0] if first.shape[0] is None else first.shape[0]
    # For the shapes only: a graph does not compute unused results.
    _, like = step(states, entry(0))
    arrays = [tf.TensorArray(y.dtype, size=time, element_shape=y.shape) for y in like]

    def body(t: Any, states: Any, arrays: Any) -> Any:
        states, ys = step(states, entry(t))
        arrays = [array.write(t, y) for array, y in zip(arrays, ys, strict=True)]
        return t - 1 if reverse else t + 1, states, arrays

    _, last, arrays = tf.while_loop(
        lambda t, *_: t >= 0 if reverse else t < time,
        body,
        (time - 1 if reverse else 0, list(states), arrays),
        maximum_iterations=time,
    )
    return last, [array.stack() for array in arrays]


def transposed(sequence: tf.Tensor | None) -> tf.Tensor | None:
    """Transpose [batch, time, ...] to [time, batch, ...] or back; a mask gets a last axis of 1."""
    if sequence is None:
        return None
    sequence = sequence[..., None] if len(sequence.shape) == 2 else sequence
    return tf.transpose(sequence, [1, 0, 2])


@tf.function(jit_compile=True, autograph=False)
def forward_block(
    equations: type[Equations],
    x: tf.Tensor,
    states: Tensors,
    U: tf.Tensor,
    W: tf.Tensor,
    b: tf.Tensor,
    b_recurrent: tf.Tensor,
    mask: tf.Tensor | None,
) -> Any:
    """Run `bptt.forward` on [batch, time, ...]; return the hidden states in that order too."""
    last, after, saved = bptt.forward(
        equations, scan, transposed(x), states, U, W, b, b_recurrent, transposed(mask)
    )
    return last, [transposed(after[0]), *after[1:]], saved


@tf.function(jit_compile=True, autograph=False)
def backward_block(
    equations: type[Equations],
    x: tf.Tensor,
    states: Tensors,
    after: Tensors,
    saved: Tensors,
    U: tf.Tensor,
    W_transposed: tf.Tensor,
    mask: tf.Tensor | None,
    cuts: tf.Tensor | None,
    d_hidden: tf.Tensor | None,
    d_last: Tensors,
) -> Any:
    """Run `bptt.backward` on [batch, time, ...] and on the results of `forward_block`."""
    dx, *gradients = bptt.backward(
        equations,
        scan,
        join,
        transposed(x),
        states,
        [transposed(after[0]), *after[1:]],
        saved,
        U,
        W_transposed,
        transposed(mask),
        transposed(cuts),
        transposed(d_hidden),
        d_last,
    )
    return transposed(dx), *gradients
