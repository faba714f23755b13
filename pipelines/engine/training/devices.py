"""Select the backend and the device of this process, before Keras is imported."""

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
#: The backend that each value of ``train.distribute`` needs.
_DISTRIBUTE_BACKENDS = {"mirrored": "tensorflow", "jax": "jax"}


def select(
    device: Literal["auto", "cpu", "gpu"],
    distribute: Literal["none", "mirrored", "jax"] = "none",
    connect: Callable[[], object] = lambda: None,
) -> dict[str, str]:
    """Make this process compute on ``device``.

    It can be called again, but TensorFlow cannot change its devices once it has started: the
    result then says which one is used.

    Args:
        device: ``auto`` takes a GPU if there is one.
        distribute: The key ``train.distribute``; each value needs one backend.
        connect: Called before JAX lists its devices, some of which may be in other processes.

    Returns:
        ``backend`` and ``device``, as `run.json` records them.

    Raises:
        UserError: There is no GPU although ``device`` is ``gpu``, or the backend cannot be used.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    needed = _DISTRIBUTE_BACKENDS.get(distribute)
    backend = _choose_backend(needed or "tensorflow")
    if backend not in BACKENDS:
        raise UserError(f"{BACKEND_SETTING}={backend}: must be one of {', '.join(BACKENDS)}")
    if needed not in (None, backend):
        raise UserError(f"train.distribute: {distribute}: needs {BACKEND_SETTING}={needed}")
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    with _quiet():
        import tensorflow as tf

    if backend == "jax":
        # TensorFlow only reads the data and leaves the GPU and its memory to JAX.
        with _if_not_started():
            tf.config.set_visible_devices([], "GPU")
        try:
            import jax
        except ModuleNotFoundError:
            raise UserError(f"{BACKEND_SETTING}=jax: the package jax is not installed") from None
        connect()
        names = [d.device_kind for d in jax.devices() if d.platform == "gpu"]
    else:
        if device == "cpu":
            with _if_not_started():
                tf.config.set_visible_devices([], "GPU")
        gpus = tf.config.get_visible_devices("GPU")
        with _if_not_started():
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


def _choose_backend(default: str) -> str:
    """Return the backend of this process: that of Keras if it is imported already."""
    keras = sys.modules.get("keras")
    imported = None if keras is None else str(keras.config.backend())
    backend = os.environ.setdefault(BACKEND_SETTING, imported or default)
    if backend in BACKENDS and imported not in (None, backend):
        raise UserError(
            f"{BACKEND_SETTING}={backend}: Keras is imported already, with the backend {imported}; "
            "start a new process"
        )
    return backend


def _if_not_started() -> contextlib.AbstractContextManager[None]:
    """Ignore that TensorFlow has started, and its devices cannot be changed any more."""
    return contextlib.suppress(RuntimeError)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Filter the messages that TensorFlow's libraries write to standard error when loaded.

    They write them before they read any setting. Other lines are kept.
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
