"""The device of this process, and the settings of other libraries that training changes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.training import devices

#: MLflow's settings, which it also keeps in the environment.
_MLFLOW_SETTERS = {
    "MLFLOW_TRACKING_URI": "set_tracking_uri",
    "MLFLOW_REGISTRY_URI": "set_registry_uri",
}


def select_for_training(config: Experiment, console: Console) -> dict[str, str]:
    """Select the device of a training as `devices.select` does, and say which one it is.

    Raises:
        UserError: This process already computes on another device than ``device`` asks for.
    """
    selected = devices.select(config.device, config.train.distribute)
    on_cpu = selected["device"] == "cpu"
    if config.device == "cpu" and not on_cpu:
        raise UserError(
            f"device: cpu: this process already computes on a GPU ({selected['device']}); use "
            "device: auto, or start a new process"
        )
    if on_cpu and config.device == "auto" and _has_hidden_gpu():
        console.warn(
            "this process already computes on the CPU, although there is a GPU; to train on it, "
            "start a new process, or load models with device='auto'"
        )
    console.say(f"backend {selected['backend']}, device {selected['device']}")
    return selected


def _has_hidden_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


@contextlib.contextmanager
def settings_restored() -> Iterator[None]:
    """Give MLflow its store, and Keras its dtype policy, back when the block ends."""
    uris = {name: os.environ.get(name) for name in _MLFLOW_SETTERS}
    keras: Any = sys.modules.get("keras")
    policy = None if keras is None else keras.config.dtype_policy()
    try:
        yield
    finally:
        if policy is not None:
            keras.config.set_dtype_policy(policy)
        if (mlflow := sys.modules.get("mlflow")) is not None:
            for name, uri in uris.items():
                getattr(mlflow, _MLFLOW_SETTERS[name])(uri)
                if uri is None:
                    os.environ.pop(name, None)
