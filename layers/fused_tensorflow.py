"""TensorFlow's fused LSTM over the layer's own weights: all steps in one operation.

A loop takes about twenty operations per step, each with its dispatch; for a few rows that is most
of the time. The kernel is part of TensorFlow's core, so every server has it, on CPU and GPU. The
gradient that TensorFlow has for it is wrong; here it is that of `layers.bptt`, from the values
that the kernel returns.
"""

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from layers import bptt, derivatives
from layers.blocks_tensorflow import scan
from layers.bptt_tensorflow import first_order
from layers.xla_tensorflow import compiles_caller

CELLS = ("LSTM",)
DTYPES = ("float16", "float32")
ROWS = 16  # up to here it is faster than the loop, whose products use all cores


def refusal() -> str | None:
    """Return why a call cannot use the kernel, or None if it can."""
    return "XLA compiles the whole function" if compiles_caller() else None


def sequence(
    cell: str,
    x: tf.Tensor,
    states: Sequence[tf.Tensor],
    U: tf.Tensor,
    W: tf.Tensor,
    b: tf.Tensor,
    b_recurrent: tf.Tensor,
    lengths: tf.Tensor,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Run all steps of right-padded rows; see `layers.cudnn_tensorflow.sequence`.

    Raises:
        LookupError: a gradient of the gradient is traced.
    """

    @tf.custom_gradient
    def through_time(
        x: tf.Tensor, h: tf.Tensor, c: tf.Tensor, U: tf.Tensor, W: tf.Tensor, b: tf.Tensor
    ) -> Any:
        steps = _block_lstm(x, h, c, U, W, b)
        end = tf.stack([tf.minimum(lengths, tf.shape(x)[0]), tf.range(tf.shape(x)[1])], axis=1)
        last = [
            tf.gather_nd(tf.concat([first[None], after], axis=0), end)
            for first, after in ((h, steps.h), (c, steps.cs))
        ]

        def gradient(d_hidden: tf.Tensor, *d_last: tf.Tensor) -> Any:
            real = (tf.range(tf.shape(x)[0])[:, None] < lengths)[..., None]
            dx, d_states, dU, dW, db, _ = bptt.backward(
                derivatives.LSTM,
                scan,
                functools.partial(tf.concat, axis=-1),
                x,
                [h, c],
                [steps.h, steps.cs],
                [steps.i, steps.f, steps.o, steps.ci],
                U,
                tf.transpose(W),
                mask=real,
                cuts=None,
                d_hidden=d_hidden,
                d_last=list(d_last),
            )
            return first_order([dx, *d_states, dU, dW, db])

        return (steps.h, *last), gradient

    hidden, *last = through_time(tf.transpose(x, [1, 0, 2]), *states, U, W, b + b_recurrent)
    return tf.transpose(hidden, [1, 0, 2]), last


def _block_lstm(
    x: tf.Tensor, h: tf.Tensor, c: tf.Tensor, U: tf.Tensor, W: tf.Tensor, b: tf.Tensor
) -> Any:
    """Run the kernel on [time, batch, inputs]; return its gates and states of all steps."""
    no_peephole = tf.zeros_like(W[:, 0])
    return tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.shape(x, out_type=tf.int64)[0],
        x=x,
        h_prev=h,
        cs_prev=c,
        w=tf.concat([U, W], axis=0),  # gates in Keras's order i, f, g, o
        b=b,
        wci=no_peephole,
        wcf=no_peephole,
        wco=no_peephole,
        use_peephole=False,
        cell_clip=0.0,
    )
