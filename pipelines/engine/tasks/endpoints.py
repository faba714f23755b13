"""Call the endpoints of a model that has not been exported yet."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from pipelines.engine.export.savedmodel import Endpoint


def can_run_endpoints() -> bool:
    """Return whether endpoints can run in this process: they are TensorFlow graphs."""
    return bool(keras.backend.backend() == "tensorflow")


def compile_endpoint(endpoint: Endpoint) -> Callable[..., dict[str, tf.Tensor]]:
    """Compile an endpoint as its export does, for any number of rows.

    The declared signature matters: traced with the shapes of one example, a loop over states of
    one row fails as soon as a step returns states of an unknown number of rows.
    """
    function: Callable[..., dict[str, tf.Tensor]] = tf.function(
        endpoint.function, input_signature=list(endpoint.inputs.values()), autograph=False
    )
    return function
