"""What translation learns from the training split before the model: two vocabularies."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import tensorflow as tf

from pipelines.engine.config.schema import TokenLevel
from pipelines.engine.data import disk
from pipelines.engine.data.ragged import Ragged, encode_texts
from pipelines.engine.text.tokenizer import END, END_MARK, DocumentTokenizer
from pipelines.translation.config import TranslationTextConfig


class Pairs:
    """Both sides as ids.

    Args:
        input, output: texts to ids, and back.
    """

    def __init__(self, input: DocumentTokenizer, output: DocumentTokenizer) -> None:
        self.input, self.output = input, output

    @classmethod
    def fit(
        cls,
        config: TranslationTextConfig,
        level: TokenLevel,
        inputs: Collection[str],
        outputs: Collection[str],
    ) -> Pairs:
        if config.shared:
            both = DocumentTokenizer.fit(disk.map_records(str, inputs, outputs), config, level)
            return cls(both, both)
        return cls(*(DocumentTokenizer.fit(texts, config, level) for texts in (inputs, outputs)))

    def read(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """What the encoder reads, ``RaggedTensor <int32>[batch, (steps)]``: the end mark too."""
        return _ended(self.input(_tidy(texts)), END)

    def words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """The words of what `read` gives the ids of, at level word; the end has no letters."""
        return _ended(self.input.words(_tidy(texts)), END_MARK)

    def encode(
        self, inputs: Collection[str], outputs: Collection[str]
    ) -> tuple[dict[str, Ragged], Ragged]:
        """What is read, what is written and, token by token, what is to be written next."""
        text = self.output.encode(outputs)
        read = encode_texts(inputs, self.read)
        return {"read": read, "written": text.with_prefix(END)}, text.with_suffix(END)

    def resources(self) -> list[tf.Module]:
        return [self.input, self.output]

    def save(self, folder: Path) -> None:
        self.input.save(folder / "input")
        self.output.save(folder / "output")

    @classmethod
    def load(cls, folder: Path) -> Pairs:
        return cls(
            DocumentTokenizer.load(folder / "input"), DocumentTokenizer.load(folder / "output")
        )


def _tidy(texts: tf.Tensor) -> tf.Tensor:
    """Runs of white space count as one space, as in the records."""
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    return tf.strings.strip(tf.strings.regex_replace(texts, r"[\s\p{Z}\p{Cc}]+", " "))


def _ended(rows: tf.RaggedTensor, mark: int | str) -> tf.RaggedTensor:
    return tf.concat([rows, tf.fill([rows.nrows(), 1], mark)], axis=1)
