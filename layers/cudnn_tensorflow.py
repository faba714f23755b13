"""cuDNN's LSTM and GRU over the layers' own weights, on TensorFlow with an NVIDIA GPU."""

from collections.abc import Sequence

import tensorflow as tf

from layers.xla_tensorflow import compiles_caller

CELLS = ("LSTM", "GRU")
DTYPES = ("float16", "float32", "float64")


def refusal() -> str | None:
    """Return why a call cannot use cuDNN, or None if it can."""
    if not tf.config.get_visible_devices("GPU"):
        return "no GPU"
    if compiles_caller():
        return "XLA compiles the whole function"
    return None


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
    """Run all steps of right-padded rows.

    Args:
        cell: one of `CELLS`; the GRU resets after the product.
        x: <float>[batch, time, inputs].
        states: the states before the first step, each <float>[batch, units].
        U, W, b, b_recurrent: the weights.
        lengths: int32 [batch], at least 1 each.

    Returns:
        The hidden states [batch, time, units], undefined after a row's length, and the states
        after its last step.
    """
    gates = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2)}[cell]  # cuDNN has r before z

    def in_order(weights: tf.Tensor) -> list[tf.Tensor]:
        blocks = tf.split(weights, len(gates), axis=-1)
        return [tf.reshape(tf.transpose(blocks[gate]), [-1]) for gate in gates]

    params = [block for weights in (U, W, b, b_recurrent) for block in in_order(weights)]
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
