"""Text to ids inside the graph: training and serving use the very same function.

Only core TensorFlow ops, so that a stock server can run an export.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import tensorflow as tf

from pipelines.engine.data.ragged import PADDING
from pipelines.engine.text.vocabulary import Vocabulary, word_table

# An HTML tag as it occurs in scraped text: <br />, </p>, <a href="…">.
_TAG = r"<[/!]?[a-zA-Z][^<>]{0,200}>"
# A word is a run of letters, marks and digits with its inner apostrophes (don't). Any other visible
# character (punctuation, an emoji, a sign of a script written without spaces) is a word of its own
# with the combining marks on it, and so is a run of outer apostrophes.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_IN_WORDS = r"\p{L}\p{M}\p{N}"
_APOSTROPHES = r"'’"
_LOCAL_CAPITALS = {"İ": "i\u0307", "Ì": "ì", "Í": "í", "Ĩ": "ĩ", "Į": "į"}
_SIGN = rf"((?:[^{_IN_WORDS}{_APOSTROPHES}\s\p{{Z}}\p{{C}}]|[{_UNSPACED}])\p{{M}}*)"
_OPENING = rf"(^|[^{_IN_WORDS}{_APOSTROPHES}])([{_APOSTROPHES}]+)"
_CLOSING = rf"([{_APOSTROPHES}]+)([^{_IN_WORDS}{_APOSTROPHES}]|$)"

# What the end of a text may be that becomes something else when the text goes on: a tag that is not
# closed; else the word behind the last tag; else all from the last character on that a word cannot
# go over. Of the scripts written without spaces these are the letters only, since a mark belongs
# to what is before it.
_UNSPACED_LETTERS = (
    r"\p{Han}\p{Hiragana}\p{Katakana}"
    r"\x{0e01}-\x{0e2f}\x{0e81}-\x{0eaf}\x{1780}-\x{17b3}\x{1000}-\x{102a}"
)
_OPEN_ENDS = (
    r"<(?:[/!]?(?:[a-zA-Z][^<>]{0,200})?)?",
    rf"{_TAG}[{_IN_WORDS}{_APOSTROPHES}]*",
    rf"(?:[^{_IN_WORDS}{_APOSTROPHES}]|[{_UNSPACED_LETTERS}])(?s:.*)",
)


def split_words(texts: tf.Tensor, *, lowercase: bool) -> tf.RaggedTensor:
    """``<string>[batch]`` → ``RaggedTensor <string>[batch, (words)]``."""
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    if lowercase:
        texts = lower(texts)
    texts = tf.strings.regex_replace(texts, _TAG, " ")
    texts = tf.strings.regex_replace(texts, _SIGN, r" \1 ")
    texts = tf.strings.regex_replace(texts, _OPENING, r"\1 \2 ")
    texts = tf.strings.regex_replace(texts, _CLOSING, r" \1 \2")
    texts = tf.strings.regex_replace(texts, r"[\s\p{Z}\p{C}]+", " ")
    return tf.strings.split(texts)


def lower(texts: tf.Tensor) -> tf.Tensor:
    """Unicode's lower case, on every machine alike.

    TensorFlow's depends on the locale: the Turkish I becomes ı, the Lithuanian Í gets a dot. What
    they differ in is done before. It also ends a text at the first NUL.
    """
    texts = tf.strings.regex_replace(texts, r"\x00", " ")
    texts = tf.strings.lower(texts)  # A to Z
    for upper, lower in _LOCAL_CAPITALS.items():
        texts = tf.strings.regex_replace(texts, upper, lower)
    return tf.strings.lower(texts, encoding="utf-8")


def split_pending(texts: tf.Tensor, *unfinished: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Texts that may go on, in two: what is settled, and what is not ``<string>[batch]``.

    Args:
        unfinished: what the end of a text is that is not settled, as regular expressions: the
            shortest end that one of them fits, of the first that fits any. Where none does,
            nothing is settled.
    """
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    open_ = texts
    for end in reversed(unfinished):
        fits = tf.strings.regex_full_match(texts, rf"(?s:.*)(?:{end})")
        open_ = tf.where(fits, tf.strings.regex_replace(texts, rf"^(?s:.*)({end})$", r"\1"), open_)
    settled = tf.strings.length(texts) - tf.strings.length(open_)
    return tf.strings.substr(texts, tf.zeros_like(settled), settled), open_


class Tokenizer(Vocabulary):
    """Splits a text that is to be understood, not written, into words.

    Bytes that are not UTF-8 are replaced by U+FFFD; an empty text gives an empty row.

    Args:
        vocabulary: the words with ids 2, 3, …; whitespace-free, distinct.
        lowercase: fold case, Unicode-aware.
        max_tokens: longer texts are cut; ``None`` keeps all.
        keep: which tokens a cut keeps: the ``head``, the ``tail``, or half from both ``ends``.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        lowercase: bool = True,
        max_tokens: int | None = None,
        keep: Literal["head", "tail", "ends"] = "head",
    ) -> None:
        super().__init__(vocabulary)
        self.lowercase = lowercase
        self.max_tokens = max_tokens
        self.keep = keep
        self._table = word_table(self.vocabulary)

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        words = self.words(texts)
        return words.with_values(self._table.lookup(words.values))

    def words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """As `split_words`, cut to length."""
        words = split_words(texts, lowercase=self.lowercase)
        return self._cut(words)

    def split_pending(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Texts that may go on, in two: what is read now, and what only with what comes next.

        Read one after the other with `encode_continuation`, both give the ids of the whole.
        """
        return split_pending(texts, *_OPEN_ENDS)

    def encode_continuations(
        self, texts: Sequence[tf.Tensor], read: tf.Tensor
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """The ids of the next pieces of texts, right-padded, and the words read up to their ends.

        Of ``max_tokens`` it keeps the ``head``; where the end of a text counts, it keeps all,
        because no end is known.

        Args:
            texts: ``<string>[batch]`` each, one piece behind the other.
            read: ``<int32>[batch]``, words before the pieces.
        """
        # All in one pass: of a few words the operations cost what they are, not what they do.
        words = split_words(tf.concat(texts, axis=0), lowercase=self.lowercase)
        found = self._padded(words.with_values(self._table.lookup(words.values)))
        ids, counts = tf.split(found, len(texts)), []
        for i, piece in enumerate(ids):
            if self.max_tokens is not None and self.keep == "head":
                place = read[:, None] + tf.range(tf.shape(piece)[1])[None]
                ids[i] = tf.where(place < self.max_tokens, piece, PADDING)
            read += tf.math.count_nonzero(piece, axis=1, dtype=tf.int32)
            counts.append(read)
        return ids, counts

    def _cut(self, words: tf.RaggedTensor) -> tf.RaggedTensor:
        limit = self.max_tokens
        if limit is None:
            return words
        if self.keep == "head":
            return words[:, :limit]
        if self.keep == "tail":
            return words[:, -limit:]
        lengths = tf.cast(words.row_lengths(), tf.int32)
        tail = limit // 2
        place = tf.ragged.range(lengths)
        from_end = tf.expand_dims(lengths, 1) - place
        kept = tf.logical_or(
            tf.logical_or(place < limit - tail, from_end <= tail),
            tf.expand_dims(lengths, 1) <= limit,
        )
        return tf.ragged.boolean_mask(words, kept)
