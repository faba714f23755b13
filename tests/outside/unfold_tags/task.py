"""The tagging pipeline: records, processor, model and task in one module."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipelines.engine.core.files import write_json
from pipelines.engine.core.tables import Table
from pipelines.engine.data import loading
from pipelines.engine.data.bucketing import ordered_batches
from pipelines.engine.data.ragged import PADDING, Ragged
from pipelines.engine.data.sources.rows import Row
from pipelines.engine.data.splits import Splits
from pipelines.engine.export.savedmodel import Endpoint
from pipelines.engine.models.blocks import recurrent_stack
from pipelines.engine.tasks.base import Evaluation, Prediction, Task, shorten
from pipelines.engine.text.vocabulary import RESERVED, Vocabulary, build_vocabulary, word_table
from pipelines.engine.training.loop import Objective
from pipelines.engine.training.losses import next_token
from unfold_tags.config import TagsConfig


@dataclass(frozen=True)
class Sentence:
    """A record: words and tags, each joined by single spaces, and its place for messages."""

    text: str
    tags: str
    place: str


class Words(Vocabulary):
    """Words between spaces to ids."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        super().__init__(vocabulary)
        self._table = word_table(self.vocabulary)

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        words = tf.strings.split(texts)
        return words.with_values(self._table.lookup(words.values))


class WordTags:
    """The processor: words to ids, and tags to ids from 1 on (0 is padding)."""

    def __init__(self, words: Words, tags: Sequence[str]) -> None:
        self.words, self.tags = words, list(tags)

    def encode(self, sentences: Sequence[Sentence]) -> tuple[Ragged, Ragged]:
        ids = self.words.encode([s.text for s in sentences])
        number = {tag: i for i, tag in enumerate(self.tags, 1)}
        # A tag that training has not seen cannot be predicted: it counts as padding.
        tags = [number.get(tag, PADDING) for s in sentences for tag in s.tags.split()]
        return ids, Ragged(np.array(tags, np.int32), ids.lengths)

    def resources(self) -> list[tf.Module]:
        return [self.words]

    def save(self, folder: Path) -> None:
        self.words.save(folder)
        write_json(folder / "tags.json", self.tags)

    @classmethod
    def load(cls, folder: Path) -> WordTags:
        tags = json.loads((folder / "tags.json").read_text(encoding="utf-8"))
        return cls(Words(Words.read_vocabulary(folder)), tags)


class Tags(Task):
    """A tag for each word of a sentence."""

    name = "tags"
    config = TagsConfig
    processor = WordTags

    def load(self, config: TagsConfig) -> Splits:
        data = config.data

        def parse(row: Row) -> Sentence | str:
            words, tags = (str(row.fields[name]).split() for name in (data.text, data.tags))
            if not words:
                return "no words"
            if len(words) != len(tags):
                return f"{len(words)} words, but {len(tags)} tags"
            return Sentence(" ".join(words), " ".join(tags), row.place)

        spec = loading.RecordSpec[Sentence](
            columns=[data.text, data.tags],
            parse=parse,
            content=lambda sentence: (sentence.text, sentence.tags),
            key=lambda sentence: sentence.text,
        )
        return loading.load(data, spec, seed=config.seed)

    def fit_processor(self, config: TagsConfig, splits: Splits) -> WordTags:
        words = build_vocabulary(
            [s.text for s in splits.train],
            tf.strings.split,
            size=config.text.vocabulary - RESERVED,
            min_count=config.text.min_count,
        )
        return WordTags(Words(words), sorted({t for s in splits.train for t in s.tags.split()}))

    def build(self, config: TagsConfig, processor: WordTags) -> keras.Model:
        ids = keras.Input((None,), dtype="int32", name="ids")
        x = keras.layers.Embedding(processor.words.size, config.model.embedding)(ids)
        mask = keras.ops.not_equal(ids, PADDING)
        hidden, _ = recurrent_stack(config.model, x, mask, seed=config.seed)
        logits = keras.layers.Dense(1 + len(processor.tags), dtype="float32", name="V")(hidden)
        return keras.Model(ids, logits, name="tags")

    def objective(self, config: TagsConfig, processor: Any) -> Objective:
        return next_token()  # the mean cross-entropy of the targets that are not padding

    def encode(self, processor: WordTags, records: Sequence[Sentence]) -> tuple[Ragged, Ragged]:
        return processor.encode(records)

    def endpoints(
        self, config: TagsConfig, processor: WordTags, model: keras.Model
    ) -> dict[str, Endpoint]:
        names = tf.constant(processor.tags)

        def tag(text: tf.Tensor) -> dict[str, tf.Tensor]:
            ids = processor.words.padded(text)
            best = tf.argmax(model(ids, training=False)[:, :, 1:], axis=-1)
            return {"tags": tf.where(ids != PADDING, tf.gather(names, best), "")}

        text = tf.TensorSpec([None], tf.string, name="text")
        return {"serving_default": Endpoint(tag, {"text": text})}

    def request(
        self, config: TagsConfig, examples: Sequence[Sentence | str]
    ) -> dict[str, tf.Tensor]:
        return {"text": tf.constant([e if isinstance(e, str) else e.text for e in examples])}

    def present(
        self, config: TagsConfig, example: str, answer: dict[str, Any], served: Any
    ) -> Prediction:
        words = example.split()
        tags = [tag.decode() for tag in answer["tags"]][: len(words)]
        return Prediction(
            title=shorten(example),
            columns=["word", "tag"],
            rows=[list(pair) for pair in zip(words, tags, strict=True)],
            json={"text": example, "tags": tags},
        )

    def evaluate(
        self, config: TagsConfig, processor: WordTags, model: keras.Model, served: Any,
        splits: Splits,
    ) -> Evaluation:  # fmt: skip
        correct, total = np.zeros(1 + len(processor.tags)), np.zeros(1 + len(processor.tags))
        for ids, targets in ordered_batches(config.train, *processor.encode(splits.test)):
            truth = targets.numpy()
            best = 1 + np.argmax(model.predict_on_batch(ids.numpy())[:, :, 1:], axis=-1)
            np.add.at(total, truth[truth != PADDING], 1)
            np.add.at(correct, truth[(truth != PADDING) & (truth == best)], 1)
        rows = [list(row) for row in zip(processor.tags, correct[1:], total[1:], strict=True)]
        return Evaluation(
            scores={"accuracy": float(correct.sum() / total.sum())},
            figures={},
            tables={"tags": Table(["tag", "correct", "words"], rows)},
        )


TASK = Tags()
