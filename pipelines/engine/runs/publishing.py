"""Copies of SavedModels under ``exports/``, where the server finds them."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipelines.engine.core.files import (
    lock,
    new_folder,
    remove_unfinished,
    require_writable,
    write_json,
)
from pipelines.engine.core.paths import EXPORT_ORIGIN, home
from pipelines.engine.runs.origin import Origin
from pipelines.engine.runs.run import Run


def publish(run: Run) -> Path:
    """Copy a run's SavedModel to ``exports/NAME/VERSION/`` under the next version number."""
    return publish_folder(run.require("savedmodel"), Origin.of(run))


def publish_folder(source: Path, origin: Origin) -> Path:
    """Copy a SavedModel to ``exports/NAME/VERSION/`` under the next version number.

    Args:
        source: the SavedModel.
        origin: the run that it is of; the server says so too.

    Returns:
        The new folder.
    """
    root = home() / "exports" / origin.model
    require_writable(root, "the exports folder")
    with lock(root / ".lock", wait=True):
        remove_unfinished(root)
        versions = [int(p.name) for p in root.iterdir() if p.name.isdecimal()]
        target = root / str(max(versions, default=0) + 1)
        with new_folder(target) as work:
            shutil.copytree(source, work, dirs_exist_ok=True)
            write_json(work / EXPORT_ORIGIN, origin.to_dict())
    return target
