"""Split texts into words inside the graph, so that training and serving use the same function.

Only core TensorFlow ops are used, so that an unmodified TensorFlow server can run an export.
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

# The end of a text that may be tokenized differently once more text follows: a tag that is not
# closed; else the word after the last tag; else all from the last character that no word can
# extend over. In scripts written without spaces these are the letters only, since a mark belongs
# to the character before it.
_UNSPACED_LETTERS = (
    r"\p{Han}\p{Hiragana}\p{Katakana}"
    r"\x{0e01}-\x{0e2f}\x{0e81}-\x{0eaf}\x{1780}-\x{17b3}\x{1000}-\x{102a}"
)
_PENDING_ENDS = (
    r"<(?:[/!]?(?:[a-zA-Z][^<>]{0,200})?)?",
    rf"{_TAG}[{_IN_WORDS}{_APOSTROPHES}]*",
    rf"(?:[^{_IN_WORDS}{_APOSTROPHES}]|[{_UNSPACED_LETTERS}])(?s:.*)",
)


def split_words(texts: tf.Tensor, *, lowercase: bool) -> tf.RaggedTensor:
    """Split texts: ``<string>[batch]`` → ``RaggedTensor <string>[batch, (words)]``."""
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
    """Lower-case texts by Unicode's rules, independently of the machine's locale.

    TensorFlow's op depends on the locale: in Turkish I becomes ı, in Lithuanian Í gets a dot. The
    characters concerned are replaced beforehand. The op also truncates a text at the first NUL,
    so that becomes a space.
    """
    texts = tf.strings.regex_replace(texts, r"\x00", " ")
    texts = tf.strings.lower(texts)  # A to Z
    for upper, lower in _LOCAL_CAPITALS.items():
        texts = tf.strings.regex_replace(texts, upper, lower)
    return tf.strings.lower(texts, encoding="utf-8")


def split_pending(texts: tf.Tensor, *pending_ends: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Split off the end of each text that may be tokenized differently once more text follows.

    Args:
        texts: ``<string>[batch]``.
        pending_ends: Regular expressions for that end, in order of priority: the first that
            matches an end of the text determines it, by its shortest match. If none matches, the
            whole text is pending.

    Returns:
        ``(complete, pending)``, ``<string>[batch]`` each.
    """
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    pending = texts
    for end in reversed(pending_ends):
        matches = tf.strings.regex_full_match(texts, rf"(?s:.*)(?:{end})")
        end_of_text = tf.strings.regex_replace(texts, rf"^(?s:.*)({end})$", r"\1")
        pending = tf.where(matches, end_of_text, pending)
    length = tf.strings.length(texts) - tf.strings.length(pending)
    return tf.strings.substr(texts, tf.zeros_like(length), length), pending


class Tokenizer(Vocabulary):
    """Word tokenizer for texts that a model reads; its ids cannot be turned back into a text.

    Bytes that are not UTF-8 are replaced by U+FFFD; an empty text gives an empty row.

    Args:
        vocabulary: The words with the ids 2, 3, …; distinct, without white space.
        lowercase: Fold case, Unicode-aware.
        max_tokens: Truncate longer texts; ``None`` keeps all tokens.
        keep: The tokens that truncation keeps: the ``head``, the ``tail``, or half from both
            ``ends``.
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
        """Split texts as `split_words` does, truncated to ``max_tokens``."""
        words = split_words(texts, lowercase=self.lowercase)
        return self._truncate(words)

    def split_pending(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Split off the end of each text that may be tokenized differently once more text follows.

        Args:
            texts: ``<string>[batch]``.

        Returns:
            ``(complete, pending)``, ``<string>[batch]`` each. Encoded one after the other with
            `encode_continuations`, both give the ids of the whole text.
        """
        return split_pending(texts, *_PENDING_ENDS)

    def encode_continuations(
        self, texts: Sequence[tf.Tensor], read: tf.Tensor
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Encode consecutive parts of texts.

        With ``keep="head"``, ``max_tokens`` applies to the whole text; otherwise all tokens are
        kept, because the end of the text is not known yet.

        Args:
            texts: Consecutive parts, ``<string>[batch]`` each.
            read: ``<int32>[batch]``, number of words before the first part.

        Returns:
            For each part, its ids ``<int32>[batch, time]``, right-padded, and the number of words
            up to its end, ``<int32>[batch]``.
        """
        # In one pass: for a few words, the number of operations determines the cost.
        words = split_words(tf.concat(texts, axis=0), lowercase=self.lowercase)
        found = self._padded(words.with_values(self._table.lookup(words.values)))
        ids, counts = tf.split(found, len(texts)), []
        for i, part in enumerate(ids):
            if self.max_tokens is not None and self.keep == "head":
                place = read[:, None] + tf.range(tf.shape(part)[1])[None]
                ids[i] = tf.where(place < self.max_tokens, part, PADDING)
            read += tf.math.count_nonzero(part, axis=1, dtype=tf.int32)
            counts.append(read)
        return ids, counts

    def _truncate(self, words: tf.RaggedTensor) -> tf.RaggedTensor:
        limit = self.max_tokens
        if limit is None:
            return words
        if self.keep == "head":
            return words[:, :limit]
        if self.keep == "tail":
            return words[:, -limit:]
        # On the flat tokens: a mask of ragged rows would be a thousand operations.
        rows = words.value_rowids()
        place = tf.range(tf.size(rows, tf.int64)) - tf.gather(words.row_starts(), rows)
        from_end = tf.gather(words.row_lengths(), rows) - place
        tail = limit // 2
        # A row of `limit` tokens or fewer satisfies one of both everywhere.
        kept = (place < limit - tail) | (from_end <= tail)
        return tf.RaggedTensor.from_row_lengths(
            tf.boolean_mask(words.values, kept),
            tf.minimum(words.row_lengths(), limit),
            validate=False,
        )
