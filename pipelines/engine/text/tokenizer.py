"""Tokenize and detokenize texts that a model writes: characters, words or sub-words."""

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

#: The first entry of the vocabulary: marks the end of a document and, before its first token, the
#: beginning. It is the empty string, so that it occurs in no text and adds nothing to one.
END_MARK = ""
END = RESERVED
#: The next entries at level subword: all bytes; those of ASCII are its characters.
BYTES = [bytes([b]).decode("utf-8", "surrogateescape") for b in range(256)]
#: The end of a text that may be tokenized differently once more text follows: all from the last
#: space on. Characters have none.
_PENDING_ENDS = {
    "word": r"[\s\p{Z}\x{e000}][^\s\p{Z}\x{e000}]*",
    "subword": " [^ ]*",
}
#: Separates words while a text is split: a private-use character, removed from texts before.
_BOUNDARY = "\ue000"


class DocumentTokenizer(Vocabulary):
    """Tokenizer whose ids can be turned back into texts.

    A word token includes the space before it, so that concatenating tokens restores the text: a
    word without a space is attached to the token before it. Runs of white space become one space
    or line feed.

    Sub-words restore every text exactly. A text is read as bytes, matching the longest token from
    left to right; a token is a byte, a character, or a sequence of characters that is frequent in
    words of the training split (learned by byte-pair encoding, Sennrich et al. 2016). So no text
    has unknown tokens. Only the first character of a token may be a space, and a text is read as
    if a space preceded it, so that its first word is tokenized like any other.

    Args:
        vocabulary: The end mark, then the tokens with the next ids. At level subword, leave out
            the bytes, which are inserted between them.
        level: Split texts into characters, into words and line feeds, or into sub-words.
        lowercase: Fold case, Unicode-aware.
        punctuation: Make punctuation marks separate words; otherwise only white space separates.
            No sub-word spans two words.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        level: TokenLevel,
        lowercase: bool = False,
        punctuation: bool = True,
    ) -> None:
        end, *tokens = vocabulary
        super().__init__([end, *BYTES, *tokens] if level == "subword" else vocabulary)
        self.level, self.lowercase, self.punctuation = level, lowercase, punctuation
        names = ["", "\N{REPLACEMENT CHARACTER}", *self.vocabulary]
        self._names = [name.encode("utf-8", "surrogateescape") for name in names]
        self._table = self._build_trie() if level == "subword" else word_table(self.vocabulary)

    @classmethod
    def fit(
        cls, texts: Collection[str], config: TokenizerConfig, level: TokenLevel
    ) -> DocumentTokenizer:
        """Build the vocabulary from the texts of the training split.

        Raises:
            UserError: ``text.vocabulary`` is too small, or no word is frequent enough.
        """
        settings = {"lowercase": config.lowercase, "punctuation": config.punctuation}
        words = cls([END_MARK], level=level, **settings).words
        if level == "subword":
            counts = count_words(texts, words)
            entries = _learn_subwords(counts, size=config.vocabulary, min_count=config.min_count)
        else:
            size = config.vocabulary - RESERVED - 1
            entries = build_vocabulary(texts, words, size=size, min_count=config.min_count)
        return cls([END_MARK, *entries], level=level, **settings)

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        if self.level == "subword":
            return self._match_tokens(self._with_leading_space(self._normalize(texts)))
        words = self.words(texts)
        return words.with_values(self._table.lookup(words.values))

    def split_pending(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Split off the end of each text that may be tokenized differently once more text follows.

        Args:
            texts: ``<string>[batch]``.

        Returns:
            ``(complete, pending)``, ``<string>[batch]`` each. Encoded one after the other with
            `encode_continuation`, both give the ids of the whole text.
        """
        if self.level == "character":
            texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
            return texts, tf.zeros_like(texts)
        return split_pending(texts, _PENDING_ENDS[self.level])

    def encode_continuation(self, texts: tf.Tensor, fresh: tf.Tensor) -> tf.RaggedTensor:
        """Encode the next part of each text, as calling the tokenizer encodes a whole text.

        Args:
            texts: ``<string>[batch]``, the next parts.
            fresh: ``<bool>[batch]``, whether a part is the beginning of its text.

        Returns:
            ``RaggedTensor <int32>[batch, (tokens)]``.
        """
        if self.level == "subword":
            # A continuation already contains its space.
            texts = self._normalize(texts)
            begins = fresh | ~tf.strings.regex_full_match(texts, "(?s: .*)")
            return self._match_tokens(tf.where(begins, self._with_leading_space(texts), texts))
        return self(texts)

    def words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Split texts: ``<string>[batch]`` → ``RaggedTensor <string>[batch, (words)]``.

        The result has characters, words, or, at level subword, the words that contain sub-words.
        """
        texts = self._normalize(texts)
        if self.level == "character":
            return tf.strings.unicode_split(texts, "UTF-8")
        texts = tf.strings.regex_replace(texts, f"[{_BOUNDARY}]", " ")
        if self.level == "subword":
            texts = self._with_leading_space(texts)
        else:
            texts = tf.strings.regex_replace(texts, r"[\t\r\f\v\p{Z}]+", " ")
            texts = tf.strings.regex_replace(texts, r" *\n *", "\n")
            texts = tf.strings.regex_replace(texts, r"^ | $", "")
            # A space before each line makes its first word the same token as anywhere else.
            texts = tf.strings.regex_replace(texts, r"(^|\n)([^\n])", r"\1 \2")
        word = r"[^ \n]+"
        if self.punctuation:
            word = r"[\p{L}\p{M}\p{N}'’]+|[^\p{L}\p{M}\p{N}'’ \n]"
        texts = tf.strings.regex_replace(texts, rf"(\n| ?(?:{word})| )", rf"\1{_BOUNDARY}")
        words = tf.strings.split(texts, sep=_BOUNDARY)
        # The split leaves an empty string after the last boundary.
        return tf.ragged.boolean_mask(words, tf.strings.length(words) > 0)

    def _normalize(self, texts: tf.Tensor) -> tf.Tensor:
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        return lower(texts) if self.lowercase else texts

    def _with_leading_space(self, texts: tf.Tensor) -> tf.Tensor:
        """Put a space before every text that is not empty."""
        return tf.where(texts == "", texts, " " + texts)

    def _build_trie(self) -> tf.lookup.StaticHashTable:
        """Build a trie of the tokens as a table: ``256 · prefix + next byte → longer prefix``.

        A prefix that is a token is numbered by its id, the empty prefix by `END`, any other by a
        number above all ids; 0 means that no token has the prefix.
        """
        tokens = self._names[RESERVED:]
        numbers = {token: RESERVED + i for i, token in enumerate(tokens)}
        for token in tokens:
            for length in range(2, len(token)):
                numbers.setdefault(token[:length], RESERVED + len(numbers))
        steps = {256 * numbers[p[:-1]] + p[-1]: n for p, n in numbers.items() if p}
        return tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(steps), tf.int64, shape=[len(steps)]),
                tf.constant(list(steps.values()), tf.int64, shape=[len(steps)]),
            ),
            default_value=0,
        )

    def _match_tokens(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Match longest tokens from left to right: ``<string>[batch]`` → ``<int32>[batch, (ids)]``.

        All texts are processed as one row of bytes: each begins with a space, and no token has a
        space after its first byte, so no match extends into the next text.
        """
        lengths = tf.strings.length(texts)
        total = tf.reduce_sum(lengths)
        found = self._longest_tokens(tf.strings.reduce_join(texts), tf.range(total))

        # Tokens begin at the beginning of each text and wherever the previous token ends. Pointer
        # doubling (1, 2, 4, … tokens ahead of every position) marks all n of them in log n rounds.
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

    def _longest_tokens(self, text: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """Find the id of the longest token at each position ``<int32>[bytes]`` of a text."""
        # The final space ends every match, because no token has one after its first byte.
        data = tf.io.decode_raw(text + " ", tf.uint8)

        def grow(length: Any, places: Any, prefixes: Any, found: Any) -> Any:
            byte = tf.cast(tf.gather(data, places + length), tf.int64)
            longer = self._table.lookup(256 * prefixes + byte)
            places, prefixes = (tf.boolean_mask(a, longer > 0) for a in (places, longer))
            is_token = prefixes < self.size
            found = tf.tensor_scatter_nd_update(
                found,
                tf.boolean_mask(places, is_token)[:, None],
                tf.cast(tf.boolean_mask(prefixes, is_token), tf.int32),
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
        """Look up the token string of each id, in the shape of ``ids``; empty for padding.

        At level subword a token may be one byte of a character.
        """
        return tf.gather(tf.constant(self._names), ids)

    def detokenize(self, ids: tf.Tensor, *, prefix: tf.Tensor | None = None) -> tf.Tensor:
        """Turn ids back into texts that continue ``prefix``.

        Args:
            ids: ``<int32>[batch, time]``, padded with 0 at the end of each row.
            prefix: ``<string>[batch]``, kept unchanged; ``None`` for no prefix.

        Returns:
            ``<string>[batch]``, the prefix included.
        """
        return self.join_tokens(self.ids_to_tokens(ids), prefix=prefix)

    def join_tokens(self, tokens: tf.Tensor, *, prefix: tf.Tensor | None = None) -> tf.Tensor:
        """Join token strings ``<string>[batch, time]`` as `detokenize` joins ids."""
        texts = tf.strings.reduce_join(tokens, axis=1)
        if prefix is None:
            prefix = tf.zeros_like(texts)
        if self.level == "word":
            texts = tf.strings.regex_replace(texts, r"\n ", "\n")
            at_start = tf.strings.regex_full_match(prefix, r"(?s)(.*\s)?")
            texts = tf.where(at_start, tf.strings.regex_replace(texts, r"^ ", ""), texts)
        if self.level == "subword":
            # A model may generate an incomplete character.
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


def _learn_subwords(words: Counter[str], *, size: int, min_count: int) -> list[str]:
    """Learn sub-words: characters, then the merges of byte-pair encoding, in their order.

    Args:
        words: Counts of the words.
        size: Number of all ids, reserved ids and bytes included.
        min_count: Rarer characters are encoded as bytes, and rarer merges are not made.

    Raises:
        UserError: ``size`` is too small for the bytes and the characters.
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
    # Split words at rare characters, so that no sub-word contains one.
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
