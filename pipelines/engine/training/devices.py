"""Which backend and which device a process computes on. Asked before Keras is imported."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Literal

from pipelines.engine.core.errors import UserError

BACKEND_SETTING = "KERAS_BACKEND"
BACKENDS = ("tensorflow", "jax")


#: The backend that can divide a training in each way.
_DIVIDES = {"mirrored": "tensorflow", "jax": "jax"}


def select(
    device: Literal["auto", "cpu", "gpu"],
    distribute: Literal["none", "mirrored", "jax"] = "none",
    meet: Callable[[], object] = lambda: None,
) -> dict[str, str]:
    """Make this process compute on ``device`` and say what it is.

    Args:
        distribute: how a training is divided, which one backend can do.
        meet: called before JAX is asked for its devices, some of which may be elsewhere.

    Returns:
        ``backend`` and ``device``, for the log of a run.

    Raises:
        UserError: a GPU is asked for and there is none, or the backend is not supported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    needed = _DIVIDES.get(distribute)
    backend = os.environ.setdefault(BACKEND_SETTING, needed or "tensorflow")
    if backend not in BACKENDS:
        raise UserError(f"{BACKEND_SETTING}={backend}: must be one of {', '.join(BACKENDS)}")
    if needed not in (None, backend):
        raise UserError(f"train.distribute: {distribute}: needs {BACKEND_SETTING}={needed}")
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    with _quiet():
        import tensorflow as tf

    if backend == "jax":
        # TensorFlow only reads the data; the GPU and its memory are for JAX.
        tf.config.set_visible_devices([], "GPU")
        try:
            import jax
        except ModuleNotFoundError:
            raise UserError(f"{BACKEND_SETTING}=jax: the package jax is not installed") from None
        meet()
        names = [d.device_kind for d in jax.devices() if d.platform == "gpu"]
    else:
        if device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        gpus = tf.config.get_visible_devices("GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        names = [
            tf.config.experimental.get_device_details(g).get("device_name", "GPU") for g in gpus
        ]
    if device == "gpu" and not names:
        raise UserError(
            "device: gpu: no GPU is visible to this process; "
            "use device: auto or cpu, or install with: make setup GPU=1"
        )
    return {"backend": backend, "device": f"gpu: {names[0]}" if names else "cpu"}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what TensorFlow's libraries greet with on standard error when they are loaded.

    They write it before any setting of theirs is read. Other lines are passed on.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines(keepends=True):
                if not line.startswith(("I0000", "WARNING: All log messages before absl")):
                    sys.stderr.write(line)
