"""The models behind the tabs: exports of the latest finished runs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from pipelines.engine.core.errors import UserError
from pipelines.engine.runs.run import Run
from pipelines.workflows.loaded_model import LoadedModel


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


def find_model(task: str, name: str) -> LoadedModel:
    """Return the model of `latest_run`, whose run may change while the page is open.

    Raises:
        UserError: There is none; the message has the command that trains one.
    """
    return _load(latest_run(task, name).folder)


@functools.cache
def _load(folder: Path) -> LoadedModel:
    run = Run(folder)
    return LoadedModel.of(run, run.config())


@contextlib.contextmanager
def errors_on_page() -> Iterator[None]:
    """Show a `UserError` that the block, or the decorated function, raises on the page."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), duration=None) from None
