"""Write the SavedModel of a run.

As a program, ``python -m pipelines.workflows.export RUN_FOLDER`` writes it for one run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import tensorflow as tf

from pipelines.engine.core.console import Console
from pipelines.engine.export.savedmodel import write
from pipelines.engine.runs.loading import load_model
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_task


def export(run: Run, console: Console) -> None:
    """Write the run's ``savedmodel/`` unless it exists.

    Only a process with the TensorFlow backend and no visible GPU can write one that every CPU
    server can load. Another process starts such a process.
    """
    if (run.folder / "savedmodel").exists():
        return
    if keras.backend.backend() == "tensorflow" and not tf.config.get_visible_devices("GPU"):
        _export_here(run)
        return
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    console.say("writing the SavedModel in a TensorFlow process on the CPU")
    subprocess.run(
        [sys.executable, "-m", __spec__.name, str(run.folder)], env=environment, check=True
    )


def _export_here(run: Run) -> None:
    task = get_task(run.task)
    processor = task.processor.load(run.require("processor"))
    model = load_model(run)
    endpoints = task.endpoints(run.config(), processor, model)
    write(run.folder / "savedmodel", model, endpoints, processor.resources())


if __name__ == "__main__":
    export(Run(Path(sys.argv[1])), Console())
