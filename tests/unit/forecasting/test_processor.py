"""Scales, date features and the ridge regression."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from pipelines.forecasting import (
    baselines,
)
from pipelines.forecasting.processor import Scales, fit_ridge, levels_of
from tests.support.forecasting import (
    DAY,
    parts,
    prices,
    series,
    small,
)


def test_scales_depend_on_the_training_split_only(tmp_path):
    values = prices(200)
    train, validation, _ = parts(series(values), 120, 160)
    scales = Scales.fit(small(), train, validation)
    changes = np.diff(np.log(values[:120]))
    assert scales.change[1] == pytest.approx(changes.std(), rel=1e-5)
    values[120:] = np.nan
    again = Scales.fit(small(), *parts(series(values), 120, 160)[:2])
    for name, array in scales.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])
    scales.save(tmp_path)
    back = Scales.load(tmp_path)
    assert back.names == ["A"]
    assert back.number("unheard of") == 0
    np.testing.assert_array_equal(back.numbers(tf.constant(["A", "?"])).numpy(), [1, 0])
    for name, array in scales.arrays.items():
        np.testing.assert_array_equal(array, back.arrays[name])


def test_date_features_are_periodic():
    scales = Scales.fit(
        small(model={"calendar": ["hour", "weekday", "year"]}), *parts(series(prices(60)), 40)
    )
    times = np.array([0, 6 * 3600, DAY, 7 * DAY], np.int64)
    found = scales.dates(times).numpy()
    np.testing.assert_allclose(found[:, 0], [0, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found[0, :4], found[3, :4], atol=1e-6)
    assert not np.allclose(found[0, 2:4], found[2, 2:4])


def test_ridge_recovers_an_autoregression():
    """AR(1): y_{t+1} − y_t = (φ − 1) y_t; over k steps φ^k − 1."""
    rng, phi = np.random.default_rng(1), 0.8
    values = np.zeros(6000)
    for t in range(1, len(values)):
        values[t] = phi * values[t - 1] + rng.standard_normal()
    settings = small(data={"values": "differences"})
    train, validation, _ = parts(series(values), 5000, 5900)
    w = fit_ridge(train, validation, settings, 40)
    # Only y_t matters; in differences from it, it is what they have in common.
    origins = np.arange(5900, 5996)
    ours = baselines.linear(w)(values, 5000, origins, 3).location
    ideal = (phi ** np.arange(1, 4) - 1) * values[origins][:, None]
    assert np.corrcoef(ours.ravel(), ideal.ravel())[0, 1] > 0.95


def test_levels_of_prices_are_logarithms():
    one = series([1.0, math.e])
    np.testing.assert_allclose(levels_of(one, "log_returns"), [0, 1])
    np.testing.assert_allclose(levels_of(one, "differences"), [1, math.e])
