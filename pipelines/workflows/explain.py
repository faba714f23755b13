"""Explain single inputs with a trained run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import require_writable
from pipelines.engine.core.paths import home
from pipelines.engine.explain import page
from pipelines.engine.explain.explanation import MAX_STEPS, Explanation, to_dict
from pipelines.engine.runs.loading import load_model
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.base import Explainable
from pipelines.engine.tasks.catalog import get_task
from pipelines.engine.tasks.endpoints import can_run_endpoints


@dataclass(frozen=True)
class Explained:
    """What a model does with one input.

    Attributes:
        explanation: The steps and the answer.
        task: The name of the task.
        run: The id of the run.
    """

    explanation: Explanation
    task: str
    run: str
    _stem: str

    @property
    def json(self) -> dict[str, Any]:
        """The explanation as JSON data."""
        return to_dict(self.explanation)

    def save(self, folder: str | os.PathLike[str] | None = None) -> list[Path]:
        """Write the HTML page and the picture.

        Args:
            folder: Where to; by default ``explain/TASK/`` in the home folder.

        Returns:
            The paths of the files.

        Raises:
            UserError: The folder cannot be written to.
        """
        target = explanations_folder(self.task) if folder is None else Path(folder)
        require_writable(target, "the folder of explanations")
        files = page.files(lambda: self.explanation, self._stem, task=self.task, run=self.run)
        for name, write in files.items():
            write(target / name)
        return [target / name for name in files]


def explanations_folder(task: str) -> Path:
    """Return the folder in which the explanations of a task are saved by default."""
    return home() / "explain" / task


def explain(run: Run, config: Experiment, given: str) -> Explained:
    """Explain what the run's model does with one input.

    Args:
        run: a run with a model.
        config: the run's config.
        given: the input, as text.

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
    processor = task.processor.load(run.require("processor"))
    explained = task.explain(config, processor, load_model(run), given)
    longest = max(len(segment.tokens) for segment in explained.segments)
    if longest > MAX_STEPS:
        raise UserError(f"{longest:,} steps are too many to show: at most {MAX_STEPS:,}")
    return Explained(explained, run.task, run.id, page.stem(given, run.id))
