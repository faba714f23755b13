"""Gradients of a function's arguments, on JAX."""

import jax


def gradients(function, values):
    """∂ function(values) / ∂ values, for a dict of tensors; 0 where there is no path."""
    return jax.grad(function)(values)
