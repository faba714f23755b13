"""What `layers` knows of Keras's backends: which modules are written for one of them."""

import functools
import importlib
import importlib.util
from typing import Any, TypeAlias

import keras

Tensor: TypeAlias = Any  # a tensor of the backend; Keras has no common type for them


@functools.cache
def backend_module(kind: str) -> Any:
    """Return the module ``layers.{kind}_{backend}``, or None if the backend has none."""
    name = f"layers.{kind}_{keras.backend.backend()}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None
