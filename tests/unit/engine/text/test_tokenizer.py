"""Texts to ids and back: characters, words and sub-words, against plain Python."""

from __future__ import annotations

import json
import os
import random
import runpy
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.engine.config.schema import TokenizerConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.ragged import PADDING
from pipelines.engine.export import savedmodel
from pipelines.engine.text.tokenizer import BYTES, END, END_MARK, DocumentTokenizer
from pipelines.engine.text.vocabulary import RESERVED, UNKNOWN
from tests.support import ROOT
from tests.support.alone import stands_alone

TEXTS = [
    "It was the best of times, it was the worst of times.\n",
    "Don't (ever) say: never!\nÉté – naïve 🙂",
]


def documents(level="character", texts=TEXTS, **settings) -> DocumentTokenizer:
    return DocumentTokenizer.fit(texts, TokenizerConfig(**settings), level)


def ids_of(processor: DocumentTokenizer, batch: list[str]) -> list[list[int]]:
    return processor(tf.constant(batch, tf.string, shape=[len(batch)])).to_list()


def join(processor: DocumentTokenizer, text: str, after: str | None = None) -> str:
    ids = processor(tf.constant([text])).to_tensor(0)
    before = None if after is None else tf.constant([after])
    return processor.detokenize(ids, prefix=before).numpy()[0].decode()


# Characters and words


@pytest.mark.parametrize("text", TEXTS)
def test_characters_come_back_as_they_were(text):
    processor = documents()
    assert processor.encode([text]).lengths.tolist() == [len(text)]
    assert join(processor, text) == text


@given(st.lists(st.text(alphabet="IDt aéÉ🙂\n.", max_size=30), min_size=1, max_size=10))
@example([""])
@settings(max_examples=10)
def test_any_text_of_known_characters_comes_back(batch):
    processor = documents()
    ids = processor(tf.constant(batch)).to_tensor(0)
    found = processor.detokenize(ids, prefix=tf.fill([len(batch)], "x ")).numpy()
    assert [text.decode() for text in found] == ["x " + text for text in batch]


@pytest.mark.parametrize(
    ("punctuation", "words"),
    [
        (True, " It| was| the| best| of| times|,| it| was| the| worst| of| times|.|\n"),
        (False, " It| was| the| best| of| times,| it| was| the| worst| of| times.|\n"),
    ],
)
def test_words(punctuation, words):
    processor = documents("word", punctuation=punctuation)
    found = processor.words(tf.constant(TEXTS[:1])).to_list()[0]
    assert [w.decode() for w in found] == words.split("|")
    assert join(processor, TEXTS[0]) == TEXTS[0]


ODD = "He said \"well-known\" things; $3.50 (a/b),\n\n10,000... x=y [1] 'so'\n"


@pytest.mark.parametrize("text", [*TEXTS, ODD])
@pytest.mark.parametrize("punctuation", [True, False])
def test_words_come_back_as_they_were(text, punctuation):
    processor = DocumentTokenizer.fit([text], TokenizerConfig(punctuation=punctuation), "word")
    assert join(processor, text) == text
    assert UNKNOWN not in processor.encode([text]).values


@given(st.lists(st.text("ab .,'\n\t(é\u00a0\ue000-", max_size=20), min_size=1, max_size=10))
@settings(max_examples=25)
def test_any_words_come_back_but_for_runs_of_white_space(batch):
    def whole(text: str) -> str:
        lines = text.replace("\ue000", " ").split("\n")
        return "\n".join(" ".join(line.split()) for line in lines)

    processor = documents("word", ["a", *batch])
    found = processor.detokenize(processor(tf.constant(batch)).to_tensor(0)).numpy()
    assert [text.decode() for text in found] == [whole(text) for text in batch]


@pytest.mark.parametrize(
    ("after", "text", "whole"),
    [
        ("", "It was", "It was"),
        ("It", "was the", "It was the"),
        ("It ", "was the", "It was the"),
        ("times", "\nIt", "times\nIt"),
        ("times\n", "It", "times\nIt"),
        ("say", "", "say"),
    ],
)
def test_words_go_on_from_a_prompt(after, text, whole):
    assert join(documents("word"), text, after) == whole


def test_what_is_unknown_and_lower_case():
    processor = documents(lowercase=True)
    assert "I" not in processor.vocabulary
    assert processor.encode(["Qit"]).values.tolist()[0] == UNKNOWN
    assert documents("word", min_count=2).vocabulary[1:] == [
        "\n", " of", " the", " times", " was",
    ]  # fmt: skip


@pytest.mark.parametrize("level", ["character", "word"])
def test_nothing_before_is_an_empty_text_before(level):
    for text in TEXTS:
        assert join(documents(level), text) == join(documents(level), text, after="")


def test_names_can_be_replaced_before_they_are_joined():
    processor = documents("word")
    ids = processor(tf.constant(["It was Qing"])).to_tensor(0)
    names = tf.where(ids == UNKNOWN, " Möbius", processor.ids_to_tokens(ids))
    assert processor.join_tokens(names).numpy()[0].decode() == "It was Möbius"
    after = tf.constant(["Yes"])
    assert processor.join_tokens(names, prefix=after).numpy()[0].decode() == "Yes It was Möbius"


# Sub-words

#: All bytes and a few pieces; few enough that most of a text is no piece.
FEW = ["", " the", "the", "he", " t", "é", "éa", " é", "漢字", "漢", "字a", "ab", "abab", "🙂"]

ANY_TEXT = st.text(max_size=40) | st.text("abthe é漢字🙂\n\t\x00\u00a0\ue000", max_size=40)


@pytest.fixture(scope="module")
def learned() -> DocumentTokenizer:
    return documents("subword", [*TEXTS * 3, "a\u00a0b\ue000c\n\n  d"], vocabulary=300)


@pytest.fixture(scope="module")
def few() -> DocumentTokenizer:
    return DocumentTokenizer(FEW, level="subword")


@pytest.fixture(scope="module")
def compiled(learned, few):
    """Each as it is exported: ``texts`` → ids and the texts that they make."""

    def there_and_back(processor):
        def run(texts):
            ids = processor(texts)
            return ids, processor.detokenize(ids.to_tensor(0))

        return tf.function(run, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)

    return [there_and_back(processor) for processor in (learned, few)]


@given(st.lists(ANY_TEXT, max_size=5))
@example([])
@example([""])
@example(["", " ", "", "  a", "\x00", "a  ", "\r\n\r\n", ""])
@settings(max_examples=100)
def test_every_text_comes_back_to_the_character(compiled, batch):
    for there_and_back in compiled:
        ids, texts = there_and_back(tf.constant(batch, tf.string, shape=[len(batch)]))
        assert [text.decode() for text in texts.numpy()] == batch
        assert (ids.dtype, ids.row_splits.dtype) == (tf.int32, tf.int64)
        assert not np.isin(ids.values, [PADDING, UNKNOWN, END]).any()


def reference(text: str, vocabulary: list[str]) -> list[bytes]:
    """Character by character, in plain Python: the longest piece, or the bytes of a character."""
    text = text and " " + text
    found, at = [], 0
    while at < len(text):
        pieces = [p for p in vocabulary if p and text.startswith(p, at)]
        piece = max(pieces, key=len, default="")
        found += [piece.encode()] if piece else [bytes([b]) for b in text[at].encode()]
        at += len(piece) or 1
    return found


# ASCII's characters are pieces anyway; a space is where a piece begins.
PIECES = st.lists(
    st.from_regex(r" ?[abé漢🙂]{1,4}", fullmatch=True).filter(lambda p: p not in BYTES),
    max_size=12,
    unique=True,
)


@given(PIECES, st.lists(st.text("aabé漢字🙂 \n", max_size=30), max_size=8))
@example(["ab", "abcd"], ["abcabcd"])
@example(["aa", " a"], ["aaa", "aaaa", "", "a", "a a"])
@settings(max_examples=25)
def test_a_text_is_read_by_its_longest_pieces(pieces, batch):
    processor = DocumentTokenizer([END_MARK, *pieces], level="subword")
    ids = processor(tf.constant(batch, tf.string, shape=[len(batch)]))
    names = ids.with_values(processor.ids_to_tokens(ids.values)).to_list()
    assert names == [reference(text, pieces) for text in batch]


@given(st.lists(ANY_TEXT, min_size=1, max_size=6))
@settings(max_examples=50)
def test_a_batch_gives_what_its_texts_give_alone(compiled, batch):
    for there_and_back in compiled:
        together = there_and_back(tf.constant(batch))[0].to_list()
        alone = [there_and_back(tf.constant([text]))[0].to_list()[0] for text in batch]
        assert together == alone


def test_a_long_text_is_read_like_a_short_one(learned):
    rng = random.Random(0)
    words = [rng.choice(["It", "was", "naïve", "漢", "times,", "never!\n"]) for _ in range(30_000)]
    text = " ".join(words)
    alone = {word: ids_of(learned, [word])[0] for word in set(words)}
    assert ids_of(learned, [text, "It"]) == [[i for w in words for i in alone[w]], alone["It"]]


def test_a_word_is_the_same_piece_everywhere(learned):
    first, again = (ids_of(learned, [text])[0] for text in ("times", "It was times"))
    assert again[-len(first) :] == first
    assert learned.ids_to_tokens(tf.constant(first)).numpy().tolist() == [b" times"]
    assert join(learned, " It", after="say") == "say  It"
    assert join(learned, "It", after="say") == "say It"
    assert join(learned, "It", after="") == "It"


def test_what_is_no_piece_is_bytes(few):
    (ids,) = ids_of(few, ["Ω!"])
    assert ids == [END + 1 + byte for byte in " Ω!".encode()]
    assert few.ids_to_tokens(tf.constant(ids)).numpy().tolist() == [b" ", b"\xce", b"\xa9", b"!"]
    assert few.size == RESERVED + 256 + len(FEW)
    # The first half of one character, and the last of another.
    halves = tf.constant([[ids[1], ids[3]], [ids[3], ids[2]]])
    texts = few.detokenize(halves, prefix=tf.constant(["x", ""])).numpy()
    assert [t.decode() for t in texts] == ["x\ufffd!", "!\ufffd"]


def test_broken_utf8_is_as_if_it_were_marked(few):
    broken = few(tf.constant([b"caf\xe9 \xff"])).to_list()
    assert broken == ids_of(few, ["caf\ufffd \ufffd"])


def test_pieces_are_parts_of_words(learned):
    pieces = learned.vocabulary[1 + len(BYTES) :]
    assert learned.size == 300
    assert all(" " not in p[1:] and "\n" not in p for p in pieces)
    # What is frequent is one piece, and a mark is none of a word.
    assert " times" in pieces
    assert not [p for p in pieces if "," in p and len(p.strip()) > 1]
    glued = documents("subword", TEXTS * 3, vocabulary=330, punctuation=False)
    assert " times," in glued.vocabulary


def test_words_are_learned_as_they_stand_in_a_text():
    """Behind the end of a line there is no space, behind a space none is lost."""
    text = "one two\nthree  four\tfive"
    processor = documents("subword", [text] * 5, vocabulary=400)
    names = processor.ids_to_tokens(processor(tf.constant([text])).values).numpy().tolist()
    assert names == [b" one", b" two", b"\n", b"three", b" ", b" four", b"\t", b"five"]


@given(st.lists(st.text("aábé漢 ", max_size=8), min_size=1, max_size=6), st.integers(1, 4))
@settings(max_examples=50)
def test_a_rare_character_is_bytes_and_in_no_piece(texts, min_count):
    processor = documents("subword", texts, min_count=min_count)
    counts = Counter(c for text in texts for c in text)
    frequent = {c for c in counts if counts[c] >= min_count and not c.isascii()}
    pieces = processor.vocabulary[1 + len(BYTES) :]
    assert {p for p in pieces if len(p) == 1} == frequent
    assert {c for p in pieces for c in p if not c.isascii()} == frequent


def test_rare_pieces_are_not_learned():
    texts = ["abcd"] * 3 + ["xyz"] * 2
    assert documents("subword", texts, min_count=3).vocabulary[257:][-1] == " abcd"
    assert "x" not in "".join(documents("subword", texts, min_count=3).vocabulary[257:])
    assert " xyz" in documents("subword", texts, min_count=2).vocabulary


def test_a_vocabulary_has_room_for_bytes_and_characters():
    characters = {c for text in TEXTS for c in text if not c.isascii()}
    least = RESERVED + 1 + 256 + len(characters)
    with pytest.raises(UserError, match=f"text.vocabulary: .* at least {least}") as error:
        documents("subword", vocabulary=least - 1)
    assert "\n" not in str(error.value)
    assert set(documents("subword", vocabulary=least).vocabulary[257:]) == characters
    assert documents("subword", vocabulary=259, min_count=9).vocabulary == [END_MARK, *BYTES]
    assert documents("subword", [""], vocabulary=300).vocabulary == [END_MARK, *BYTES]


def test_sub_words_of_lower_case():
    processor = documents("subword", ["ÉTÉ İT"] * 3, lowercase=True)
    assert "É" not in "".join(processor.vocabulary[257:])
    assert " été" in processor.vocabulary
    assert join(processor, "Été IT") == "été it"
    assert ids_of(processor, ["ÉTÉ"]) == ids_of(processor, ["été"])


LEARN = """
import hashlib, json, random
from pipelines.engine.config.schema import TokenizerConfig
from pipelines.engine.text.tokenizer import DocumentTokenizer

rng = random.Random(5)
words = ["".join(rng.choices("abcdeéü漢", k=rng.randrange(1, 9))) for _ in range(4000)]
learned = DocumentTokenizer.fit(words, TokenizerConfig(vocabulary=1500), "subword")
assert learned.size == 1500
found = hashlib.sha256(json.dumps(learned.vocabulary).encode()).hexdigest()
print(found)
"""


def test_same_texts_same_pieces_in_every_process(tmp_path):
    """Though most pairs of so many random words are as frequent as others."""
    script = tmp_path / "learn.py"
    script.write_text(LEARN, encoding="utf-8")
    hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # not this process's own
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed,
             "RAYON_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.stdout.strip() == runpy.run_path(str(script))["found"]


# Files


@pytest.mark.parametrize("level", ["character", "word", "subword"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_saved_and_read_back(level, lowercase, tmp_path):
    processor = documents(level, vocabulary=300, punctuation=False, lowercase=lowercase)
    processor.save(tmp_path)
    again = DocumentTokenizer.load(tmp_path)
    assert again.vocabulary == processor.vocabulary
    assert (again.level, again.lowercase, again.punctuation) == (level, lowercase, False)
    texts = [*TEXTS, "Ω漢 unseen"]
    assert again.encode(texts).values.tolist() == processor.encode(texts).values.tolist()
    words = json.loads((tmp_path / "vocabulary.json").read_text(encoding="utf-8"))
    assert len(words) == processor.size - RESERVED - (256 if level == "subword" else 0)


def test_keys_that_are_not_read_may_be_saved_too(tmp_path):
    documents("word").save(tmp_path)
    saved = json.loads((tmp_path / "text.json").read_text())
    (tmp_path / "text.json").write_text(json.dumps(saved | {"format": "plain", "min_count": 1}))
    assert ids_of(DocumentTokenizer.load(tmp_path), TEXTS) == ids_of(documents("word"), TEXTS)


SERVE = """
import json
import tensorflow as tf

loaded = tf.saved_model.load(sys.argv[1])
answer = loaded.there_and_back(tf.constant(json.loads(sys.argv[2])))
found = {name: tensor.numpy().tolist() for name, tensor in answer.items()}
print(json.dumps(found | {"back": [text.decode() for text in found["back"]]}))
"""


def test_saved_model_of_core_ops_runs_without_this_project(learned, tmp_path):
    class Served(tf.Module):
        def __init__(self):
            super().__init__()
            self.documents = learned

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        def there_and_back(self, texts):
            ids = self.documents.padded(texts)
            return {"ids": ids, "back": self.documents.detokenize(ids)}

    tf.saved_model.save(Served(), tmp_path / "m")
    assert savedmodel.ops(tmp_path / "m") <= set(tf.raw_ops.__dict__)
    batch = [*TEXTS, "", "Ω漢 unseen  "]
    asked = [str(tmp_path / "m"), json.dumps(batch)]
    answer = stands_alone(SERVE, *asked, folder=tmp_path, banned=["tokenizers"])
    assert answer["back"] == batch
    assert answer["ids"] == learned.padded(tf.constant(batch)).numpy().tolist()
