"""Windows and the order of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.forecasting.processor import Scales
from pipelines.forecasting.windows import WindowFeed, Windows
from tests.support.forecasting import (
    parts,
    prices,
    series,
    small,
)


@given(st.integers(30, 120), st.integers(1, 40), st.integers(1, 25), st.integers(1, 5))
def test_windows_contain_each_origin_and_target_once(steps, origins, history, horizon):
    settings = small(model={"history": max(history, 2), "horizon": horizon})
    values = prices(steps)
    train, validation = parts(series(values), steps - horizon - 5)
    scales = Scales.fit(settings, train, validation)
    windows = Windows.from_slices(
        train, settings, scales, origins=origins, stride=origins, horizon=horizon
    )
    stop, levels, asked = train[0].stop, np.log(values), []
    for i in range(len(windows)):
        inputs, targets = windows.batch(np.array([i]), scales)
        start, count = windows.starts[i], windows.origin_counts[i]
        for j in range(count):
            t = int(start + inputs["origins"][0, j])
            asked.append(t)
            for k in range(1, horizon + 1):
                if t + k < stop:
                    expected = levels[t + k] - levels[t]
                    assert targets[0, j, k - 1] == pytest.approx(expected, abs=1e-6)
                else:
                    assert np.isnan(targets[0, j, k - 1])
        assert np.isnan(targets[0, count:]).all()
    assert asked == sorted(set(asked))
    assert asked[-1] == stop - 2


def test_order_of_an_epoch_is_reproducible():
    settings = small(train={"origins": 4, "batch_size": 3, "unknown": 0.5})
    train, validation = parts(series(prices(100)), 80)
    scales = Scales.fit(settings, train, validation)
    feed = WindowFeed(settings, scales, train, validation)
    first, again, other = ([x["series"].numpy() for x, _ in feed.train(e)] for e in (0, 0, 1))
    assert len(first) == feed.steps
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
