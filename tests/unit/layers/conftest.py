import keras
import pytest


@pytest.fixture(autouse=True)
def _float64_on_jax():
    """Let JAX keep float64 where a test asks for it."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield
