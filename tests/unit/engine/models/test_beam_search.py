"""Beam search, over models that are tables: what exhaustive search finds, it finds."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engine.models import beam_search, sampling

END = 2
#: Ids 0 (padding) and 1 (unknown) are never written; 3, 4, … are words.
FIRST = 3


class Table:
    """A model whose scores depend on the row, the last two tokens and the place; its state holds
    the token before the last, the place and the row."""

    def __init__(self, rows, words, longest, seed):
        size = FIRST + words
        rng = np.random.default_rng(seed)
        table = rng.normal(scale=1.5, size=(rows, longest + 1, size, size, size)).astype("float32")
        table[..., :END] = -1e9
        self.table, self.size = table, size
        self.states = [
            tf.fill([rows, 1], END),
            tf.zeros([rows, 1], tf.int32),
            tf.range(rows)[:, None],
        ]

    def step(self, ids, states):
        before, place, row = (s[:, 0] for s in states)
        logits = tf.gather_nd(self.table, tf.stack([row, place, before, ids], axis=1))
        return logits, [ids[:, None], place[:, None] + 1, row[:, None]], self.note(ids)

    def note(self, ids):
        """Of each token: the one before it."""
        return tf.cast(ids[:, None], tf.float32)

    def log_p(self, row, words):
        """Of a text and its end."""
        before, last, total = END, END, 0.0
        for place, word in enumerate([*words, END]):
            logits = self.table[row, place, before, last].astype(np.float64)
            total += logits[word] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
            before, last = last, word
        return total


def search(model, width, longest, *, shortest=0, alpha=1.0, compiled=False):
    rows = len(model.table)
    widths = tf.constant(np.broadcast_to(width, rows), tf.int32)

    def run(widths):
        return beam_search.search(
            model.step,
            model.states,
            end=END,
            beam_width=widths,
            min_length=tf.fill([rows], shortest),
            max_length=tf.constant(np.broadcast_to(longest, rows), tf.int32),
            length_penalty=alpha,
            annotation_size=1,
        )

    found = (tf.function(run, autograph=False) if compiled else run)(widths)
    # What was noted with each token is what its own hypothesis had before it.
    before = np.pad(found.ids, [[0, 0], [0, 0], [1, 0]], constant_values=END)[:, :, :-1]
    np.testing.assert_array_equal(
        found.annotations[..., 0], np.where(found.ids.numpy() > 0, before, 0)
    )
    ids = [[[i for i in beam if i] for beam in row] for row in found.ids.numpy().tolist()]
    return ids, found.scores.numpy()


def everything(model, row, longest, shortest, alpha):
    """All texts by their score, the best first."""
    words = range(FIRST, model.size)
    texts = [
        list(text)
        for n in range(shortest, longest + 1)
        for text in itertools.product(words, repeat=n)
    ]
    scored = [(model.log_p(row, t) / (len(t) + 1) ** alpha, t) for t in texts]
    return sorted(scored, key=lambda pair: -pair[0])


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("shortest", [0, 2])
def test_a_beam_as_wide_as_the_space_finds_what_exhaustive_search_finds(alpha, shortest):
    model = Table(rows=3, words=2, longest=3, seed=5)
    compiled = alpha == 0.6  # an eager search takes a fraction of the time
    found, scores = search(model, 32, 3, shortest=shortest, alpha=alpha, compiled=compiled)
    for row in range(3):
        truth = everything(model, row, 3, shortest, alpha)
        assert len(truth) < 32
        assert found[row][: len(truth)] == [text for _, text in truth]
        np.testing.assert_allclose(scores[row][: len(truth)], [s for s, _ in truth], rtol=1e-4)
        assert np.all(scores[row][len(truth) :] == beam_search.IMPOSSIBLE)


@given(seed=st.integers(0, 10_000), width=st.integers(1, 6), longest=st.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_scores_are_those_of_the_texts_and_texts_differ(seed, width, longest):
    model = Table(rows=2, words=3, longest=4, seed=seed)
    found, scores = search(model, width, longest)
    for row in range(2):
        real = [
            t for t, s in zip(found[row], scores[row], strict=True) if s > beam_search.IMPOSSIBLE
        ]
        assert 1 <= len(real) <= width
        assert len({tuple(t) for t in real}) == len(real)
        assert all(len(t) <= longest for t in real)
        for text, score in zip(real, scores[row], strict=False):
            assert score == pytest.approx(model.log_p(row, text) / (len(text) + 1), rel=1e-4)
        assert list(scores[row]) == sorted(scores[row], reverse=True)


@given(seed=st.integers(0, 10_000), longest=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_a_beam_of_one_is_greedy(seed, longest):
    model = Table(rows=4, words=4, longest=5, seed=seed)
    found, _ = search(model, 1, longest)

    def step(ids, states):
        return model.step(ids, states)[:2]

    logits, states = step(tf.fill([4], END), model.states)
    greedy = sampling.sample(
        step,
        logits,
        states,
        end=END,
        max_length=tf.fill([4], longest),
        temperature=tf.zeros([4]),
        seed=tf.zeros([4], tf.int32),
    ).ids
    assert [row[0] for row in found] == [[i for i in row if i] for row in greedy.numpy().tolist()]


def test_a_wider_beam_finds_better_texts_on_average():
    model = Table(rows=200, words=4, longest=6, seed=1)
    means = [search(model, width, 6, alpha=0.0)[1][:, 0].mean() for width in (1, 2, 5, 20)]
    assert means == sorted(means)
    assert means[-1] > means[0] + 0.05


def test_rows_do_not_see_each_other():
    model = Table(rows=5, words=3, longest=5, seed=3)
    together = search(model, [1, 4, 2, 5, 3], [5, 0, 3, 4, 2])
    for row, (width, longest) in enumerate([(1, 5), (4, 0), (2, 3), (5, 4), (3, 2)]):
        alone = Table(rows=5, words=3, longest=5, seed=3)
        alone.table = alone.table[row : row + 1]
        alone.states = [s[:1] for s in alone.states]
        found, scores = search(alone, width, longest)
        count = min(width, len(scores[0]))
        assert together[0][row][:count] == found[0][:count]
        np.testing.assert_allclose(together[1][row][:count], scores[0][:count], rtol=1e-5)


def test_lengths_are_kept():
    model = Table(rows=3, words=3, longest=6, seed=2)
    for shortest, longest in ((0, 0), (4, 4), (2, 5)):
        found, _ = search(model, 3, longest, shortest=shortest)
        assert all(shortest <= len(row[0]) <= longest for row in found)


def test_no_rows_at_all():
    model = Table(rows=2, words=2, longest=2, seed=1)
    model.table, model.states = model.table[:0], [s[:0] for s in model.states]
    found, scores = search(model, 3, 2)
    assert found == []
    assert scores.shape[0] == 0
