"""Predict and explain single inputs with a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import require_writable
from pipelines.engine.core.paths import home
from pipelines.engine.explain import explanation, page
from pipelines.engine.export import savedmodel
from pipelines.engine.runs.loading import load_model
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.base import Explainable, Prediction
from pipelines.engine.tasks.catalog import get_task
from pipelines.engine.tasks.endpoints import can_run_endpoints
from pipelines.workflows.predict_file import LoadedModel


def predict(
    run: Run, config: Experiment, inputs: Sequence[str], files: dict[str, Path]
) -> list[Prediction]:
    """Predict inputs with the run's SavedModel, exactly as a server of it does.

    Args:
        run: a run with an export.
        config: the run's config.
        inputs: the inputs, as text.
        files: files to write the prediction of a single input to, by the names of the task's
            writers.

    Returns:
        One prediction for each input.

    Raises:
        UserError: an input cannot be answered.
    """
    served = savedmodel.load(run.require("savedmodel"))
    task = get_task(run.task)
    predictions = LoadedModel(task, config, served, run.id).predict_all(inputs)
    if error := next((p.error for p in predictions if p.error is not None), None):
        raise UserError(error)
    for name, path in files.items():
        task.writers[name](predictions[0], path)
    return predictions


def explain(run: Run, config: Experiment, given: str) -> tuple[dict[str, Any], list[Path]]:
    """Explain what the run's model does with one input.

    Args:
        run: a run with a model.
        config: the run's config.
        given: the input, as text.

    Returns:
        The explanation as JSON data, and its files in ``explain/TASK/``.

    Raises:
        UserError: the backend is not TensorFlow, the task has no explanations, or the input has
            too many steps.
    """
    if not can_run_endpoints():
        raise UserError("explain needs the TensorFlow backend: unset KERAS_BACKEND")
    task = get_task(run.task)
    if not isinstance(task, Explainable):
        raise UserError(f"the task {run.task} has no explanations")
    run.require("model.keras")
    folder = home() / "explain" / run.task
    require_writable(folder, "the folder of explanations")
    processor = task.processor.load(run.require("processor"))
    explained = task.explain(config, processor, load_model(run), given)
    longest = max(len(segment.tokens) for segment in explained.segments)
    if longest > explanation.MAX_STEPS:
        raise UserError(
            f"{longest:,} steps are too many to show: at most {explanation.MAX_STEPS:,}"
        )
    stem = page.stem(given, run.id)
    files = page.files(lambda: explained, stem, task=run.task, run=run.id)
    for name, write in files.items():
        write(folder / name)
    return explanation.to_dict(explained), [folder / name for name in files]
