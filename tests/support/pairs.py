"""A small table of translations, and the settings of a model that learns it in seconds."""

from __future__ import annotations

import random
from pathlib import Path

WORDS = {
    "dog": "Hund", "cat": "Katze", "bird": "Vogel", "horse": "Pferd", "fish": "Fisch",
    "mouse": "Maus", "duck": "Ente", "cow": "Kuh", "fox": "Fuchs", "hare": "Hase",
}  # fmt: skip
VERBS = {
    "sleeps": "schläft", "runs": "läuft", "eats": "isst", "sings": "singt", "waits": "wartet",
    "jumps": "springt",
}  # fmt: skip
KINDS = {
    "big": "große", "small": "kleine", "old": "alte", "young": "junge", "brown": "braune",
    "tired": "müde", "fast": "schnelle",
}  # fmt: skip

#: A model that a test trains in seconds.
SMALL = [
    "model.level=word", "text.vocabulary=60", "model.encoder.cell=gru", "model.decoder.cell=gru",
    "model.encoder.units=[32]", "model.encoder.embedding=32", "model.encoder.dropout=0",
    "model.decoder.units=[32, 32]", "model.decoder.embedding=32", "model.decoder.dropout=0",
    "train.epochs=12", "train.learning_rate=0.01", "train.batch_size=8", "train.patience=null",
    "train.label_smoothing=0", "train.health=0", "decoding.max_length=20",
    "data.validation=0.1", "data.test=0.1",
]  # fmt: skip


def small(source: str, *more: str) -> list[str]:
    pairs = [f"data.source={source}", *SMALL, *more]
    return [
        *["--config", "configs/translation/multi30k-en-de.yaml"],
        *[argument for pair in pairs for argument in ("--set", pair)],
    ]


def write_pairs(folder: Path) -> str:
    """Two aligned files, the verb last in one and second in the other."""
    every = [(k, w, v) for k in KINDS for w in WORDS for v in VERBS]
    random.Random(0).shuffle(every)
    sides = (
        [f"Here the {k} {w} {v}." for k, w, v in every],
        [f"Hier {VERBS[v]} das {KINDS[k]} Tier, {WORDS[w]}." for k, w, v in every],
    )
    for name, lines in zip(("en", "de"), sides, strict=True):
        (folder / f"pairs.{name}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / "pairs.{en,de}")
