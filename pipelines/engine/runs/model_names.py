"""The names of models. A model has one task; its runs are its versions.

By default a model is called like its task. The key ``registered_model`` of a config gives another
name, under which the registry, ``exports/`` and the server keep the model apart.
"""

from __future__ import annotations

import contextlib
import re

from pipelines.engine.config.schema import MODEL_NAME, Experiment
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.paths import home
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import task_names


def check_form(name: str) -> None:
    """Check that a name can be that of a model.

    Raises:
        UserError: it cannot.
    """
    if re.fullmatch(MODEL_NAME, name) is None or name.endswith("\n"):
        raise UserError(
            f"{name!r} is no name of a model: at most 64 letters (A-Z, a-z), digits, - and _, and "
            "first a letter or a digit, e.g. tickets"
        )


def check_name(task: str, name: str) -> None:
    """Check that no other task's model has this name by default.

    Case is ignored, because names are folders, and some file systems ignore it.

    Raises:
        UserError: one has, or the name differs from the task's in case only.
    """
    for other in task_names():
        if name != task and name.casefold() == other.casefold():
            whose = "of the task itself, in other letters" if other == task else "of another task"
            raise UserError(
                f"registered_model: {name!r} is the name {whose}; choose another, e.g. "
                f"{task}-{name.casefold()}"
            )


def require_free(config: Experiment) -> None:
    """Check, before a training, that its model's name is not that of another model.

    Raises:
        UserError: it is the name of another task or of one of its models, or differs from that of
            another model in case only.
    """
    task, name = config.task, config.model_name
    check_name(task, name)
    for path in (home() / "runs").glob("*/[!.]*/run.json"):
        run = Run(path.parent)
        with contextlib.suppress(UserError):  # a damaged run of another task does not matter here
            taken = run.model_name
            if taken.casefold() == name.casefold() and (run.task, taken) != (task, name):
                break
    else:
        return
    raise UserError(
        f"registered_model: {name!r} is taken: the {run.task} run {run.id} is of the model "
        f"{taken!r}; choose another name"
    )


def tasks_of(name: str) -> list[str]:
    """Return the tasks that have a finished run of the model with this name."""
    return [task for task in task_names() if name in Run.models(task)]
