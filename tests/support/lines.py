"""A small corpus of sentences, and the settings of a model that learns it in seconds."""

from __future__ import annotations

import json
import random
from pathlib import Path

SUBJECTS = ["The sun", "The moon", "A star"]
PLACES = [" east", "west", "night"]

#: A model that a test trains in seconds.
SMALL = [
    "model.units=[24]", "model.embedding=12", "train.epochs=4", "train.learning_rate=0.02",
    "train.batch_size=8", "train.window=20", "train.patience=null",
    "sampling.max_length=30", "sampling.count=3", 'sampling.prompts=["The sun", ""]',
]  # fmt: skip


def small(source: Path, *more: str) -> list[str]:
    pairs = [f"data.source={source}", *SMALL, *more]
    return [
        *["--config", "configs/generation/shakespeare.yaml"],
        *[argument for pair in pairs for argument in ("--set", pair)],
        *["--set", "data.validation=0.1", "--set", "data.test=0.1", "--set", "model.dropout=0.1"],
    ]


def write_lines(folder: Path) -> Path:
    """Where something rises is told by what it is."""
    rng = random.Random(0)
    file = folder / "lines.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for i in range(400):
            n = rng.randrange(3)
            out.write(json.dumps({"text": f"{SUBJECTS[n]} rises in the {PLACES[n]}, {i}."}) + "\n")
    return file
