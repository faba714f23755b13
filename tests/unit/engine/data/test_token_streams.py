"""Streams: every token is predicted once, from what stands before it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engine.data.ragged import Ragged
from pipelines.engine.data.token_streams import TokenStreams

END = 2


def ragged(documents: list[list[int]]) -> Ragged:
    return Ragged(
        np.array([i for d in documents for i in d], np.int32),
        np.array([len(d) for d in documents], np.int64),
    )


#: Documents whose tokens are all different, so that each can be found again.
@st.composite
def documents(draw):
    lengths = draw(st.lists(st.integers(0, 25), min_size=1, max_size=8))
    token, found = 3, []
    for length in lengths:
        found.append(list(range(token, token + length)))
        token += length
    return found


def pieces(windows) -> list[tuple[list[int], list[int]]]:
    """What a model reads and is asked from one reset of the state to the next."""
    found = []
    for row in range(windows.fresh.shape[1]):
        for inputs, targets, fresh in zip(
            windows.inputs[:, row], windows.targets[:, row], windows.fresh[:, row], strict=True
        ):
            if fresh:
                found.append(([], []))
            found[-1][0].extend(inputs[inputs > 0].tolist())
            found[-1][1].extend(targets[targets > 0].tolist())
            # Padding is on the right, of both alike.
            assert ((inputs > 0) == (targets > 0)).all()
            assert (np.diff((inputs > 0).astype(int)) <= 0).all()
    return [p for p in found if p[0]]


@given(documents(), st.integers(1, 5), st.integers(1, 7), st.booleans(), st.integers(0, 3))
@settings(max_examples=200)
def test_each_token_is_predicted_once_from_the_one_before(documents, rows, window, cut, seed):
    streams = TokenStreams(ragged(documents), rows=rows, window=window, end=END, cut=cut)
    windows = streams.arrange(np.random.default_rng(seed) if seed else None)
    assert windows.inputs.shape == (streams.windows, rows, window)
    assert streams.padded_tokens == windows.inputs.size
    pairs = [p for i, t in pieces(windows) for p in zip(i, t, strict=True)]
    expected = [p for d in documents for p in zip([END, *d], [*d, END], strict=True)]
    assert sorted(pairs) == sorted(expected)
    assert streams.tokens == len(expected)
    if not cut:
        whole = sorted(([END, *d], [*d, END]) for d in documents)
        assert sorted(pieces(windows)) == whole


def test_a_long_text_is_shared_out_evenly():
    streams = TokenStreams(ragged([list(range(3, 1003))]), rows=4, window=10, end=END)
    assert streams.windows == 26  # 1,001 steps over 4 rows of 10
    windows = streams.arrange()
    filled = windows.inputs[:, :, 0] > 0
    assert (windows.fresh & filled).sum(axis=0).tolist() == [1, 1, 1, 1]
    # The piece in the second row reads the last token of the first.
    assert windows.inputs[0, 1, 0] == windows.targets[-1, 0, -1]


def test_the_order_is_a_function_of_the_generator():
    streams = TokenStreams(ragged([[i] * 9 for i in range(3, 43)]), rows=4, window=5, end=END)
    first, again, other = (streams.arrange(np.random.default_rng(s)).inputs for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_batches_are_windows_in_order():
    streams = TokenStreams(ragged([[3, 4, 5, 6, 7]]), rows=1, window=2, end=END)
    batches = list(streams.arrange().dataset().as_numpy_iterator())
    assert [b[0]["ids"].tolist() for b in batches] == [[[END, 3]], [[4, 5]], [[6, 7]]]
    assert [b[0]["fresh"].tolist() for b in batches] == [[True], [False], [False]]
    assert [b[1].tolist() for b in batches] == [[[3, 4]], [[5, 6]], [[7, END]]]
