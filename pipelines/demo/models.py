"""The models behind the tabs: exports of the latest finished runs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.errors import UserError
from pipelines.engine.export import savedmodel
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.base import Prediction
from pipelines.engine.tasks.catalog import get_task


@dataclass(frozen=True)
class Model:
    """The export of a run.

    Attributes:
        task: The run's task.
        config: The run's config.
        export: The loaded SavedModel.
    """

    task: Any
    config: Experiment
    export: Any

    @property
    def signatures(self) -> Any:
        """The signatures of the export by name."""
        return self.export.signatures

    def predict(self, example: str) -> Prediction:
        """Return the prediction for one example, as ``unfold predict`` does."""
        prediction: Prediction = self.task.predict(self.config, self.export, example)
        return prediction


def latest_run(task: str, name: str | None = None) -> Run:
    """Return the latest finished run of a model.

    For sentiment, it is the latest run of the config ``live`` if there is one: that model reads
    forwards only, so it can classify a review after each word.

    Args:
        task: The model's task.
        name: The model's name; None for the task's own.

    Raises:
        UserError: There is none; the message has the command that trains one.
    """
    if task == "sentiment":
        with contextlib.suppress(UserError):
            return Run.find(task, None, "live", name)
    return Run.find(task, None, model=name)


def find_model(task: str, name: str) -> Model:
    """Return the model of `latest_run`, whose run may change while the page is open.

    Raises:
        UserError: There is none; the message has the command that trains one.
    """
    return _load(task, latest_run(task, name).folder)


@functools.cache
def _load(task: str, folder: Path) -> Model:
    run = Run(folder)
    return Model(get_task(task), run.config(), savedmodel.load(run.require("savedmodel")))


@contextlib.contextmanager
def errors_on_page() -> Iterator[None]:
    """Show a `UserError` that the block, or the decorated function, raises on the page."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), duration=None) from None
