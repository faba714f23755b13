"""Trains each pipeline's model on one batch, on the backend that Keras uses.

    python one_batch.py FOLDER < CASES

CASES is a JSON list of ``[name, task, config file, overrides]``. The weights are saved to
``FOLDER/NAME.keras``; the loss before and after, and the routes, are printed as JSON. One process
for all of them: starting JAX takes longer than a case.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from pipelines.engine.config import loader as configs
from pipelines.engine.core.console import Console
from pipelines.engine.data.splits import Splits
from pipelines.engine.tasks.base import Task
from pipelines.engine.tasks.catalog import get_config, get_task
from pipelines.engine.training import loop

EPOCHS = 3


@dataclass
class OneBatch:
    """The first batch of another feed, to train on and to validate with."""

    batches: tf.data.Dataset
    steps: int = 1
    tokens: int = 1
    padded_tokens: int = 1

    def train(self, epoch: int) -> tf.data.Dataset:
        return self.batches

    def validation(self) -> tf.data.Dataset:
        return self.batches


@dataclass
class Case:
    """A pipeline with a model of first weights, and a batch."""

    task: Task
    config: Any
    splits: Splits
    processor: Any
    model: keras.Model
    feed: OneBatch


def prepare(name: str, file: str, overrides: list[str]) -> Case:
    config = configs.load(Path(file), get_config(name), overrides)
    task = get_task(name)
    splits = task.load(config)
    processor = task.fit_processor(config, splits)
    keras.utils.set_random_seed(1)
    model = task.build(config, processor)
    feed = OneBatch(task.feed(config, processor, splits).train(1).take(1))
    return Case(task, config, splits, processor, model, feed)


def train(file: Path, case: Case) -> list[float]:
    """Save the trained model to ``file``; return the loss after each epoch."""
    keys = case.config.train.model_copy(update={"epochs": EPOCHS, "health": 0, "patience": None})
    with tempfile.TemporaryDirectory() as checkpoints:
        state = loop.fit(
            case.model, case.feed, case.task.objective(case.config, case.processor), keys,
            folder=Path(checkpoints), console=Console(silent=True),
        )  # fmt: skip
    case.model.save(file)
    return [record["val_loss"] for record in state.history]


if __name__ == "__main__":
    target = Path(sys.argv[1])
    losses = {
        name: train(target / f"{name}.keras", prepare(*case))
        for name, *case in json.load(sys.stdin)
    }
    print(json.dumps({"backend": keras.backend.backend(), "losses": losses}))
