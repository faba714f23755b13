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
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines import config as configs
from pipelines.config import Experiment
from pipelines.errors import UserError
from pipelines.files import lock, require_writable, write_json, write_text

#: The folder that runs, exports and the MLflow store are kept in; the working directory if unset.
HOME_SETTING = "UNFOLD_HOME"

_PACKAGES = ("unfold", "keras", "tensorflow-cpu", "tensorflow", "jax", "numpy", "mlflow")


def home() -> Path:
    return Path(os.environ.get(HOME_SETTING, ".")).expanduser().resolve()


class Run:
    """One training and its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name
        self.task = folder.parent.name

    @classmethod
    def create(cls, config: Experiment) -> Run:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        root = home() / "runs" / config.task
        require_writable(root, "the runs folder")
        run = cls(root / f"{stamp}-{config.name}-{secrets.token_hex(2)}")
        run.folder.mkdir()
        write_text(run.folder / "config.yaml", configs.dump(config))
        run.update(
            status="running",
            config_name=config.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            git_commit=_git_commit(),
            versions=_versions(),
            machine=f"{platform.machine()}, {os.cpu_count()} cores",
        )
        return run

    @classmethod
    def find(cls, task: str, wanted: str | None, config_name: str | None = None) -> Run:
        """The run with this id, or a part of it that only one has; the latest finished if none.

        ``config_name`` narrows the latest to the runs of configs with that name.
        """
        runs = sorted(cls._all(task), key=lambda run: run.id)
        if wanted is None:
            finished = [
                run
                for run in runs
                if run.info.get("status") == "finished"
                and config_name in (None, run.info["config_name"])
            ]
            if not finished:
                of = f" of the config named {config_name!r}" if config_name else ""
                raise UserError(f"no finished {task} run{of} yet: make train-{task}")
            return max(finished, key=lambda run: (run.info.get("finished", ""), run.id))
        hits = [run for run in runs if run.id == wanted]
        hits = hits or [run for run in runs if wanted and wanted in run.id]
        hits = hits or [run for run in runs if run.info.get("mlflow", {}).get("run_id") == wanted]
        if len(hits) == 1:
            return hits[0]
        which = ", ".join(run.id for run in (hits or runs[-5:])) or "none"
        problem = "names several runs" if hits else "no such run"
        raise UserError(
            f"run {wanted}: {problem}; {'they are' if hits else 'the latest are'}: {which}"
        )

    @classmethod
    def _all(cls, task: str) -> list[Run]:
        return [cls(p.parent) for p in (home() / "runs" / task).glob("*/run.json")]

    @property
    def info(self) -> dict[str, Any]:
        path = self.folder / "run.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def update(self, **changes: Any) -> None:
        write_json(self.folder / "run.json", self.info | changes)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Train this run in one process at a time."""
        with lock(
            self.folder / ".lock", wait=False, message=f"run {self.id} is being trained already"
        ):
            yield

    def need(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            status = self.info.get("status", "unknown")
            raise UserError(
                f"run {self.id} has no {name}: its training is {status}; "
                f"continue it with: unfold train {self.task} --resume {self.id}"
            )
        return path


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
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
