"""Text to ids: words against plain Python, cuts against slices, the same in every setting."""

import functools
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.ragged import PADDING, Ragged
from pipelines.engine.text.vocabulary import RESERVED, UNKNOWN, build_vocabulary
from pipelines.engine.text.words import Tokenizer, split_words
from tests.support import ROOT

UNSPACED = "漢字日本かなカナไทยลาວខ្មែမြန်"
LETTERS = "abzABZéÉßøØñÑİIıΣσςаЯ한국हिन्दी" + UNSPACED
MARKS = "\u0301\u0308\u20e3\ufe0f"
OTHERS = "0123½²'’'’<>/!?.,;:-_()#@€+\"“”…🙂👍🏽❤🇩🇪\ufffd"
SPACES = " \t\n\r\x0b\x00\x7f\x85\xa0\u2009\u2028\u2029\u3000\u200b\u200d\ufeff\xad"

texts = st.text(st.sampled_from(LETTERS + MARKS + OTHERS + SPACES + "abcABC   "), max_size=30)


def words(text: str | bytes, *, lowercase: bool = True) -> list[str]:
    return [w.decode() for w in split_words(tf.constant([text]), lowercase=lowercase)[0].numpy()]


def reference_words(text: str, *, lowercase: bool) -> list[str]:
    """The rule in plain Python: each character becomes the letter of its kind, and kinds are
    easily matched."""

    def kind(c: str) -> str:
        category = unicodedata.category(c)
        if category[0] in "ZC":
            return " "
        if category[0] == "M":
            return "M" if c in UNSPACED else "m"
        if c in UNSPACED:
            return "s"
        if category[0] in "LN":
            return "w"
        return "a" if c in "'’" else "s"

    text = text.lower() if lowercase else text
    text = re.sub(r"<[/!]?[a-zA-Z][^<>]{0,200}>", " ", text)
    kinds = "".join(map(kind, text))
    return [text[slice(*m.span())] for m in re.finditer(r"[sM][mM]*|[wm]+(a+[wm]+)*|a+", kinds)]


# Words


@given(texts, st.booleans())
@example("'''a'''b'''", True)
@example("<b>x</b><br/><!DOCTYPE x>< b>", True)
@settings(max_examples=300)
def test_words_follow_the_rule(text, lowercase):
    assert words(text, lowercase=lowercase) == reference_words(text, lowercase=lowercase)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop", ["don't", "stop"]),
        ("it’s O'Neill's", ["it’s", "o'neill's"]),
        ("'tis the dogs' 'n'", ["'", "tis", "the", "dogs", "'", "'", "n", "'"]),
        ("''quoted''", ["''", "quoted", "''"]),
        ("good,bad...", ["good", ",", "bad", ".", ".", "."]),
        ("3.5/10 1,000", ["3", ".", "5", "/", "10", "1", ",", "000"]),
        ("well-made snake_case", ["well", "-", "made", "snake", "_", "case"]),
        ("one<br /><br />two<BR>three", ["one", "two", "three"]),
        ('<a href="x.html">link</a> </p>', ["link"]),
        ("1 < 2 > 0 <3 </3", ["1", "<", "2", ">", "0", "<", "3", "<", "/", "3"]),
        ("🙂🙂 👍🏽", ["🙂", "🙂", "👍", "🏽"]),
        ("❤️ 1️⃣", ["❤️", "1️⃣"]),
        ("日本語のテスト", list("日本語のテスト")),
        ("ที่นี่ดี", ["ที่", "นี่", "ดี"]),
        ("한국어 영화", ["한국어", "영화"]),
        ("हिन्दी फ़िल्म", ["हिन्दी", "फ़िल्म"]),
        ("CAFÉ cafe\u0301", ["café", "cafe\u0301"]),
        ("ÀÉÎÕÜ ΑΘΉΝΑ МОСКВА", ["àéîõü", "αθήνα", "москва"]),
        ("ΣΊΣΥΦΟΣ", ["σίσυφος"]),
        ("İI ÍÌĨĮ", ["i\u0307i", "íìĩį"]),
        ("\ufeffmark\u200b zero", ["mark", "zero"]),
        ("a\u0085b\u2028c\u00a0d\u3000e\x00f", list("abcdef")),
        ("", []),
        (" \t\r\n\u3000\u200b", []),
    ],
)
def test_words_of_real_text(text, expected):
    assert words(text) == expected


def test_case_is_kept_if_asked():
    assert words("The ÉTÉ <B>I</B>", lowercase=False) == ["The", "ÉTÉ", "I"]


@given(st.lists(st.one_of(st.binary(max_size=6), st.text(max_size=4).map(str.encode))))
@example([b"caf\xe9", b" ok \xff\xfe", b"\xed\xa0\x80\xf4\x90\x80\x80", b"\xf0\x9f\x99"])
def test_broken_utf8_is_as_if_it_were_marked(pieces):
    raw = b"".join(pieces)
    assert words(raw) == words(raw.decode("utf-8", errors="replace"))


def test_broken_utf8_is_a_word():
    assert words(b"caf\xe9 noir") == ["caf", "\ufffd", "noir"]


#: The locale is read when it is needed first. Processes are forked before: importing takes longest.
LOWER = """
import json, os, sys
import tensorflow as tf
from pipelines.engine.text.words import split_words
for locale in sys.argv[2:]:
    if (child := os.fork()) == 0:
        os.environ["LC_ALL"] = locale
        words = split_words(tf.constant([sys.argv[1]]), lowercase=True)
        by_tensorflow = tf.strings.lower(sys.argv[1], encoding="utf-8").numpy()
        print(json.dumps([b" ".join(words[0].numpy()).decode(), by_tensorflow.decode()]))
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_lower_case_does_not_depend_on_the_locale():
    text = "TITLE ISSIZ İÇ Í\u0301 Ì Ĩ Į Į\u0303 J\u0303"
    done = subprocess.run(
        [sys.executable, "-c", LOWER, text, "tr_TR.UTF-8", "lt_LT.UTF-8"],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    turkish, lithuanian = map(json.loads, done.stdout.splitlines())
    assert turkish[0] == lithuanian[0] == "title issiz i\u0307ç í\u0301 ì ĩ į į\u0303 j\u0303"
    assert turkish[1] != lithuanian[1], "the locales make no difference here"


def test_texts_of_any_length():
    text = "word, " * 50_000
    tokenizer = Tokenizer(["word", ","])
    assert tokenizer.encode([text, "", "word"]).lengths.tolist() == [100_000, 0, 1]
    assert len(words("x" * 100_000)) == 1
    assert len(words("<a" + "x" * 100_000)) == 2


# Cuts


@pytest.mark.parametrize("keep", ["head", "tail", "ends"])
def test_cut_equals_slices(keep):
    def cut(row, limit):
        if len(row) <= limit:
            return row
        tail = {"head": 0, "tail": limit, "ends": limit // 2}[keep]
        return row[: limit - tail] + row[len(row) - tail :]

    rows = [[f"w{i}" for i in range(n)] for n in range(12)]
    texts = tf.constant([" ".join(row) for row in rows])
    for limit in range(1, 14):
        tokenizer = Tokenizer(["w0"], max_tokens=limit, keep=keep)
        got = [[w.decode() for w in row] for row in tokenizer.words(texts).to_list()]
        assert got == [cut(row, limit) for row in rows]


def test_without_a_limit_nothing_is_cut():
    text = " ".join(["a"] * 5_000)
    assert Tokenizer(["a"], max_tokens=None).encode([text]).lengths.tolist() == [5_000]


# Ids


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(["the", "film", "don't", "café", "🙂", "!"], max_tokens=5, keep="ends")


@pytest.fixture(scope="module")
def compiled(tokenizer):
    return tf.function(
        tokenizer, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
    )


TEXTS = [
    "The film!", "", "don't  DON'T café 🙂", "nobody has seen this", "  ", "the " * 9,
    "CAFE\u0301<br/>the", "🙂🙂", "the film is the film !",
]  # fmt: skip


def test_ids_are_places_in_the_vocabulary(tokenizer):
    assert tokenizer(tf.constant(TEXTS)).to_list() == [
        [2, 3, 7], [], [4, 4, 5, 6], [1, 1, 1, 1], [], [2, 2, 2, 2, 2],
        [1, 2], [6, 6], [2, 3, 1, 3, 7],
    ]  # fmt: skip
    assert tokenizer.size == RESERVED + 6


def test_padding_is_never_produced_and_the_pad_word_is_unknown():
    tokenizer = Tokenizer(["a"])
    ids = tokenizer(tf.constant(["a <pad> 0 \x00 [PAD] <unk>", "b"]))
    assert PADDING not in ids.values.numpy()
    assert ids[1].numpy().tolist() == [UNKNOWN]


@given(st.lists(texts, max_size=8))
@settings(max_examples=50)
def test_a_batch_gives_what_its_texts_give_alone(compiled, batch):
    together = compiled(tf.constant(batch, tf.string, shape=[len(batch)])).to_list()
    assert together == [compiled(tf.constant([text])).to_list()[0] for text in batch]


def test_many_texts_are_encoded_in_order(tokenizer):
    batch = ["the", "film film", ""] * 1_001
    ids = tokenizer.encode(batch)
    assert ids.values.dtype == np.int32
    assert ids.lengths.tolist() == [1, 2, 0] * 1_001
    assert ids.values.tolist() == [2, 3, 3] * 1_001


def test_padded_is_a_rectangle_of_at_least_one_step(tokenizer):
    assert tokenizer.padded(tf.constant(["the film", "", "café"])).numpy().tolist() == [
        [2, 3],
        [0, 0],
        [5, 0],
    ]
    assert tokenizer.padded(tf.constant(["", ""])).numpy().tolist() == [[0], [0]]
    assert tokenizer.padded(tf.constant([], tf.string)).shape == (0, 1)


def test_graph_and_saved_model_give_the_same(tokenizer, tmp_path):
    class Served(tf.Module):
        def __init__(self):
            super().__init__()
            self.tokenizer = tokenizer

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        def ids(self, texts):
            return self.tokenizer.padded(texts)

    served, batch = Served(), tf.constant([*TEXTS, b"caf\xe9"])
    eager = tokenizer.padded(batch).numpy()
    np.testing.assert_array_equal(served.ids(batch), eager)
    tf.saved_model.save(served, tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.ids(batch), eager)
    np.testing.assert_array_equal(loaded.ids(tf.constant([""])), [[0]])


# Vocabularies

AS_IS, FOLDED = (functools.partial(split_words, lowercase=folded) for folded in (False, True))


@given(st.lists(texts, min_size=1, max_size=6), st.integers(3, 12), st.integers(1, 3))
@settings(max_examples=20)
def test_vocabulary_is_the_most_frequent_words(batch, size, min_count):
    counts = Counter(w for text in batch for w in reference_words(text, lowercase=True))
    ranked = sorted(counts, key=lambda w: (-counts[w], w))
    expected = [w for w in ranked if counts[w] >= min_count][: size - RESERVED]
    if not expected:
        with pytest.raises(UserError, match=f"no word occurs {min_count} times"):
            build_vocabulary(batch, FOLDED, size=size - RESERVED, min_count=min_count)
        return
    vocabulary = build_vocabulary(batch, FOLDED, size=size - RESERVED, min_count=min_count)
    assert vocabulary == expected
    assert Tokenizer(vocabulary).size <= size


def test_ties_are_in_the_order_of_code_points_and_case_counts_if_kept():
    texts = ["b a é Z 🙂 ぁ", "z a"]
    assert build_vocabulary(texts, AS_IS, size=99, min_count=1) == [
        "a", "Z", "b", "z", "é", "ぁ", "🙂",
    ]  # fmt: skip
    assert build_vocabulary(texts, FOLDED, size=2, min_count=1) == ["a", "z"]


def test_no_texts_have_no_vocabulary():
    with pytest.raises(UserError, match="in the 0 training texts"):
        build_vocabulary([], FOLDED, size=9, min_count=1)


@pytest.mark.parametrize(
    "vocabulary",
    [["a"], ["\n", "", "a\x85b", "c\u2028d", "e\x0cf", "g\x1ch", "\ufeff", " ", "🙂", "\r", "é"]],
)
def test_saved_vocabulary_is_read_back_to_the_character(vocabulary, tmp_path):
    Tokenizer(vocabulary).save(tmp_path)
    assert Tokenizer.read_vocabulary(tmp_path) == vocabulary


# Ragged


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6))
def test_ragged_rows(rows):
    lengths = np.array([len(r) for r in rows], np.int64)
    ragged = Ragged(np.array([i for r in rows for i in r], np.int32), lengths)
    assert [r.tolist() for r in ragged] == rows
