"""One trained run of each pipeline, made once for all tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.engine.core.files import lock
from tests.support import lines, pairs, photos, prices, reviews
from tests.support.commands import ok, unfold
from tests.support.kept import kept

TASKS = ("sentiment", "captioning", "translation", "forecasting", "generation")


@dataclass(frozen=True)
class Trained:
    """A home with one finished run.

    Attributes:
        home: what ``UNFOLD_HOME`` was. It is shared: tests that write to it take a `copy`.
        result: what ``train --json`` printed.
        source: the data.
        arguments: the options of the training.
        messages: what the training wrote to standard error.
    """

    task: str
    home: Path
    result: dict[str, Any]
    source: str
    arguments: list[str]
    messages: str

    @property
    def folder(self) -> Path:
        return Path(self.result["folder"])

    def copy(self, home: Path) -> Path:
        """Copy the home, so that a test can change it."""
        shutil.copytree(self.home, home, dirs_exist_ok=True)
        return home


def arguments_of(task: str, data: Path) -> tuple[str, list[str]]:
    """Write the data of a task, and return its source and the options of a small training."""
    if task == "sentiment":
        source = str(reviews.write_reviews(data / "reviews.csv"))
        return source, reviews.small(Path(source))
    if task == "captioning":
        source = str(photos.write_pictures(data) / "captions.csv")
        return source, photos.small(source)
    if task == "translation":
        source = pairs.write_pairs(data)
        return source, pairs.small(source)
    if task == "generation":
        file = lines.write_lines(data)
        return str(file), lines.small(file, "model.level=word", "text.min_count=5")
    source = prices.write_prices(data)
    return source, ["--config", str(prices.fresh(data)), *prices.small(source)]


def train_once(task: str) -> Trained:
    """Train a pipeline's small model, unless a test of this session or an earlier one has."""
    root = kept() / "trained"
    root.mkdir(exist_ok=True)
    folder = root / task
    note = folder / "trained.json"
    with lock(root / f"{task}.lock", wait=True):
        if not note.exists():
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "data").mkdir(parents=True)
            home = folder / "home"
            source, arguments = arguments_of(task, folder / "data")
            done = unfold(home, "train", task, "--json", *arguments)
            found = [task, str(home), ok(done), source, arguments, done.stderr]
            note.write_text(json.dumps(found), encoding="utf-8")
    _, home, *rest = json.loads(note.read_text(encoding="utf-8"))
    return Trained(task, Path(home), *rest)


TrainOnce = Callable[[str], Trained]
