"""Write the SavedModel of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import tensorflow as tf

from pipelines.engine.core.console import Console
from pipelines.engine.export.savedmodel import write
from pipelines.engine.runs.run import Run


def write_for_run(run: Run, console: Console) -> None:
    """Write the run's ``savedmodel/``: here if this process can, else in one of its own."""
    if (run.folder / "savedmodel").exists():
        return
    if keras.backend.backend() == "tensorflow" and not tf.config.get_visible_devices("GPU"):
        from pipelines.engine.tasks.catalog import get_task

        task = get_task(run.task)
        processor = task.load_processor(run.need("processor"))
        model = keras.models.load_model(run.need("model.keras"))
        endpoints = task.endpoints(run.config(), processor, model)
        write(run.folder / "savedmodel", model, endpoints, processor.resources())
        return
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    console.say("writing the SavedModel in a TensorFlow process on the CPU")
    subprocess.run(
        [sys.executable, "-m", __spec__.name, str(run.folder)], env=environment, check=True
    )


if __name__ == "__main__":
    write_for_run(Run(Path(sys.argv[1])), Console())
