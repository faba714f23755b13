"""Copies of SavedModels under ``exports/``, where the server finds them."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipelines.engine.core.files import lock, new_folder, remove_unfinished, require_writable
from pipelines.engine.core.paths import home
from pipelines.engine.runs.run import Run


def publish(run: Run) -> Path:
    """Copy a run's SavedModel to ``exports/TASK/VERSION/`` under the next version number."""
    return publish_folder(run.task, run.require("savedmodel"))


def publish_folder(task: str, source: Path) -> Path:
    """Copy a SavedModel to ``exports/TASK/VERSION/`` under the next version number.

    Returns:
        The new folder.
    """
    root = home() / "exports" / task
    require_writable(root, "the exports folder")
    with lock(root / ".lock", wait=True):
        remove_unfinished(root)
        versions = [int(p.name) for p in root.iterdir() if p.name.isdecimal()]
        target = root / str(max(versions, default=0) + 1)
        with new_folder(target) as work:
            shutil.copytree(source, work, dirs_exist_ok=True)
    return target
