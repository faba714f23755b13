"""Texts to ids and back, for tasks that write: characters, words or parts of words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tokenizers

from pipelines.engine.config.schema import TokenizerConfig, TokenLevel
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import write_json
from pipelines.engine.text.vocabulary import (
    RESERVED,
    Vocabulary,
    build_vocabulary,
    count_words,
    word_table,
)
from pipelines.engine.text.words import lower, split_pending

#: The first entry of the vocabulary: the end of a document, and before its first token the
#: beginning. No text holds it, and joined to one it adds nothing.
END_MARK = ""
END = RESERVED
#: At level subword the next entries: every byte, those of ASCII being its characters.
BYTES = [bytes([b]).decode("utf-8", "surrogateescape") for b in range(256)]
#: What the end of a text is that may become something else when the text goes on: all from the
#: last space on. A character is never open.
_OPEN_ENDS = {
    "word": r"[\s\p{Z}\x{e000}][^\s\p{Z}\x{e000}]*",
    "subword": " [^ ]*",
}
#: Put between words while a text is divided: for private use, and taken out of texts.
_BOUNDARY = "\ue000"


class DocumentTokenizer(Vocabulary):
    """Texts to ids and back.

    A word has the space before it with it, so that joining words gives the text back: a word
    without one is glued to what is before it. Runs of white space become one space or line end.

    Sub-words give every text back as it was. A text is read as its bytes, from left to right the
    longest piece that the vocabulary has; a piece is a byte, a character, or characters that
    words of the training split have in common (learned by byte-pair encoding, Sennrich et al.
    2016). So nothing is unknown. Only the first character of a piece may be a space, and a text
    is read as if there were one before it: its first word is like any other.

    Args:
        vocabulary: the end mark, then what has the next ids; at level subword the bytes, which
            come between them, are left out.
        level: what a text is divided into: characters, words and line ends, or sub-words.
        lowercase: fold case, Unicode-aware.
        punctuation: punctuation marks are words of their own; else only white space divides. A
            piece is learned inside one word.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        level: TokenLevel,
        lowercase: bool = False,
        punctuation: bool = True,
    ) -> None:
        end, *pieces = vocabulary
        super().__init__([end, *BYTES, *pieces] if level == "subword" else vocabulary)
        self.level, self.lowercase, self.punctuation = level, lowercase, punctuation
        names = ["", "\N{REPLACEMENT CHARACTER}", *self.vocabulary]
        self._names = [name.encode("utf-8", "surrogateescape") for name in names]
        self._table = (
            self._table_of_prefixes() if level == "subword" else word_table(self.vocabulary)
        )

    @classmethod
    def fit(
        cls, texts: Collection[str], config: TokenizerConfig, level: TokenLevel
    ) -> DocumentTokenizer:
        settings = {"lowercase": config.lowercase, "punctuation": config.punctuation}
        words = cls([END_MARK], level=level, **settings).words
        if level == "subword":
            counts = count_words(texts, words)
            entries = _learn_pieces(counts, size=config.vocabulary, min_count=config.min_count)
        else:
            size = config.vocabulary - RESERVED - 1
            entries = build_vocabulary(texts, words, size=size, min_count=config.min_count)
        return cls([END_MARK, *entries], level=level, **settings)

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        if self.level == "subword":
            return self._pieces(self._spaced(self._cleaned(texts)))
        words = self.words(texts)
        return words.with_values(self._table.lookup(words.values))

    def split_pending(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Texts that may go on, in two: what is read now, and what only with what comes next.

        Read one after the other with `encode_continuation`, both give the ids of the whole.
        """
        if self.level == "character":
            texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
            return texts, tf.zeros_like(texts)
        return split_pending(texts, _OPEN_ENDS[self.level])

    def encode_continuation(self, texts: tf.Tensor, fresh: tf.Tensor) -> tf.RaggedTensor:
        """As a call, of the next piece of texts, which has begun before where not ``fresh``."""
        if self.level == "subword":
            # A text that goes on has its space already.
            texts = self._cleaned(texts)
            begins = fresh | ~tf.strings.regex_full_match(texts, "(?s: .*)")
            return self._pieces(tf.where(begins, self._spaced(texts), texts))
        return self(texts)

    def words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """``<string>[batch]`` → ``RaggedTensor <string>[batch, (words)]``.

        Characters, words, or at level subword the words that pieces are parts of.
        """
        texts = self._cleaned(texts)
        if self.level == "character":
            return tf.strings.unicode_split(texts, "UTF-8")
        texts = tf.strings.regex_replace(texts, f"[{_BOUNDARY}]", " ")
        if self.level == "subword":
            texts = self._spaced(texts)
        else:
            texts = tf.strings.regex_replace(texts, r"[\t\r\f\v\p{Z}]+", " ")
            texts = tf.strings.regex_replace(texts, r" *\n *", "\n")
            texts = tf.strings.regex_replace(texts, r"^ | $", "")
            # A line begins as if there were a space before it: its first word is like any other.
            texts = tf.strings.regex_replace(texts, r"(^|\n)([^\n])", r"\1 \2")
        word = r"[^ \n]+"
        if self.punctuation:
            word = r"[\p{L}\p{M}\p{N}'’]+|[^\p{L}\p{M}\p{N}'’ \n]"
        texts = tf.strings.regex_replace(texts, rf"(\n| ?(?:{word})| )", rf"\1{_BOUNDARY}")
        words = tf.strings.split(texts, sep=_BOUNDARY)
        # What is behind the last boundary: nothing.
        return tf.ragged.boolean_mask(words, tf.strings.length(words) > 0)

    def _cleaned(self, texts: tf.Tensor) -> tf.Tensor:
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        return lower(texts) if self.lowercase else texts

    def _spaced(self, texts: tf.Tensor) -> tf.Tensor:
        """A space before every text that has anything."""
        return tf.where(texts == "", texts, " " + texts)

    def _table_of_prefixes(self) -> tf.lookup.StaticHashTable:
        """What a prefix of a piece and a byte after it make: ``256 · prefix + byte → prefix``.

        A prefix that is a piece has its id as its number, the empty one `END`, any other a higher
        one; 0 is none.
        """
        pieces = self._names[RESERVED:]
        numbers = {piece: RESERVED + i for i, piece in enumerate(pieces)}
        for piece in pieces:
            for length in range(2, len(piece)):
                numbers.setdefault(piece[:length], RESERVED + len(numbers))
        steps = {256 * numbers[p[:-1]] + p[-1]: n for p, n in numbers.items() if p}
        return tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(steps), tf.int64, shape=[len(steps)]),
                tf.constant(list(steps.values()), tf.int64, shape=[len(steps)]),
            ),
            default_value=0,
        )

    def _pieces(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """From left to right the longest piece: ``<string>[batch]`` → ``<int32>[batch, (ids)]``.

        All texts are one row of bytes: each begins with a space, and no piece has one inside, so
        that none reaches into the next text.
        """
        lengths = tf.strings.length(texts)
        total = tf.reduce_sum(lengths)
        found = self._longest(tf.strings.reduce_join(texts), tf.range(total))

        # Where pieces begin: at the beginning of each text, and wherever one ends. What is 1, 2,
        # 4, … pieces on from a place is known for every place, so that all of n are met in log n
        # rounds.
        sizes = tf.constant([len(name) for name in self._names])
        on = tf.concat([tf.range(total) + tf.gather(sizes, found), [total]], axis=0)
        splits = tf.concat([[0], tf.cumsum(lengths)], axis=0)
        met = tf.tensor_scatter_nd_update(
            tf.fill([total + 1], False), splits[:, None], tf.fill(tf.shape(splits), True)
        )

        def double(count: Any, on: Any, met: Any) -> Any:
            ends = tf.gather(on, tf.where(met))
            met = tf.tensor_scatter_nd_update(met, ends, tf.fill(tf.shape(ends)[:1], True))
            return 2 * count, tf.gather(on, on), met

        longest = tf.reduce_max(lengths)
        *_, met = tf.while_loop(lambda count, *_: count < longest, double, (1, on, met))
        met = met[:-1]
        before = tf.concat([[0], tf.cumsum(tf.cast(met, tf.int64))], axis=0)
        return tf.RaggedTensor.from_row_splits(
            tf.boolean_mask(found, met), tf.gather(before, splits), validate=False
        )

    def _longest(self, text: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """The longest piece that begins at each place ``<int32>[bytes]`` of a text: its id."""
        # No piece that begins before a space goes on with it.
        data = tf.io.decode_raw(text + " ", tf.uint8)

        def grow(length: Any, places: Any, prefixes: Any, found: Any) -> Any:
            byte = tf.cast(tf.gather(data, places + length), tf.int64)
            longer = self._table.lookup(256 * prefixes + byte)
            places, prefixes = (tf.boolean_mask(a, longer > 0) for a in (places, longer))
            is_piece = prefixes < self.size
            found = tf.tensor_scatter_nd_update(
                found,
                tf.boolean_mask(places, is_piece)[:, None],
                tf.cast(tf.boolean_mask(prefixes, is_piece), tf.int32),
            )
            return length + 1, places, prefixes, found

        any_length = tf.TensorShape([None])
        *_, found = tf.while_loop(
            lambda length, places, *_: tf.size(places) > 0,
            grow,
            (
                0,
                places,
                tf.fill(tf.shape(places), tf.constant(END, tf.int64)),
                tf.zeros_like(places),
            ),
            shape_invariants=(tf.TensorShape([]), any_length, any_length, any_length),
        )
        return found

    def ids_to_tokens(self, ids: tf.Tensor) -> tf.Tensor:
        """The characters of each id, of the shape of ``ids``; padding has none.

        At level subword an id may be one byte of a character.
        """
        return tf.gather(tf.constant(self._names), ids)

    def detokenize(self, ids: tf.Tensor, *, prefix: tf.Tensor | None = None) -> tf.Tensor:
        """Texts that begin with ``prefix`` and go on with ``ids``, ``<string>[batch]``.

        Args:
            ids: ``<int32>[batch, time]``, 0 behind the end of each row.
            prefix: ``<string>[batch]``, taken as it is; ``None``: nothing.
        """
        return self.join_tokens(self.ids_to_tokens(ids), prefix=prefix)

    def join_tokens(self, names: tf.Tensor, *, prefix: tf.Tensor | None = None) -> tf.Tensor:
        """Join token strings ``<string>[batch, time]`` as `detokenize` joins ids."""
        texts = tf.strings.reduce_join(names, axis=1)
        if prefix is None:
            prefix = tf.zeros_like(texts)
        if self.level == "word":
            texts = tf.strings.regex_replace(texts, r"\n ", "\n")
            at_start = tf.strings.regex_full_match(prefix, r"(?s)(.*\s)?")
            texts = tf.where(at_start, tf.strings.regex_replace(texts, r"^ ", ""), texts)
        if self.level == "subword":
            # A model may write half of a character.
            texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
            texts = tf.where(prefix == "", tf.strings.regex_replace(texts, r"^ ", ""), texts)
        return prefix + texts

    def resources(self) -> list[tf.Module]:
        return [self]

    def save(self, folder: Path) -> None:
        words = self.vocabulary
        if self.level == "subword":
            words = words[:1] + words[1 + len(BYTES) :]
        self.write_vocabulary(folder, words)
        settings = {
            "level": self.level,
            "lowercase": self.lowercase,
            "punctuation": self.punctuation,
        }
        write_json(folder / "text.json", settings)

    @classmethod
    def load(cls, folder: Path) -> DocumentTokenizer:
        saved = json.loads((folder / "text.json").read_text(encoding="utf-8"))
        settings = {key: saved[key] for key in ("level", "lowercase", "punctuation")}
        return cls(cls.read_vocabulary(folder), **settings)


def _learn_pieces(words: Counter[str], *, size: int, min_count: int) -> list[str]:
    """Characters, then what byte-pair encoding merges them to, in the order of the merges.

    Args:
        words: how often each occurs.
        size: ids in all, those before the pieces included.
        min_count: rarer characters are bytes, and rarer merges are not made.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    characters = sorted(
        (c for c, count in counts.items() if count >= min_count and not c.isascii()),
        key=lambda c: (-counts[c], c),
    )
    least = RESERVED + 1 + len(BYTES) + len(characters)
    if size < least:
        raise UserError(
            f"text.vocabulary: {size:,} ids are too few for the bytes and the characters that "
            f"occur {min_count} times: at least {least:,}, or a higher text.min_count"
        )
    # A rare character stands between pieces, and in none.
    known = set(characters)
    parts: Counter[str] = Counter()
    for word, count in words.items():
        kept = (c if c.isascii() or c in known else _BOUNDARY for c in word)
        for part in "".join(kept).split(_BOUNDARY):
            parts[part] += count
    alphabet = {c for part in parts for c in part}
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.train_from_iterator(
        parts.elements(),
        tokenizers.trainers.BpeTrainer(
            vocab_size=len(alphabet) + size - least, min_frequency=min_count, show_progress=False
        ),
    )
    ids = model.get_vocab()
    return characters + sorted((p for p in ids if len(p) > 1), key=lambda p: ids[p])
