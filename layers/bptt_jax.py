"""`layers.bptt` on JAX: the whole sequence as one block, compiled with the rest of the model.

The values are those of `layers.unfold`, the gradients within rounding.
"""

import functools

import jax
import jax.numpy as jnp

from layers import bptt
from layers.unfold import time_major, truncation_cuts


def is_compiled(tensor):
    """Whether ``tensor`` is being traced for a compiled function, and not a value."""
    return isinstance(tensor, jax.core.Tracer)


def scan(step, carried, xs, reverse=False):
    return jax.lax.scan(step, list(carried), xs, reverse=reverse)


def join(arrays):
    """Side by side along the last axis. The barriers keep XLA from computing each element of
    the result behind a choice of where it comes from, which its vectoriser cannot handle."""
    joined = jnp.concatenate(jax.lax.optimization_barrier(arrays), axis=-1)
    return jax.lax.optimization_barrier(joined)


def unfold(
    equations, x, states, U, W, b, b_recurrent, mask=None, truncate=None, sequences=True, share=1
):
    """All steps of a sequence, with the gradient derived by hand.

    Arguments and results: `layers.bptt_tensorflow.unfold`; ``share`` changes nothing here.
    """
    mask = None if mask is None else time_major(mask[..., None])
    cuts = None
    if truncate is not None and truncate < x.shape[1]:
        cuts = truncation_cuts(truncate, x.shape[1], mask)
    hidden, last = through_time(
        equations, sequences, x, (U, W, b, b_recurrent), list(states), mask, cuts
    )
    return hidden, last


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def through_time(equations, sequences, x, weights, states, mask, cuts):
    return _forward(equations, sequences, x, weights, states, mask, cuts)[0]


def _forward(equations, sequences, x, weights, states, mask, cuts):
    x = time_major(x)
    last, after, kept = bptt.forward(equations, scan, x, states, *weights, mask)
    outputs = (time_major(after[0]) if sequences else None, list(last))
    return outputs, (x, weights, states, after, kept, mask, cuts)


def _backward(equations, sequences, saved, d_outputs):
    x, weights, states, after, kept, mask, cuts = saved
    d_hidden, d_last = d_outputs
    dx, d_states, *d_weights = bptt.backward(
        equations,
        scan,
        join,
        x,
        states,
        after,
        kept,
        weights[0],
        weights[1].T,
        mask,
        cuts,
        time_major(d_hidden) if sequences else None,
        d_last,
    )
    return time_major(dx), tuple(d_weights), d_states, None, None


through_time.defvjp(_forward, _backward)
