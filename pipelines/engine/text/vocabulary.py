"""Count the words of texts, build vocabularies, and look up ids."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import tensorflow as tf

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import write_text
from pipelines.engine.data.ragged import PADDING, Ragged, encode_texts, map_texts

#: The id of a word outside the vocabulary.
UNKNOWN = 1
#: Number of ids before the first word of the vocabulary: padding and unknown.
RESERVED = 2


class Vocabulary(tf.Module):
    """Base class of tokenizers; subclasses define `__call__`.

    Id 0 is padding and never produced; id 1 stands for every word outside the vocabulary.

    Args:
        vocabulary: The words with the ids 2, 3, …; distinct.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        super().__init__(name="tokenizer")
        self.vocabulary = list(vocabulary)

    @property
    def size(self) -> int:
        """Number of ids: the vocabulary, padding and unknown."""
        return RESERVED + len(self.vocabulary)

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Encode texts: ``<string>[batch]`` → ``RaggedTensor <int32>[batch, (tokens)]``."""
        raise NotImplementedError

    def padded(self, texts: tf.Tensor) -> tf.Tensor:
        """Encode texts: ``<string>[batch]`` → ``<int32>[batch, time]``, right-padded, time ≥ 1."""
        return self._padded(self(texts))

    @staticmethod
    def _padded(ragged: tf.RaggedTensor) -> tf.Tensor:
        ids = ragged.to_tensor(PADDING)
        return tf.pad(ids, [[0, 0], [0, tf.cast(tf.shape(ids)[1] == 0, tf.int32)]])

    def encode(self, texts: Collection[str]) -> Ragged:
        """Encode a collection of texts, outside a graph."""
        return encode_texts(texts, self)

    def save(self, folder: Path) -> None:
        self.write_vocabulary(folder, self.vocabulary)

    @staticmethod
    def write_vocabulary(folder: Path, words: Sequence[str]) -> None:
        # JSON, not one word a line: a word may be a line feed.
        text = json.dumps(words, ensure_ascii=False, indent=0)
        write_text(folder / "vocabulary.json", text)

    @staticmethod
    def read_vocabulary(folder: Path) -> list[str]:
        words: list[str] = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        return words


def word_table(words: Sequence[str]) -> tf.lookup.StaticHashTable:
    """Return a table from each word to its id, from any other to `UNKNOWN`."""
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(words, dtype=tf.string, shape=[len(words)]),
            tf.range(RESERVED, RESERVED + len(words), dtype=tf.int32),
        ),
        default_value=UNKNOWN,
    )


#: Distinct words counted at a time, in about 150 MB.
MAX_DISTINCT = 1_000_000


def count_words(
    texts: Collection[str],
    split: Callable[[tf.Tensor], tf.RaggedTensor],
    max_distinct: int = MAX_DISTINCT,
) -> Counter[str]:
    """Count the words of ``texts``.

    With more than ``max_distinct`` distinct words, the rarest so far are dropped, as in lossy
    counting (Manku and Motwani 2002): the count of a remaining word may then be too low, by at
    most the highest count at which words were dropped.

    Args:
        texts: The texts; read once.
        max_distinct: Most words counted at a time.
        split: ``<string>[batch]`` → ``RaggedTensor <string>[batch, (words)]``.
    """
    counts: Counter[bytes] = Counter()
    rare = 1
    for words in map_texts(texts, split):
        counts.update(words.values.numpy().tolist())
        while len(counts) > max_distinct:
            counts = Counter({word: count for word, count in counts.items() if count > rare})
            rare += 1
    return Counter({word.decode("utf-8"): count for word, count in counts.items()})


def build_vocabulary(
    texts: Collection[str],
    split: Callable[[tf.Tensor], tf.RaggedTensor],
    *,
    size: int,
    min_count: int,
) -> list[str]:
    """Return the most frequent words of ``texts``, most frequent first, ties in code-point order.

    Args:
        texts: The training split, and nothing else.
        split: ``<string>[batch]`` → ``RaggedTensor <string>[batch, (words)]``.
        size: Most words returned.
        min_count: Rarer words are left out.

    Raises:
        UserError: No word is frequent enough.
    """
    counts = count_words(texts, split)
    kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
    if not kept:
        raise UserError(
            f"no word occurs {min_count} times in the {len(texts):,} training texts; "
            "lower text.min_count or give more data"
        )
    return kept[:size]
