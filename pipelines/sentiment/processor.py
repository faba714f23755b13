"""What sentiment learns from the training split before the model: words and classes."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import write_json
from pipelines.engine.data.ragged import Ragged
from pipelines.engine.text.vocabulary import RESERVED, build_vocabulary
from pipelines.engine.text.words import Tokenizer, split_words
from pipelines.sentiment.config import SentimentTextConfig


class TextClasses:
    """Texts to ids and labels to class numbers, for training and serving alike."""

    def __init__(
        self, config: SentimentTextConfig, vocabulary: Sequence[str], labels: Sequence[str]
    ) -> None:
        self.config = config
        self.labels = list(labels)
        self.tokenizer = Tokenizer(
            vocabulary,
            lowercase=config.lowercase,
            max_tokens=config.max_tokens,
            keep=config.keep,
        )
        self._number = {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def fit(
        cls, config: SentimentTextConfig, texts: Collection[str], labels: Sequence[str]
    ) -> TextClasses:
        vocabulary = build_vocabulary(
            texts,
            functools.partial(split_words, lowercase=config.lowercase),
            size=config.vocabulary - RESERVED,
            min_count=config.min_count,
        )
        return cls(config, vocabulary, labels)

    def encode(self, texts: Collection[str]) -> Ragged:
        return self.tokenizer.encode(texts)

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
        write_json(folder / "text.json", self.config.model_dump() | {"labels": self.labels})

    @classmethod
    def load(cls, folder: Path) -> TextClasses:
        saved = json.loads((folder / "text.json").read_text(encoding="utf-8"))
        labels = saved.pop("labels")
        return cls(SentimentTextConfig(**saved), Tokenizer.read_vocabulary(folder), labels)
