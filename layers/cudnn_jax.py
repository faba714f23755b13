"""cuDNN's LSTM over the layer's own weights, on JAX with an NVIDIA GPU."""

import jax
import jax.numpy as jnp
from jax.experimental import rnn

CELLS = ("LSTM",)
DTYPES = ("float32",)


def refusal():
    """Why this call cannot take it, or None."""
    return None if jax.default_backend() == "gpu" else "no GPU"


def sequence(cell, x, states, U, W, b, b_recurrent, lengths):
    """The steps of right-padded rows; arguments and results as in `layers.cudnn_tensorflow`."""
    h, c = (s[None] for s in states)
    weights = jnp.concatenate([U.T.ravel(), W.T.ravel(), b, b_recurrent])
    hidden, h, c = rnn.lstm(
        x,
        h,
        c,
        weights,
        lengths,
        input_size=x.shape[-1],
        hidden_size=W.shape[0],
        num_layers=1,
        dropout=0.0,
        bidirectional=False,
    )
    return hidden, [h[0], c[0]]
