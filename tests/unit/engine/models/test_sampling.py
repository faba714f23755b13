"""Sampling, with models that are written down: a table of logits, or one that spells."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engine.models import sampling

END = 2


def choose(logits, chance, temperature=1.0, **limits):
    rows = len(logits)
    return sampling.sample_token(
        tf.constant(logits, tf.float32),
        tf.fill([rows], chance) if np.isscalar(chance) else tf.constant(chance, tf.float32),
        tf.fill([rows], temperature),
        **limits,
    ).numpy()


def reference(logits, chance, temperature, top_k, top_p):
    """The same draw in NumPy, one row."""
    if temperature <= 0:
        return int(np.argmax(logits))
    order = np.argsort(-logits, kind="stable")
    z = logits[order].astype(np.float64) / temperature
    p = np.exp(z - z[0])
    p /= p.sum()
    kept = np.cumsum(p) - p < top_p
    if top_k is not None:
        kept &= np.arange(len(p)) < top_k
    p = np.where(kept, p, 0)
    edges = np.cumsum(p) / p.sum()
    # Draws that fall on an edge may round to either side.
    if np.abs(edges - chance).min() < 1e-5 or np.abs(np.cumsum(p) - top_p).min() < 1e-5:
        return None
    return int(order[np.searchsorted(edges, chance, side="right")])


@given(
    seed=st.integers(0, 10_000),
    vocabulary=st.integers(1, 9),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.sampled_from([None, 1, 2, 5, 50]),
    top_p=st.sampled_from([0.2, 0.7, 0.95, 1.0]),
)
@settings(max_examples=150)
def test_draws_as_defined(seed, vocabulary, temperature, top_k, top_p):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.0, size=(6, vocabulary)).astype("float32")
    chance = rng.random(6).astype("float32")
    found = choose(logits, chance, temperature, top_k=top_k, top_p=top_p)
    for row in range(6):
        expected = reference(logits[row], chance[row], temperature, top_k, top_p)
        assert expected is None or found[row] == expected


def test_draws_have_the_probabilities_of_the_model():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    chance = (np.arange(1000) + 0.5) / 1000
    found = choose(np.tile(logits, (1000, 1)), chance)
    np.testing.assert_allclose(np.bincount(found) / 1000, [0.5, 0.3, 0.15, 0.05], atol=0.002)


def test_temperature_near_zero_is_greedy():
    logits = np.random.default_rng(0).normal(size=(200, 30)).astype("float32")
    chance = np.random.default_rng(1).random(200).astype("float32")
    np.testing.assert_array_equal(choose(logits, chance, 1e-6), logits.argmax(-1))
    np.testing.assert_array_equal(choose(logits, chance, 0.0), logits.argmax(-1))
    assert choose([[1.0, 3.0, 3.0]], 0.99, 0.0) == [1]  # the first of equals


def speller(*words: list[int]):
    """A model that wants to write row i's word, one token a step, and then the end."""
    longest = max(map(len, words)) + 2
    table = tf.constant([[*w, *[END] * (longest - len(w))] for w in words])

    def logits_at(t, rows):
        wanted = tf.gather(tf.gather(table, rows), tf.minimum(t, longest - 1), batch_dims=1)
        return 20.0 * tf.one_hot(wanted, 12)

    def step(ids, states):
        t, rows, _ = states
        # What was chosen is what is read, and nothing once a row has ended.
        return logits_at(t, rows), [t + 1, rows, ids]

    count = len(words)
    first = logits_at(tf.zeros([count], tf.int32), tf.range(count))
    return step, first, [tf.ones([count], tf.int32), tf.range(count), tf.zeros([count], tf.int32)]


def sample(model, max_length, temperature=0.0, seed=0, **limits):
    step, logits, states = model
    rows = logits.shape[0]

    @tf.function(autograph=False)
    def run():
        return sampling.sample(
            step,
            logits,
            states,
            end=END,
            max_length=tf.constant(np.broadcast_to(max_length, rows), tf.int32),
            temperature=tf.fill([rows], temperature),
            seed=tf.constant(np.broadcast_to(seed, rows), tf.int32),
            **limits,
        )

    return run().ids.numpy()


def test_each_output_is_the_next_input():
    """A model that counts on from whatever it is given."""

    def step(ids, states):
        return 20.0 * tf.one_hot(ids + 1, 12), states

    first = 20.0 * tf.one_hot([3, 6], 12)
    assert sample((step, first, []), 4).tolist() == [[3, 4, 5, 6], [6, 7, 8, 9]]


WORDS = [[5, 6, 7], [], [9, 9, 9, 9, 9, 4], [3]]


def test_rows_end_at_the_end_mark():
    found = sample(speller(*WORDS), 20)
    assert [r[r > 0].tolist() for r in found] == WORDS
    assert found.shape == (4, 7)  # and no step is spent once all have ended


@pytest.mark.parametrize("limits", [[0, 0, 0, 0], [2, 5, 3, 1], [1, 0, 9, 9]])
def test_rows_end_at_their_length(limits):
    found = sample(speller(*WORDS), limits)
    assert [r[r > 0].tolist() for r in found] == [w[:n] for w, n in zip(WORDS, limits, strict=True)]


def chain(rows: int, seed: int = 0):
    """A model whose scores depend on the last id: a Markov chain that never ends."""
    scores = np.random.default_rng(seed).normal(size=(12, 12)).astype("float32")
    scores[:, : END + 1] = -1e9
    table = tf.constant(scores)

    def step(ids, states):
        return tf.gather(table, ids), states

    return step, tf.repeat(table[3:4], rows, axis=0), []


def test_same_seed_same_text_whatever_the_company():
    alone = [sample(chain(1), 30, 1.0, seed)[0] for seed in (7, 8)]
    assert alone[0].tolist() == sample(chain(1), 30, 1.0, 7)[0].tolist()
    assert alone[0].tolist() != alone[1].tolist()
    together = sample(chain(3), [30, 10, 30], 1.0, [7, 1, 8])
    np.testing.assert_array_equal(together[[0, 2]], alone)


def test_a_longer_limit_does_not_change_the_beginning():
    short, long = (sample(chain(2), n, 1.0, [1, 2]) for n in (5, 25))
    np.testing.assert_array_equal(short, long[:, :5])


def test_no_row_at_all():
    step, _, _ = chain(1)
    none = tf.zeros([0], tf.int32)
    found = sampling.sample(
        step, tf.zeros([0, 12]), [], end=END, max_length=none, temperature=tf.zeros([0]), seed=none
    )
    assert found.ids.shape[0] == 0
