"""Find the pipelines by name; see `pipelines.engine.config.catalog` for their configs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.engine.config.catalog import (
    BUILT_IN,
    GROUP,
    attribute,
    find_config,
    get_config,
    task_names,
    unusable,
)

if TYPE_CHECKING:
    from pipelines.engine.tasks.base import Task

__all__ = ["BUILT_IN", "GROUP", "find_config", "get_config", "get_task", "task_names"]


def get_task(name: str) -> Task:
    """Import and return a pipeline.

    Raises:
        UserError: No pipeline has this name, or its package cannot be used.
    """
    from pipelines.engine.tasks.base import Task

    task = attribute(name, "task", "TASK")
    if not isinstance(task, Task):
        raise unusable(name, "task.TASK is not a Task")
    return task
