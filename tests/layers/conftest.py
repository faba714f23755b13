import contextlib

import keras
import pytest


@pytest.fixture(autouse=True)
def _float64_on_jax():
    """Let JAX keep float64 where a test asks for it."""
    with contextlib.ExitStack() as stack:
        if keras.backend.backend() == "jax":
            import jax

            stack.enter_context(jax.enable_x64(True))
        yield
