"""Find the pipelines by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.errors import UserError

if TYPE_CHECKING:
    pass
from pipelines.engine.tasks.base import Task

#: Each has its package under ``pipelines`` and its configs under ``configs``.
NAMES = ("sentiment", "captioning", "translation", "forecasting", "generation")


def get_task(name: str) -> Task:
    return importlib.import_module(f"pipelines.{_known(name)}.task").TASK


def get_config(name: str) -> type[Experiment]:
    """The config model of a task, without importing Keras."""
    return importlib.import_module(f"pipelines.{_known(name)}.config").CONFIG


def _known(name: str) -> str:
    if name not in NAMES:
        raise UserError(f"no task {name!r}; there are: {', '.join(NAMES)}")
    return name
