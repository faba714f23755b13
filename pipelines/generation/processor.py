"""What generation learns from the training split before the model: characters or words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tensorflow as tf

from pipelines.files import write_json
from pipelines.generation.config import TextConfig
from pipelines.text import RESERVED, Vocabulary, build_vocabulary, lower

#: The first entry of the vocabulary: the end of a document, and before its first token the
#: beginning. No text holds it, and joined to one it adds nothing.
END_MARK = ""
END = RESERVED
#: Put between words while a text is divided: for private use, and taken out of texts.
_BOUNDARY = "\ue000"


class Documents(Vocabulary):
    """Texts to ids and back.

    A word has the space before it with it, so that joining words gives the text back: a word
    without one is glued to what is before it. Runs of white space become one space or line end.

    Args:
        config: how texts are divided.
        level: into characters, or words and line ends.
    """

    def __init__(
        self, config: TextConfig, level: Literal["character", "word"], vocabulary: Sequence[str]
    ) -> None:
        super().__init__(vocabulary)
        self.config, self.level = config, level

    @classmethod
    def fit(
        cls, config: TextConfig, level: Literal["character", "word"], texts: Sequence[str]
    ) -> Documents:
        splitter = cls(config, level, [END_MARK])
        words = build_vocabulary(
            texts,
            splitter.words,
            size=config.vocabulary - RESERVED - 1,
            min_count=config.min_count,
        )
        return cls(config, level, [END_MARK, *words])

    def words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        if self.config.lowercase:
            texts = lower(texts)
        if self.level == "character":
            return tf.strings.unicode_split(texts, "UTF-8")
        texts = tf.strings.regex_replace(texts, f"[{_BOUNDARY}]", " ")
        texts = tf.strings.regex_replace(texts, r"[\t\r\f\v\p{Z}]+", " ")
        texts = tf.strings.regex_replace(texts, r" *\n *", "\n")
        texts = tf.strings.regex_replace(texts, r"^ | $", "")
        # A line begins as if there were a space before it: its first word is like any other.
        texts = tf.strings.regex_replace(texts, r"(^|\n)([^\n])", r"\1 \2")
        word = r"[^ \n]+"
        if self.config.punctuation:
            word = r"[\p{L}\p{M}\p{N}'’]+|[^\p{L}\p{M}\p{N}'’ \n]"
        texts = tf.strings.regex_replace(texts, rf"(\n| ?(?:{word}))", rf"\1{_BOUNDARY}")
        words = tf.strings.split(texts, sep=_BOUNDARY)
        # What is behind the last boundary: nothing.
        return tf.ragged.boolean_mask(words, tf.strings.length(words) > 0)

    def names(self, ids: tf.Tensor) -> tf.Tensor:
        """The character or word of each id, of the shape of ``ids``; padding has no letters."""
        names = tf.constant(["", "\N{REPLACEMENT CHARACTER}", *self.vocabulary])
        return tf.gather(names, ids)

    def join(self, ids: tf.Tensor, *, after: tf.Tensor) -> tf.Tensor:
        """Texts that begin with ``after`` and go on with ``ids``, ``<string>[batch]``.

        Args:
            ids: ``<int32>[batch, time]``, 0 behind the end of each row.
            after: ``<string>[batch]``, taken as it is.
        """
        texts = tf.strings.reduce_join(self.names(ids), axis=1)
        if self.level == "word":
            texts = tf.strings.regex_replace(texts, r"\n ", "\n")
            at_start = tf.strings.regex_full_match(after, r"(?s)(.*\s)?")
            texts = tf.where(at_start, tf.strings.regex_replace(texts, r"^ ", ""), texts)
        return after + texts

    def resources(self) -> list[tf.Module]:
        return [self]

    def save(self, folder: Path) -> None:
        super().save(folder)
        write_json(folder / "text.json", self.config.model_dump() | {"level": self.level})

    @classmethod
    def load(cls, folder: Path) -> Documents:
        saved = json.loads((folder / "text.json").read_text(encoding="utf-8"))
        level = saved.pop("level")
        return cls(TextConfig(**saved), level, cls.read_vocabulary(folder))
