"""A run is a folder that holds all there is to know about one training.

``runs/TASK/ID/`` with ``run.json`` (status, versions, data fingerprint, scores), ``config.yaml``
(resolved; it reproduces the run), ``processor/`` (vocabulary, labels), checkpoints,
``model.keras``, ``figures/``, ``tables/`` and ``savedmodel/``. MLflow is told the same; where it
cannot be reached, nothing is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import (
    lock,
    new_folder,
    remove_unfinished,
    require_writable,
    write_json,
    write_text,
)
from pipelines.engine.core.paths import home
from pipelines.engine.runs.info import SCHEMA, GroupMembership, RunInfo, read_info, write_info
from pipelines.engine.tasks.base import Processor
from pipelines.engine.tasks.catalog import get_config

_PACKAGES = ("unfold-rnn", "keras", "tensorflow-cpu", "tensorflow", "jax", "numpy", "mlflow")


def runs_folder(task: str) -> Path:
    return home() / "runs" / task


@dataclass(frozen=True)
class GroupMember:
    """A training that is one of a group: a variant of a comparison, or a trial of a sweep.

    Attributes:
        group: the group's name, which is its folder under `home`.
        key: which of the group it is.
        trial: it is trained and validated only: no test score, no export.
        after_epoch: called with where training stands; may raise to end it.
    """

    group: str
    key: str
    trial: bool
    after_epoch: Callable[[dict[str, Any]], None]

    def membership(self) -> GroupMembership:
        """Return what the run's ``run.json`` says about its group."""
        return GroupMembership(name=self.group, key=self.key)


class Run:
    """One training and its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name
        self.task = folder.parent.name

    @classmethod
    def create(cls, config: Experiment, processor: Processor, **info: Any) -> Run:
        """A new run with all that training starts from. Its folder appears whole."""
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
                created=now.isoformat(timespec="seconds"),
                git_commit=_git_commit(),
                versions=_versions(),
                machine=f"{platform.machine()}, {os.cpu_count()} cores",
                **info,
            )
        return cls(folder)

    @classmethod
    def find(cls, task: str, wanted: str | None, config_name: str | None = None) -> Run:
        """The run with this id, or a part of it that only one has; the latest finished if none.

        Runs of a comparison or a sweep are never the latest. ``config_name`` narrows the latest to
        the runs of configs with that name.
        """
        runs = sorted(cls.all(task), key=lambda run: run.id)
        if wanted is None:
            finished = [
                run
                for run in runs
                if (info := run.info).status == "finished"
                and info.group is None
                and config_name in (None, info.config_name)
            ]
            if not finished:
                of = f" of the config named {config_name!r}" if config_name else ""
                raise UserError(f"no finished {task} run{of} yet: make train-{task}")
            return max(finished, key=lambda run: (run.info.finished or "", run.id))
        hits = [run for run in runs if run.id == wanted]
        hits = hits or [run for run in runs if wanted and wanted in run.id]
        hits = hits or [run for run in runs if run.info.mlflow.run_id == wanted]
        if len(hits) == 1:
            return hits[0]
        which = ", ".join(run.id for run in (hits or runs[-5:])) or "none"
        problem = "names several runs" if hits else "no such run"
        raise UserError(
            f"run {wanted}: {problem}; {'they are' if hits else 'the latest are'}: {which}"
        )

    @classmethod
    def all(cls, task: str) -> list[Run]:
        # A name with a dot is one that had not appeared yet when its process was killed.
        return [cls(p.parent) for p in runs_folder(task).glob("[!.]*/run.json")]

    @property
    def info(self) -> RunInfo:
        """What ``run.json`` says now."""
        return read_info(self.folder / "run.json")

    def update(self, **changes: Any) -> None:
        """Change fields of ``run.json``; see `RunInfo` for their names."""
        write_info(self.folder / "run.json", self.info.updated(changes))

    def config(self, overrides: Sequence[str] = ()) -> Experiment:
        """The config of the run, with ``overrides`` for commands other than training."""
        return configs.load(self.need("config.yaml"), get_config(self.task), overrides)

    @property
    def history(self) -> list[dict[str, float]]:
        """What was measured after each epoch."""
        path = self.folder / "history.json"
        return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []

    def write_history(self, history: Sequence[dict[str, float]]) -> None:
        write_json(self.folder / "history.json", history)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Train this run in one process at a time."""
        with lock(
            self.folder / ".lock", wait=False, message=f"run {self.id} is being trained already"
        ):
            remove_unfinished(self.folder)
            yield

    def finish(self, **results: Any) -> None:
        """Note the results, and that the run is finished: later than all runs of its task before,
        also where the clock was set back in between."""
        now = datetime.now(UTC)
        for run in self.all(self.task):
            if finished := run.info.finished:
                now = max(now, datetime.fromisoformat(finished) + timedelta(seconds=1))
        self.update(status="finished", finished=now.isoformat(timespec="seconds"), **results)

    @contextlib.contextmanager
    def understood(self) -> Iterator[None]:
        """Work with the run's model, which another version of this project may have made: what is
        then raised because its parts are not those of today is told as the user's to solve."""
        try:
            yield
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            info = self.info
            if (info.git_commit, info.versions) == (_git_commit(), _versions()):
                raise
            commit = f" at commit {info.git_commit[:8]}" if info.git_commit else ""
            reason = str(error).strip().partition("\n")[0][:200]
            raise UserError(
                f"run {self.id} was made by another version{commit}, and this one does not "
                f"understand its model ({type(error).__name__}: {reason}); "
                f"train it again: make train-{self.task}"
            ) from error

    def need(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise UserError(
                f"run {self.id} has no {name}: its training is {self.info.status}; "
                f"continue it with: unfold train {self.task} --resume {self.id}"
            )
        return path


def publish(run: Run) -> Path:
    """Copy a run's SavedModel to ``exports/TASK/VERSION/`` with the next version number."""
    return publish_folder(run.task, run.need("savedmodel"))


def publish_folder(task: str, source: Path) -> Path:
    """`publish` for a SavedModel that is not of a run kept here."""
    root = home() / "exports" / task
    require_writable(root, "the exports folder")
    with lock(root / ".lock", wait=True):
        remove_unfinished(root)
        taken = [int(p.name) for p in root.iterdir() if p.name.isdecimal()]
        target = root / str(max(taken, default=0) + 1)
        with new_folder(target) as work:
            shutil.copytree(source, work, dirs_exist_ok=True)
    return target


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _git_commit() -> str | None:
    """The commit of this project, with ``+`` if the tree had changes; none outside a checkout."""
    here = Path(__file__).parent

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # not the repository of somebody's .venv
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
