"""The training and validation data of a language model."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from pipelines.engine.data import disk
from pipelines.engine.data.splits import Splits
from pipelines.engine.data.token_streams import TokenStreams
from pipelines.engine.text.tokenizer import END, DocumentTokenizer
from pipelines.generation.config import GenerationConfig


class StreamFeed:
    """Training and validation windows of parallel streams: ``({ids, fresh}, next ids)``.

    Attributes:
        steps: Windows in an epoch.
        tokens: Tokens in an epoch.
        padded_tokens: Tokens in an epoch, padding included.
    """

    def __init__(
        self, config: GenerationConfig, processor: DocumentTokenizer, splits: Splits
    ) -> None:
        self._seed = config.seed
        train, validation = (
            TokenStreams(
                processor.encode(disk.map_records(lambda d: d.text, documents)),
                rows=config.train.batch_size,
                window=config.train.window,
                end=END,
            )
            for documents in (splits.train, splits.validation)
        )
        self._train, self._validation = train, validation
        self.steps, self.tokens = train.windows, train.tokens
        self.padded_tokens = train.padded_tokens

    def train(self, epoch: int) -> tf.data.Dataset:
        return self._train.arrange(np.random.default_rng([self._seed, epoch])).dataset()

    def validation(self) -> tf.data.Dataset:
        return self._validation.arrange().dataset()
