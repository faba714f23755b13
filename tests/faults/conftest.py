"""The undisturbed trainings that those disturbed are compared with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def reviews(trained_once) -> Path:
    return Path(trained_once("sentiment").source)


@pytest.fixture(scope="module")
def whole(trained_once) -> tuple[Path, dict, float]:
    """A home with an undisturbed run, what its training printed, and its seconds."""
    found = trained_once("sentiment")
    seconds = json.loads((found.folder / "run.json").read_text())["total_seconds"]
    return found.home, found.result, seconds
