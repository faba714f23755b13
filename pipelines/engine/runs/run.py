"""A run: the folder that holds everything about one training.

``runs/TASK/ID/`` has ``run.json`` (status, versions, data fingerprint, scores), ``config.yaml``
(resolved; it reproduces the run), ``processor/`` (vocabulary, labels), checkpoints,
``model.keras``, ``figures/``, ``tables/``, ``savedmodel/`` and ``report.html``. MLflow gets
copies, so nothing is lost while it cannot be reached.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.commands import command, option
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import lock, new_folder, remove_unfinished, write_json, write_text
from pipelines.engine.core.paths import HOME_VARIABLE, home
from pipelines.engine.runs.info import SCHEMA, GroupMembership, RunInfo, read_info, write_info
from pipelines.engine.runs.provenance import git_commit, machine, package_versions
from pipelines.engine.tasks.base import Processor
from pipelines.engine.tasks.catalog import get_config

#: The page about a finished run, in its folder.
REPORT = "report.html"


def runs_folder(task: str) -> Path:
    """Return the folder of all runs of a task."""
    return home() / "runs" / task


@dataclass(frozen=True)
class GroupMember:
    """One training of a group: a variant of a comparison, or a trial of a sweep.

    Attributes:
        group: the group's name, which is its folder relative to the home folder.
        key: the key of the training within the group.
        trial: whether it is only trained and validated, without a test score and an export.
        after_epoch: called with the state of training after each epoch; may raise to end it.
    """

    group: str
    key: str
    trial: bool
    after_epoch: Callable[[dict[str, Any]], None]

    def membership(self) -> GroupMembership:
        """Return what the run's ``run.json`` says about its group."""
        return GroupMembership(name=self.group, key=self.key)


class Run:
    """One training and its folder.

    Args:
        folder: ``runs/TASK/ID``, which need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name
        self.task = folder.parent.name

    @classmethod
    def create(cls, config: Experiment, processor: Processor, **info: Any) -> Run:
        """Create the folder of a new run, complete or not at all.

        Args:
            config: the resolved config.
            processor: the fitted processor.
            info: further fields of `RunInfo`.
        """
        now = datetime.now(UTC)
        stamp = now.strftime("%Y%m%d-%H%M%S")
        folder = runs_folder(config.task) / f"{stamp}-{config.name}-{secrets.token_hex(2)}"
        with new_folder(folder) as work:
            write_text(work / "config.yaml", configs.dump(config))
            processor.save(work / "processor")
            cls(work).update(
                schema_version=SCHEMA,
                status="running",
                config_name=config.name,
                registered_model=config.registered_model,
                created=now.isoformat(timespec="seconds"),
                git_commit=git_commit(),
                versions=package_versions(),
                machine=machine(),
                **info,
            )
        return cls(folder)

    @classmethod
    def find(
        cls,
        task: str,
        wanted: str | None,
        config_name: str | None = None,
        model: str | None = None,
    ) -> Run:
        """Find a run by its id, a unique part of its id, or the id of its MLflow run.

        Args:
            task: the task's name.
            wanted: which run; None for the latest finished run of a model that is not part of a
                group.
            config_name: narrows the latest run to configs of this name.
            model: the model's name. By default, a latest run is one of the task's own model, and
                any other run may be of any model.

        Raises:
            UserError: there is no such run, there are several, or it is of another model.
        """
        runs = sorted(cls.all(task), key=lambda run: run.id)
        if wanted is None:
            return cls._latest(task, model or task, runs, config_name)
        found = cls.by_id(wanted, runs)
        if model not in (None, found.model_name):
            raise UserError(
                f"run {found.id} is of the model {found.model_name!r}, not of {model!r}"
            )
        return found

    @classmethod
    def by_id(cls, wanted: str, runs: list[Run]) -> Run:
        """Return the run of ``runs`` with an id, a unique part of an id, or an MLflow run's id.

        Raises:
            UserError: there is none, or there are several.
        """
        hits = [run for run in runs if run.id == wanted]
        hits = hits or [run for run in runs if wanted and wanted in run.id]
        hits = hits or [run for run in runs if run.info.mlflow.run_id == wanted]
        if len(hits) == 1:
            return hits[0]
        ids = ", ".join(run.id for run in (hits or runs[-5:])) or "none"
        problem = "several runs match:" if hits else "no such run; the latest runs:"
        raise UserError(f"run {wanted}: {problem} {ids}")

    @classmethod
    def _latest(cls, task: str, model: str, runs: list[Run], config_name: str | None) -> Run:
        finished = [
            (info.finished or "", run.id, run)
            for run in runs
            if (info := run.info).status == "finished"
            and info.group is None
            and config_name in (None, info.config_name)
            and (info.registered_model or task) == model
        ]
        if not finished:
            of = "" if model == task else f" of the model {model!r}"
            of += f" of the config named {config_name!r}" if config_name else ""
            raise UserError(
                f"no finished {task} run{of} yet in {runs_folder(task)}: "
                f"{command('train', task, name=model)}, or set {HOME_VARIABLE} to the folder that "
                f"has runs/{other_models(task, model)}"
            )
        return max(finished)[-1]

    @classmethod
    def models(cls, task: str) -> list[str]:
        """Return the names of the models that have a latest run, the task's own first."""
        infos = (run.info for run in cls.all(task))
        names = {
            info.registered_model or task
            for info in infos
            if info.status == "finished" and info.group is None
        }
        return sorted(names, key=lambda name: (name != task, name))

    @classmethod
    def all(cls, task: str) -> list[Run]:
        """Return all runs of a task, in no particular order."""
        # A name that starts with a dot is a folder whose process was killed before it was complete.
        return [cls(p.parent) for p in runs_folder(task).glob("[!.]*/run.json")]

    @property
    def model_name(self) -> str:
        """The name of the model that the run is a version of."""
        return self.info.registered_model or self.task

    @property
    def info(self) -> RunInfo:
        """The current contents of ``run.json``."""
        return read_info(self.folder / "run.json")

    def update(self, **changes: Any) -> None:
        """Change fields of ``run.json``; see `RunInfo` for their names."""
        write_info(self.folder / "run.json", self.info.updated(changes))

    def config(self, overrides: Sequence[str] = ()) -> Experiment:
        """Load the run's config.

        Args:
            overrides: ``KEY=VALUE`` pairs for commands other than training.
        """
        return configs.load(self.require("config.yaml"), get_config(self.task), overrides)

    @property
    def history(self) -> list[dict[str, float]]:
        """The metrics of each epoch."""
        path = self.folder / "history.json"
        return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []

    def write_history(self, history: Sequence[dict[str, float]]) -> None:
        """Write the metrics of each epoch."""
        write_json(self.folder / "history.json", history)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run's lock, so that one process at a time trains it.

        Raises:
            UserError: another process holds the lock.
        """
        with lock(
            self.folder / ".lock", wait=False, message=f"run {self.id} is being trained already"
        ):
            remove_unfinished(self.folder)
            yield

    def finish(self, **results: Any) -> None:
        """Mark the run as finished.

        Its time is later than that of every finished run of its task, even if the clock was set
        back in between: the latest run is then always the one that finished last.

        Args:
            results: further fields of `RunInfo`.
        """
        now = datetime.now(UTC)
        for run in self.all(self.task):
            if finished := run.info.finished:
                now = max(now, datetime.fromisoformat(finished) + timedelta(seconds=1))
        self.update(status="finished", finished=now.isoformat(timespec="seconds"), **results)

    def require(self, name: str) -> Path:
        """Return the path of a file or folder of the run.

        Raises:
            UserError: it does not exist.
        """
        path = self.folder / name
        if not path.exists():
            raise UserError(
                f"run {self.id} has no {name}: its training is {self.info.status}; "
                f"continue it with: {command('train', self.task, run=self.id)}"
            )
        return path


def other_models(task: str, model: str) -> str:
    """Return a clause that names the other models of a task; empty if there are none."""
    others = [name for name in Run.models(task) if name != model]
    if not others:
        return ""
    example = option("name", others[0])
    return f"; other models of {task}: {', '.join(others)} (choose one, e.g. {example})"
