"""A small table of reviews, and the settings of a model that learns it in seconds."""

from __future__ import annotations

import csv
import random
from pathlib import Path

GOOD = ["wonderful", "brilliant", "touching", "funny", "superb", "delightful"]
BAD = ["dull", "awful", "tedious", "boring", "terrible", "lifeless"]
PLAIN = ["the", "film", "a", "plot", "and", "acting", "is", "of", "it", "scene", "was", "in"]

#: A model that a test trains in seconds.
SMALL = [
    "data.where={}", "data.labels=null", "data.validation=0.15", "data.test=0.15",
    "text.vocabulary=200", "text.max_tokens=30", "model.embedding=8", "model.units=[6]",
    "model.token_dropout=0.05", "train.epochs=4", "train.learning_rate=0.02", "train.buckets=3",
    "train.batch_size=16",
]  # fmt: skip


def write_reviews(path: Path, rows: int = 400, seed: int = 0) -> Path:
    """Texts of which a few words tell the class, at any place."""
    rng = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(rows):
            label = i % 2
            words = rng.choices(PLAIN, k=rng.randint(3, 30)) + rng.choices([BAD, GOOD][label], k=2)
            rng.shuffle(words)
            writer.writerow([" ".join(words) + f" {i}.", ["negative", "positive"][label]])
    return path


def small(source: Path, *more: str) -> list[str]:
    pairs = [f"data.source={source}", *SMALL, *more]
    return [argument for pair in pairs for argument in ("--set", pair)]
