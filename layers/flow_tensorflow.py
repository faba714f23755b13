"""Gradients of a function's arguments, on TensorFlow."""

import tensorflow as tf


def gradients(function, values):
    """∂ function(values) / ∂ values, for a dict of tensors; 0 where there is no path."""
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function(values)
    return tape.gradient(result, values, unconnected_gradients="zero")
