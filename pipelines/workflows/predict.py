"""Answer and explain inputs with a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import require_writable
from pipelines.engine.core.paths import home
from pipelines.engine.explain import explanation, page
from pipelines.engine.export import savedmodel
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.base import Prediction
from pipelines.engine.tasks.catalog import get_task


def predict(
    run: Run, config: Experiment, inputs: Sequence[str], files: dict[str, Path]
) -> list[Prediction]:
    """Answer inputs with the run's SavedModel: exactly what a server of it answers.

    Args:
        files: where to write the answer to the only input as well, by the task's writers.
    """
    served = savedmodel.load(run.need("savedmodel"))
    task = get_task(run.task)
    predictions = [task.predict(config, served, given) for given in inputs]
    for name, path in files.items():
        task.writers[name](predictions[0], path)
    return predictions


def explain(run: Run, config: Experiment, given: str) -> tuple[dict[str, Any], list[Path]]:
    """What the run's model does with one input, as data and as files in ``explain/TASK/``."""
    if keras.backend.backend() != "tensorflow":
        raise UserError("explain needs the TensorFlow backend: unset KERAS_BACKEND")
    path, task = run.need("model.keras"), get_task(run.task)
    folder = home() / "explain" / run.task
    require_writable(folder, "the folder of explanations")
    processor = task.load_processor(run.need("processor"))
    with run.understood():
        found = task.explain(config, processor, keras.models.load_model(path), given)
    longest = max(len(segment.tokens) for segment in found.segments)
    if longest > explanation.MAX_STEPS:
        raise UserError(
            f"{longest:,} steps are too many to show: at most {explanation.MAX_STEPS:,}"
        )
    stem = page.stem(given, run.id)
    files = page.files(lambda: found, stem, task=run.task, run=run.id)
    for name, write in files.items():
        write(folder / name)
    return explanation.to_dict(found), [folder / name for name in files]
