"""`layers.bptt` on JAX: the whole sequence is one block, compiled with the rest of the model.

The values are those of `layers.unfold`; the gradients are equal up to rounding.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from layers import bptt
from layers.derivatives import Equations
from layers.unfold import time_major, truncation_cuts


def is_compiled(tensor: Any) -> bool:
    """Return whether ``tensor`` is traced for a compiled function, and has no value."""
    return isinstance(tensor, jax.core.Tracer)


def scan(
    step: Callable[..., Any], states: Sequence[jax.Array], xs: Any, reverse: bool = False
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Apply ``step(states, x) -> (states, y)`` over the first axis of ``xs``."""
    return jax.lax.scan(step, list(states), xs, reverse=reverse)


def join(arrays: Sequence[jax.Array]) -> jax.Array:
    """Concatenate along the last axis.

    The barriers keep XLA from computing each element of the result behind a choice of where it
    comes from, which its vectoriser cannot handle.
    """
    barrier: Callable[[Any], Any] = jax.lax.optimization_barrier
    joined: jax.Array = barrier(jnp.concatenate(barrier(arrays), axis=-1))
    return joined


def unfold(
    equations: type[Equations],
    x: jax.Array,
    states: Sequence[jax.Array],
    U: jax.Array,
    W: jax.Array,
    b: jax.Array,
    b_recurrent: jax.Array,
    mask: jax.Array | None = None,
    truncate: int | None = None,
    sequences: bool = True,
    concurrent_layers: int = 1,
) -> tuple[jax.Array | None, list[jax.Array]]:
    """Run all steps of a sequence, with the gradient derived by hand.

    Arguments and results: `layers.bptt_tensorflow.unfold`. ``concurrent_layers`` has no effect.
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
def through_time(
    equations: type[Equations],
    sequences: bool,
    x: jax.Array,
    weights: tuple[jax.Array, ...],
    states: list[jax.Array],
    mask: jax.Array | None,
    cuts: jax.Array | None,
) -> Any:
    """Run all steps of ``x``, [batch, time, inputs]; JAX differentiates it by `_backward`."""
    return _forward(equations, sequences, x, weights, states, mask, cuts)[0]


def _forward(
    equations: type[Equations],
    sequences: bool,
    x: jax.Array,
    weights: tuple[jax.Array, ...],
    states: list[jax.Array],
    mask: jax.Array | None,
    cuts: jax.Array | None,
) -> tuple[Any, tuple[Any, ...]]:
    x = time_major(x)
    U, W, b, b_recurrent = weights
    last, after, saved = bptt.forward(equations, scan, x, states, U, W, b, b_recurrent, mask)
    outputs = (time_major(after[0]) if sequences else None, list(last))
    return outputs, (x, weights, states, after, saved, mask, cuts)


def _backward(
    equations: type[Equations], sequences: bool, residuals: tuple[Any, ...], d_outputs: Any
) -> tuple[Any, ...]:
    x, weights, states, after, saved, mask, cuts = residuals
    d_hidden, d_last = d_outputs
    dx, d_states, *d_weights = bptt.backward(
        equations,
        scan,
        join,
        x,
        states,
        after,
        saved,
        weights[0],
        weights[1].T,
        mask,
        cuts,
        time_major(d_hidden) if sequences else None,
        d_last,
    )
    return time_major(dx), tuple(d_weights), d_states, None, None


through_time.defvjp(_forward, _backward)
