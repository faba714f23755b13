"""cuDNN's LSTM over the layer's own weights, on JAX with an NVIDIA GPU."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental import rnn

CELLS = ("LSTM",)
DTYPES = ("float32",)


def refusal() -> str | None:
    """Return why a call cannot use cuDNN, or None if it can."""
    return None if jax.default_backend() == "gpu" else "no GPU"


def sequence(
    cell: str,
    x: jax.Array,
    states: Sequence[jax.Array],
    U: jax.Array,
    W: jax.Array,
    b: jax.Array,
    b_recurrent: jax.Array,
    lengths: jax.Array,
) -> tuple[jax.Array, list[jax.Array]]:
    """Run all steps of right-padded rows; see `layers.cudnn_tensorflow.sequence`."""
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
