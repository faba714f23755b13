"""TensorFlow's fused LSTM over the layer's own weights: all steps in one operation.

A loop costs some twenty operations a step, each with its dispatch; for a few rows that is most
of the time. The kernel is part of TensorFlow's core, so a server has it, on CPU and GPU. The
gradient that TensorFlow has for it is wrong; here it is that of `layers.bptt`, whose forward
values the kernel returns.
"""

import functools

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from layers import bptt, bptt_tensorflow

CELLS = ("LSTM",)
DTYPES = ("float16", "float32")
ROWS = 16  # up to here it is quicker than the loop, whose products use all cores


def refusal():
    """Why this call cannot take it, or None."""
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        return "XLA compiles the whole function"
    return None


def sequence(cell, x, states, U, W, b, b_recurrent, lengths):
    """The steps of right-padded rows; arguments and results as in `layers.cudnn_tensorflow`.

    Raises:
        LookupError: a gradient of the gradient is asked for; an eager call has one.
    """

    @tf.custom_gradient
    def through_time(x, h, c, U, W, b):
        no_peephole = tf.zeros_like(W[:, 0])
        steps = tf.raw_ops.BlockLSTMV2(
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
        end = tf.stack([tf.minimum(lengths, tf.shape(x)[0]), tf.range(tf.shape(x)[1])], axis=1)
        last = [
            tf.gather_nd(tf.concat([first[None], after], axis=0), end)
            for first, after in ((h, steps.h), (c, steps.cs))
        ]

        def gradient(d_hidden, *d_last):
            once = functools.partial(tf.raw_ops.PreventGradient, message="call it eagerly")
            after = [once(input=a) for a in (steps.h, steps.cs)]
            kept = [once(input=a) for a in (steps.i, steps.f, steps.o, steps.ci)]
            real = (tf.range(tf.shape(x)[0])[:, None] < lengths)[..., None]
            dx, d_states, dU, dW, db, _ = bptt.backward(
                bptt.LSTM,
                bptt_tensorflow.scan,
                functools.partial(tf.concat, axis=-1),
                x,
                [h, c],
                after,
                kept,
                U,
                tf.transpose(W),
                real,
                None,
                d_hidden,
                list(d_last),
            )
            return dx, *d_states, dU, dW, db

        return (steps.h, *last), gradient

    hidden, *last = through_time(tf.transpose(x, [1, 0, 2]), *states, U, W, b + b_recurrent)
    return tf.transpose(hidden, [1, 0, 2]), last
