import pytest


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Nothing here draws of its own; with each new seed, TensorFlow prepares all graphs anew."""
