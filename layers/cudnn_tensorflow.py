"""cuDNN's LSTM and GRU over the layers' own weights, on TensorFlow with an NVIDIA GPU."""

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

CELLS = ("LSTM", "GRU")
DTYPES = ("float16", "float32", "float64")


def refusal():
    """Why this call cannot take it, or None."""
    if not tf.config.get_visible_devices("GPU"):
        return "no GPU"
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        return "XLA compiles the whole function"
    return None


def sequence(cell, x, states, U, W, b, b_recurrent, lengths):
    """The steps of right-padded rows.

    Args:
        cell: one of `CELLS`; the GRU resets after the product.
        x: [batch, time, inputs]; ``lengths`` int32 [batch], each at least 1.
        states: each [batch, units].

    Returns:
        The hidden states [batch, time, units], undefined behind a row's length, and the states
        after its last step.
    """
    gates = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2)}[cell]  # cuDNN has r before z

    def in_order(weights):
        parts = tf.split(weights, len(gates), axis=-1)
        return [tf.reshape(tf.transpose(parts[gate]), [-1]) for gate in gates]

    params = [part for weights in (U, W, b, b_recurrent) for part in in_order(weights)]
    h, c = states if cell == "LSTM" else (*states, tf.zeros_like(states[0]))
    hidden, h, c, _, _ = tf.raw_ops.CudnnRNNV3(
        input=x,
        input_h=h[:, None],
        input_c=c[:, None],
        params=tf.concat(params, axis=0),
        sequence_lengths=lengths,
        rnn_mode=cell.lower(),
        time_major=False,
        is_training=True,
    )
    return hidden, [h[:, 0], c[:, 0]] if cell == "LSTM" else [h[:, 0]]
