"""What sentiment learns from the training split before the model: words and classes."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import write_json
from pipelines.engine.data import disk
from pipelines.engine.data.ragged import Ragged
from pipelines.engine.text.vocabulary import RESERVED, build_vocabulary
from pipelines.engine.text.words import Tokenizer, split_words
from pipelines.sentiment.config import SentimentTextConfig
from pipelines.sentiment.records import Record


class TextClasses:
    """Texts to ids and labels to class numbers, for training and serving alike.

    Attributes:
        labels: The classes, in the order of their numbers.
        multi_label: Whether a text may have any number of them.
        class_weights: How much a training text of each class counts; None if all count alike.
    """

    def __init__(
        self,
        config: SentimentTextConfig,
        vocabulary: Sequence[str],
        labels: Sequence[str],
        class_weights: Sequence[float] | None = None,
        multi_label: bool = False,
    ) -> None:
        self.config = config
        self.labels = list(labels)
        self.multi_label = multi_label
        self.class_weights = None if class_weights is None else list(class_weights)
        self.tokenizer = Tokenizer(
            vocabulary,
            lowercase=config.lowercase,
            max_tokens=config.max_tokens,
            keep=config.keep,
        )
        self._number = {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def fit(
        cls,
        config: SentimentTextConfig,
        texts: Collection[str],
        labels: Sequence[str],
        class_weights: Sequence[float] | None = None,
        multi_label: bool = False,
    ) -> TextClasses:
        vocabulary = build_vocabulary(
            texts,
            functools.partial(split_words, lowercase=config.lowercase),
            size=config.vocabulary - RESERVED,
            min_count=config.min_count,
        )
        return cls(config, vocabulary, labels, class_weights, multi_label)

    def encode(self, texts: Collection[str]) -> Ragged:
        return self.tokenizer.encode(texts)

    def targets(self, records: Sequence[Record]) -> np.ndarray | Ragged:
        """Return the number of each record's class, or those of its labels, counted from 1."""
        if not self.multi_label:
            return self.numbers(disk.map_records(lambda r: r.label, records))
        found = [self.numbers(r.labels) + 1 for r in records]  # 0 is padding
        lengths = np.array([len(numbers) for numbers in found], np.int64)
        return Ragged(np.concatenate([np.zeros(0, np.int32), *found]), lengths)

    def numbers(self, labels: Collection[str]) -> np.ndarray:
        if unknown := sorted(set(labels) - set(self.labels)):
            raise UserError(
                f"the model was not trained on the label {unknown[0]!r}; "
                f"it knows: {', '.join(self.labels)}"
            )
        return np.fromiter((self._number[label] for label in labels), np.int32, len(labels))

    def resources(self) -> list[tf.Module]:
        return [self.tokenizer]

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder)
        saved = self.config.model_dump() | {"labels": self.labels}
        if self.class_weights is not None:
            saved["class_weights"] = self.class_weights
        if self.multi_label:
            saved["multi_label"] = True
        write_json(folder / "text.json", saved)

    @classmethod
    def load(cls, folder: Path) -> TextClasses:
        saved = json.loads((folder / "text.json").read_text(encoding="utf-8"))
        labels = saved.pop("labels")
        more = {name: saved.pop(name) for name in ("class_weights", "multi_label") if name in saved}
        return cls(SentimentTextConfig(**saved), Tokenizer.read_vocabulary(folder), labels, **more)


def weigh_classes(
    wanted: Literal["balanced"] | Mapping[str, float] | None,
    labels: Sequence[str],
    counts: Counter[str],
) -> list[float] | None:
    """Return the weight of each class for ``train.class_weights``; None if there are none.

    Args:
        wanted: The key of the config.
        labels: The classes, in the order of their numbers.
        counts: Training texts of each class.

    Raises:
        UserError: A weight is for a class that does not occur.
    """
    if wanted is None:
        return None
    if wanted == "balanced":
        return [counts.total() / (len(labels) * counts[label]) for label in labels]
    if unknown := sorted(set(wanted) - set(labels)):
        raise UserError(
            f"train.class_weights: no training text has the class {unknown[0]!r}; "
            f"there are: {', '.join(labels)}"
        )
    return [wanted.get(label, 1.0) for label in labels]
