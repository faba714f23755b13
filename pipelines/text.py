"""Text to ids inside the graph: training and serving use the very same function.

Only core TensorFlow ops, so that a stock server can run an export.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from pipelines import disk
from pipelines.errors import UserError
from pipelines.files import write_text

PADDING, UNKNOWN = 0, 1
#: How many ids come before the first word of the vocabulary.
RESERVED = 2

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


def settle(texts: tf.Tensor, *unfinished: str) -> tuple[tf.Tensor, tf.Tensor]:
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


class Vocabulary(tf.Module):
    """Texts to ids: how is a subclass's own, `__call__`.

    Id 0 is padding and never produced; id 1 stands for every word outside the vocabulary.

    Args:
        vocabulary: the words with ids 2, 3, …; distinct.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        super().__init__(name="tokenizer")
        self.vocabulary = list(vocabulary)

    @property
    def size(self) -> int:
        """How many ids there are: the vocabulary, padding and unknown."""
        return RESERVED + len(self.vocabulary)

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """``<string>[batch]`` → ``RaggedTensor <int32>[batch, (tokens)]``."""
        raise NotImplementedError

    def padded(self, texts: tf.Tensor) -> tf.Tensor:
        """``<string>[batch]`` → ``<int32>[batch, time]``, right-padded, at least one step long."""
        return self._padded(self(texts))

    @staticmethod
    def _padded(ragged: tf.RaggedTensor) -> tf.Tensor:
        ids = ragged.to_tensor(PADDING)
        return tf.pad(ids, [[0, 0], [0, tf.cast(tf.shape(ids)[1] == 0, tf.int32)]])

    def encode(self, texts: Collection[str]) -> Ragged:
        """All ``texts`` at once, outside a graph."""
        return in_pieces(texts, self)

    def save(self, folder: Path) -> None:
        self.write_vocabulary(folder, self.vocabulary)

    @staticmethod
    def write_vocabulary(folder: Path, words: Sequence[str]) -> None:
        # Not one a line: a word may be the end of a line.
        text = json.dumps(words, ensure_ascii=False, indent=0)
        write_text(folder / "vocabulary.json", text)

    @staticmethod
    def read_vocabulary(folder: Path) -> list[str]:
        words: list[str] = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        return words


def word_table(words: Sequence[str]) -> tf.lookup.StaticHashTable:
    """Each of ``words`` to its id; any other to `UNKNOWN`."""
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(words, dtype=tf.string, shape=[len(words)]),
            tf.range(RESERVED, RESERVED + len(words), dtype=tf.int32),
        ),
        default_value=UNKNOWN,
    )


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

    def settle(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Texts that may go on, in two: what is read now, and what only with what comes next.

        Read one after the other with `piece`, both give the ids of the whole.
        """
        return settle(texts, *_OPEN_ENDS)

    def pieces(
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


class Ragged:
    """Rows of unequal length, packed: ``values`` end to end, row ``i`` from ``starts[i]`` on.

    ``values`` may be a file on disk: what is made of such rows is on disk again.
    """

    def __init__(self, values: np.ndarray, lengths: np.ndarray) -> None:
        self.values = values
        self.lengths = lengths
        self.on_disk = isinstance(values, np.memmap)
        self.starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.starts[row] : self.starts[row] + self.lengths[row]]

    def begun_with(self, value: int) -> Ragged:
        """Every row with ``value`` before it."""
        return self._with(value, self.starts)

    def ended_with(self, value: int) -> Ragged:
        """Every row with ``value`` behind it."""
        return self._with(value, self.starts + self.lengths)

    def _with(self, value: int, places: np.ndarray) -> Ragged:
        """Every row with ``value`` at its place."""
        if not self.on_disk:
            return Ragged(np.insert(self.values, places, value), self.lengths + 1)
        whole = disk.Array()
        for row in range(0, len(self), _PIECE):
            start = self.starts[row]
            end = start + self.lengths[row : row + _PIECE].sum()
            here = places[row : row + _PIECE] - start
            whole.add(np.insert(np.array(self.values[start:end]), here, value))
        return Ragged(whole.whole(), self.lengths + 1)


#: Texts that are worked on at a time, and characters of them; rows likewise.
_PIECE, _CHARACTERS = 1000, 2**18
#: Different words that are counted at a time, about 150 MB of them.
DISTINCT = 1_000_000


def _applied(
    texts: Collection[str], function: Callable[[tf.Tensor], tf.RaggedTensor]
) -> Iterator[tf.RaggedTensor]:
    """A ``<string>[batch]`` → ragged function of many texts, piece by piece."""
    function = tf.function(function, input_signature=[tf.TensorSpec([None], tf.string)])
    piece: list[bytes] = []
    size = 0
    for text in texts:
        piece.append(text.encode("utf-8", errors="replace"))
        size += len(text)
        if len(piece) == _PIECE or size >= _CHARACTERS:
            yield function(tf.constant(piece, tf.string, shape=[len(piece)]))
            piece, size = [], 0
    if piece:
        yield function(tf.constant(piece, tf.string, shape=[len(piece)]))


def in_pieces(texts: Collection[str], function: Callable[[tf.Tensor], tf.RaggedTensor]) -> Ragged:
    """Apply a ``<string>[batch]`` → ``<int32>`` ragged function to many texts.

    Texts that are on disk become ids on disk.
    """
    whole: list[np.ndarray] | disk.Array = disk.Array() if isinstance(texts, disk.Each) else []
    lengths = np.zeros(len(texts), np.int64)
    row = 0
    for ragged in _applied(texts, function):
        (whole.append if isinstance(whole, list) else whole.add)(ragged.values.numpy())
        found = ragged.row_lengths().numpy()
        lengths[row : row + len(found)] = found
        row += len(found)
    if isinstance(whole, list):
        values = np.concatenate([np.zeros(0, np.int32), *whole])
    else:
        values = whole.whole()
    return Ragged(values, lengths)


def count_words(
    texts: Collection[str],
    split: Callable[[tf.Tensor], tf.RaggedTensor],
    distinct: int = DISTINCT,
) -> Counter[str]:
    """How often each word of ``texts`` occurs.

    Of more than ``distinct`` different words, the rarest so far are forgotten, as in lossy
    counting (Manku and Motwani 2002): where a word is still there, its count may be too low, by at
    most the count at which words were forgotten.

    Args:
        split: ``<string>[batch]`` → ``RaggedTensor <string>[batch, (words)]``.
    """
    counts: Counter[bytes] = Counter()
    rare = 1
    for words in _applied(texts, split):
        counts.update(words.values.numpy().tolist())
        while len(counts) > distinct:
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
    """The most frequent words of ``texts``, most frequent first, ties in code-point order.

    Args:
        texts: the training split, and nothing else.
        split: ``<string>[batch]`` → ``RaggedTensor <string>[batch, (words)]``.
        size: at most this many words.
        min_count: rarer words are left out.
    """
    counts = count_words(texts, split)
    kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
    if not kept:
        raise UserError(
            f"no word occurs {min_count} times in the {len(texts):,} training texts; "
            "lower text.min_count or give more data"
        )
    return kept[:size]
