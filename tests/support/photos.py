"""A small table of pictures, and the settings of a model that learns it in seconds."""

from __future__ import annotations

import csv
import itertools
import random
from pathlib import Path

from tests.support.pictures import COLOURS, SHAPES, encoded, shape

#: A model that a test trains in seconds.
SMALL = [
    "text.vocabulary=60", "text.min_count=1", "data.caption=caption",
    "model.encoder.size=64", "model.encoder.features=32", "model.encoder.dropout=0",
    "model.decoder.cell=gru", "model.decoder.units=[32]", "model.decoder.embedding=32",
    "model.decoder.dropout=0", "train.epochs=12", "train.learning_rate=0.01",
    "train.batch_size=16", "train.buckets=2", "train.patience=null",
    "train.label_smoothing=0", "train.health=0",
    "decoding.beam_width=3", "decoding.max_length=12", "data.validation=0.1", "data.test=0.1",
]  # fmt: skip


def small(source: str, *more: str) -> list[str]:
    pairs = [f"data.source={source}", *SMALL, *more]
    return [
        *["--config", "configs/captioning/flickr8k.yaml"],
        *[argument for pair in pairs for argument in ("--set", pair)],
    ]


def write_pictures(folder: Path) -> Path:
    """A table beside a folder of pictures: two captions each, and three rows that are no use."""
    (folder / "pictures").mkdir()
    rows = []
    for i, (colour, kind, shift) in enumerate(itertools.product(COLOURS, SHAPES, range(-5, 6))):
        name = f"pictures/{i}.{'jpg' if i % 2 else 'png'}"
        picture = shape(colour, kind, shift=shift)
        (folder / name).write_bytes(encoded(picture, "JPEG" if i % 2 else "PNG"))
        rows += [[name, f"A {colour} {kind} ."], [name, f"Here is a {colour} {kind} ."]]
    random.Random(0).shuffle(rows)
    (folder / "pictures/text.jpg").write_text("no picture")
    rows += [["pictures/text.jpg", "A text ."], ["pictures/gone.jpg", "Nothing ."]]
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "caption"], *rows])
    return folder
