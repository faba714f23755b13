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
#: Stands for the end of a line while white space is dropped: for private use, so in no text.
_LINE_END = "\ue000"

_OPENING, _CLOSING = r"(\[{„“‘«", r")\]},.;:!?%…”’»"


class Documents(Vocabulary):
    """Texts to ids and back.

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
        if self.config.punctuation:
            texts = tf.strings.regex_replace(texts, r"([^\p{L}\p{M}\p{N}'’\s])", r" \1 ")
        # The end of a line is a word; other white space divides words and is no part of them.
        texts = tf.strings.regex_replace(texts, r"\n", f" {_LINE_END} ")
        texts = tf.strings.regex_replace(texts, r"[\t\r\f\v\p{Z}]+", " ")
        words = tf.strings.split(tf.strings.strip(texts), sep=" ")
        words = tf.ragged.boolean_mask(words, tf.strings.length(words) > 0)
        return words.with_values(tf.where(words.values == _LINE_END, "\n", words.values))

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
        if self.level == "character":
            return after + tf.strings.reduce_join(self.names(ids), axis=1)
        texts = tf.strings.reduce_join(self.names(ids), axis=1, separator=" ")
        texts = tf.strings.regex_replace(texts, r" *\n *", "\n")
        if self.config.punctuation:
            texts = tf.strings.regex_replace(texts, rf" +([{_CLOSING}])", r"\1")
            texts = tf.strings.regex_replace(texts, rf"([{_OPENING}]) +", r"\1")
        texts = tf.strings.regex_replace(texts, r" +$", "")
        closing = _CLOSING if self.config.punctuation else ""
        joined = tf.strings.regex_full_match(texts, rf"(?s)([\n{closing}].*)?")
        joined |= tf.strings.regex_full_match(after, rf"(?s)(.*[\s{_OPENING}])?")
        return after + tf.where(joined, "", " ") + texts

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
