"""What `layers` asks of XLA under TensorFlow."""

from collections.abc import Sequence

import tensorflow as tf

from layers._compat import XLA_BARRIER, XLA_CONTEXT

_in_xla_context = XLA_CONTEXT.load()
_optimization_barrier = XLA_BARRIER.load()


def compiles_caller() -> bool:
    """Return whether XLA compiles the function that is being traced as a whole."""
    return bool(_in_xla_context(tf.compat.v1.get_default_graph()))


def join(arrays: Sequence[tf.Tensor]) -> tf.Tensor:
    """Concatenate along the last axis, in code that XLA compiles.

    The barriers keep XLA from computing each element of the result behind a choice of where it
    comes from, which its vectoriser cannot handle.
    """
    joined = tf.concat(_optimization_barrier(*arrays), axis=-1)
    return _optimization_barrier(joined)[0]
