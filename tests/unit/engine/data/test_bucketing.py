"""Batches: every row once, in few shapes, in an order that a resumed run repeats."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.engine.data.bucketing import Buckets, lengths_of, shuffled
from pipelines.engine.data.ragged import PADDING, Ragged

lengths_of_rows = st.lists(st.integers(0, 12), min_size=1, max_size=30)
few = settings(max_examples=12)


def rows_of(lengths: list[int]) -> Ragged:
    """Row ``i`` holds ``i + 1`` only, so that a row tells which one it is."""
    lengths = np.asarray(lengths, np.int64)
    return Ragged(np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths), lengths)


def fit(lengths: list[int], buckets: int, batch_size: int) -> Buckets:
    return Buckets.fit(np.asarray(lengths), buckets=buckets, batch_size=batch_size)


def batches_of(buckets: Buckets, lengths: list[int], order) -> list[tuple[np.ndarray, np.ndarray]]:
    targets = np.arange(len(lengths), dtype=np.int32)
    data = buckets.batches(rows_of(lengths), targets, np.asarray(order, np.int64))
    return [(ids.numpy(), which.numpy()) for ids, which in data]


@given(
    lengths_of_rows,
    st.integers(1, 5),
    st.integers(1, 7),
    st.none() | st.integers(1, 40),
    st.integers(0, 5),
)
@example([0], 3, 2, None, 0)
@example([0, 0, 0, 0, 0], 4, 2, None, 0)
@example([5], 12, 64, None, 0)
@few
def test_every_row_comes_once_and_whole(lengths, buckets, batch_size, batch_tokens, seed):
    """The numbers of batches and of padded tokens are as reported, within the token budget."""
    fitted = Buckets.fit(
        np.asarray(lengths), buckets=buckets, batch_size=batch_size, batch_tokens=batch_tokens
    )
    batches = batches_of(fitted, lengths, shuffled(len(lengths), seed=seed, epoch=0))
    seen = []
    for ids, which in batches:
        assert ids.dtype == np.int32
        assert len(ids) == len(which)
        if batch_tokens is None:
            assert len(ids) <= batch_size
        else:
            assert ids.size <= max(batch_tokens, ids.shape[1])  # a row longer than all comes alone
        assert ids.shape[1] in fitted.edges
        for row, i in zip(ids, which, strict=True):
            expected = [i + 1] * lengths[i]
            assert row.tolist() == expected + [PADDING] * (len(row) - len(expected))
            seen.append(int(i))
    assert sorted(seen) == list(range(len(lengths)))
    assert fitted.steps(np.asarray(lengths)) == len(batches)
    assert fitted.padded(np.asarray(lengths)) == sum(ids.size for ids, _ in batches)


@given(lengths_of_rows, st.integers(1, 40))
def test_edges_rise_to_the_longest_row(lengths, buckets):
    edges = fit(lengths, buckets, 1).edges
    assert 1 <= len(edges) <= buckets
    assert all(a < b for a, b in zip((0, *edges), edges, strict=False))
    assert edges[-1] == max(1, *lengths)
    # An edge is the length of a row, so that the longest rows of a bucket have no padding.
    assert set(edges) <= set(lengths) | {1}


def test_buckets_are_equally_full():
    edges = fit(list(range(1, 1001)), 4, 10).edges
    np.testing.assert_allclose(edges, [250, 500, 750, 1000], atol=2)


def test_more_buckets_give_less_padding():
    lengths = np.random.default_rng(1).integers(1, 400, 500)
    padded = [fit(lengths, n, 16).padded(lengths) for n in (1, 4, 12)]
    assert padded[0] == 500 * lengths.max()
    assert padded[0] > padded[1] > padded[2] > lengths.sum()


def test_batches_know_how_many_they_are():
    fitted = fit([1, 2, 3, 4, 5, 6], 3, 2)
    data = fitted.batches(rows_of([1, 2, 3, 4, 5, 6]), np.zeros(6, np.int32), np.arange(6))
    assert data.cardinality().numpy() == fitted.steps(np.arange(1, 7)) == 4


def test_rows_of_one_batch_follow_the_order():
    (batch,) = batches_of(fit([3] * 5, 1, 8), [3] * 5, [4, 2, 0, 1, 3])
    assert batch[1].tolist() == [4, 2, 0, 1, 3]


def test_some_of_the_rows_in_any_order():
    batches = batches_of(fit([1, 2, 3, 4], 1, 2), [1, 2, 3, 4], [3, 1])
    assert [which.tolist() for _, which in batches] == [[3, 1]]
    batches = batches_of(fit([1, 2], 1, 2), [1, 2], [1, 0, 0, 1, 1])
    assert [which.tolist() for _, which in batches] == [[1, 0], [0, 1], [1]]


def test_batches_can_be_gone_through_again():
    data = fit([2, 1, 3], 2, 2).batches(rows_of([2, 1, 3]), np.arange(3), np.array([2, 0, 1]))
    first, again = ([which.numpy().tolist() for _, which in data] for _ in range(2))
    assert first == again


def test_row_longer_than_the_last_edge_is_an_error():
    with pytest.raises(ValueError, match="a row has 5 steps, the last bucket 4"):
        batches_of(Buckets((2, 4), 2), [5], [0])


@given(st.integers(0, 200), st.integers(0, 2**31 - 1), st.integers(0, 1_000))
def test_shuffled_is_a_permutation_given_by_seed_and_epoch(count, seed, epoch):
    order = shuffled(count, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(count))
    np.testing.assert_array_equal(order, shuffled(count, seed=seed, epoch=epoch))


def test_each_epoch_and_seed_has_its_own_order():
    orders = {
        tuple(shuffled(50, seed=seed, epoch=epoch)) for seed in range(4) for epoch in range(4)
    }
    assert len(orders) == 16


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30),
    st.integers(1, 5),
    st.integers(1, 7),
    st.sampled_from([None, 8, 30]),
)
@few
def test_sequences_of_a_row_are_padded_each_to_its_own_edge(lengths, buckets, size, tokens):
    left, right = (rows_of([pair[i] for pair in lengths]) for i in (0, 1))
    both = lengths_of({"left": left}, right)
    assert both.tolist() == [list(pair) for pair in lengths]
    fitted = Buckets.fit(both, buckets=buckets, batch_size=size, batch_tokens=tokens)
    order = shuffled(len(lengths), seed=1, epoch=0)
    data = list(fitted.batches({"left": left}, right, order))
    assert len(data) == fitted.steps(both)
    assert sum(i["left"].numpy().size + t.numpy().size for i, t in data) == fitted.padded(both)
    seen = []
    for inputs, targets in data:
        assert {inputs["left"].shape[1], targets.shape[1]} <= set(fitted.edges)
        for a, b in zip(inputs["left"].numpy(), targets.numpy(), strict=True):
            seen.append((int((a > 0).sum()), int((b > 0).sum())))
            assert len({*a[a > 0], *b[b > 0]}) <= 1  # the two belong together
            assert np.all(np.diff((a > 0).astype(int)) <= 0)
    assert sorted(seen) == sorted(lengths)


def test_batches_of_pairs_have_less_padding_than_by_the_longer_side():
    rng = np.random.default_rng(0)
    both = rng.integers(1, 40, (2000, 2))
    fitted = Buckets.fit(both, buckets=12, batch_size=16)
    assert fitted.padded(both) < 0.9 * 2 * fitted.padded(both.max(axis=1))


@pytest.mark.parametrize(("count", "most"), [(100, 3), (500, 11), (2_000, 42), (20_000, 410)])
def test_few_rows_make_few_batches_all_the_same(count, most):
    rng = np.random.default_rng(0)
    left = rng.integers(1, 40, count)
    both = np.stack([left, np.maximum(1, left + rng.integers(-9, 10, count))], axis=1)
    assert Buckets.fit(both, buckets=20, batch_size=64).steps(both) <= most
