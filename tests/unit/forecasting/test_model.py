"""The model before training, its loss, sampling and serving."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.forecasting import (
    backtest,
    baselines,
)
from pipelines.forecasting.losses import ForecastLoss
from pipelines.forecasting.paths import sample_paths
from pipelines.forecasting.serving import ForecastServing
from pipelines.forecasting.windows import WindowFeed, Windows
from tests.support.forecasting import (
    HEADS,
    LEVELS,
    asked,
    built,
    parts,
    prices,
    series,
    small,
)


def test_untrained_model_forecasts_the_ewma_volatility():
    half_life = math.log(0.5) / math.log(0.94)
    settings = small(model={"head": "gaussian", "half_lives": [half_life], "history": 200})
    model, scales, (train, validation, test) = built(settings)
    _, inputs, _ = asked(settings, scales, test)
    found = backtest.to_predictive(model(inputs), settings)
    rule = baselines.forecasts(settings, train, validation, test)["ewma_volatility"]
    np.testing.assert_allclose(found.location, 0, atol=1e-9)
    # The filters begin elsewhere; 200 steps later it does not matter.
    np.testing.assert_allclose(found.scale[:, 0], rule.scale[:, 0], rtol=1e-3)


def test_untrained_model_with_linear_path_forecasts_the_ridge_regression():
    settings = small(
        model={"linear": 15, "history": 16, "head": "gaussian"},
        data={"values": "differences"}, evaluation={"lags": 15},
    )  # fmt: skip
    model, scales, (train, validation, test) = built(settings)
    _, inputs, _ = asked(settings, scales, test)
    found = backtest.to_predictive(model(inputs), settings)
    rule = baselines.forecasts(settings, train, validation, test)["linear"]
    np.testing.assert_allclose(found.location, rule.location, rtol=1e-3, atol=1e-4)


def test_untrained_model_of_levels_forecasts_the_training_mean():
    settings = small(data={"values": "levels"}, model={"head": "gaussian"})
    values = prices(400)
    model, scales, (_, _, test) = built(settings, values)
    windows, inputs, _ = asked(settings, scales, test)
    found = backtest.to_predictive(model(inputs), settings)
    last = inputs["history"][:, -1, 0]
    mean = np.full((len(windows), 3), values[:300].mean())
    np.testing.assert_allclose(found.location + last[:, None], mean, rtol=1e-4)
    np.testing.assert_allclose(found.scale, values[:300].std(), rtol=1e-4)


def test_unknown_series_has_the_mean_scale():
    settings = small(model={"scale": "training", "head": "gaussian"})
    model, scales, (_, _, test) = built(settings)
    _, inputs, _ = asked(settings, scales, test)
    unknown = {**inputs, "series": np.zeros_like(inputs["series"])}
    np.testing.assert_allclose(model(unknown)[..., 1], model(inputs)[..., 1], rtol=1e-5)


@pytest.mark.parametrize("decode", ["direct", "autoregressive"])
@pytest.mark.parametrize("head", HEADS)
def test_initial_loss_is_that_of_the_right_scale(decode, head):
    settings = small(model={"decode": decode, "head": head})
    model, scales, (train, validation, _) = built(settings)
    feed = WindowFeed(settings, scales, train, validation)
    inputs, targets = next(iter(feed.train(0)))
    loss = float(ForecastLoss(head, settings.model.quantiles)(targets, model(inputs)))
    # The entropy of a Gaussian of variance one, or its CRPS.
    expected = 2 * 0.234 if head == "quantiles" else 0.5 * math.log(2 * math.pi * math.e)
    assert loss == pytest.approx(expected, rel=0.15)


def test_missing_targets_do_not_affect_the_loss():
    rng = np.random.default_rng(0)
    outputs = rng.random((2, 4, 3, 4)).astype(np.float32) + 0.5
    targets = rng.random((2, 4, 3)).astype(np.float32)
    loss = ForecastLoss("gaussian", LEVELS)
    cut = targets.copy()
    cut[:, 2:] = np.nan
    assert float(loss(cut, outputs)) == pytest.approx(float(loss(targets[:, :2], outputs[:, :2])))
    assert float(loss(np.full_like(targets, np.nan), outputs)) == 0


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru", "feedforward"])
def test_padding_and_other_rows_do_not_affect_outputs(cell):
    settings = small(model={"cell": cell, "embedding": 2, "linear": 5, "level": True})
    model, scales, (_, _, test) = built(settings)
    for w in model.trainable_weights:
        w.assign(w + 0.1 * np.random.default_rng(0).standard_normal(w.shape))
    _, inputs, _ = asked(settings, scales, test)
    whole = np.asarray(model(inputs))
    padded = {**inputs, "history": np.pad(inputs["history"], [(0, 0), (0, 7), (0, 0)], "edge")}
    np.testing.assert_allclose(model(padded), whole, rtol=1e-4, atol=1e-6)
    one = {name: value[3:4] for name, value in inputs.items()}
    np.testing.assert_allclose(np.asarray(model(one))[0], whole[3], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decode", ["direct", "autoregressive"])
@pytest.mark.parametrize("poison", [math.nan, 1e6])
def test_forecasts_do_not_depend_on_the_future(decode, poison):
    """Neither in training windows, with many origins, nor walking forward."""
    settings = small(
        model={"decode": decode, "linear": 5, "calendar": ["weekday"], "level": True},
        train={"origins": 10},
    )
    values = prices(400)
    model, scales, _ = built(settings, values)
    for w in model.trainable_weights:
        w.assign(w + 0.1 * np.random.default_rng(0).standard_normal(w.shape))
    spoiled = values.copy()
    spoiled[370:] = poison if math.isnan(poison) else poison * np.arange(1, 31)
    steps = 3 if decode == "direct" else 1
    # Steps behind an origin of many have no weight, which nothing but a number can have.
    for origins in (1,) if math.isnan(poison) else (1, 10):
        answers = []
        for made in (values, spoiled):
            test = parts(series(made), 300, 350)[2]
            windows = Windows.from_slices(
                test, settings, scales, origins=origins, stride=origins, horizon=steps
            )
            inputs, _ = windows.batch(np.arange(len(windows)), scales)
            at = windows.starts[:, None] + inputs["origins"]
            answers.append(np.asarray(model(inputs))[at < 370])
        assert np.isfinite(answers[0]).all()
        np.testing.assert_array_equal(answers[0], answers[1])


def test_forecasts_scale_with_the_prices():
    """Raw numbers in, raw numbers out: prices in cents are forecast as prices in dollars are."""
    settings = small(model={"linear": 5})
    values = prices(400)
    for factor in (1.0, 100.0):
        model, scales, (_, _, test) = built(settings, factor * values)
        server = ForecastServing(settings, scales, model)
        windows, inputs, _ = asked(settings, scales, test)
        given = {name: inputs[name] for name in ("history", "lengths")}
        given["series"] = tf.constant(["A"] * len(windows))
        answer = server.forecast(given)["quantiles"].numpy()
        if factor == 1.0:
            first = answer
    np.testing.assert_allclose(answer, 100 * first, rtol=2e-4)
    assert (np.diff(first, axis=-1) > 0).all()


def test_sampled_values_are_fed_back():
    """With no noise each next value is what the model, asked again, gives."""
    model = {"decode": "autoregressive", "head": "gaussian", "linear": 5}
    settings = small(model=model | {"history": 25, "horizon": 4})
    model, scales, (_, _, test) = built(settings)
    for w in model.trainable_weights:
        w.assign(w + 0.2 * np.random.default_rng(0).standard_normal(w.shape))
    windows, inputs, _ = asked(settings, scales, test)
    # cos(2π/4) = 0: the draw is the median.
    still = np.full((len(windows), 2, 4, 2), 0.25, np.float32)
    _, changes = sample_paths(model, inputs, still)
    first = np.asarray(model(inputs))[:, 0, 0]
    step = first[:, 0] + first[:, 1] * first[:, 2]
    np.testing.assert_allclose(np.asarray(changes)[:, 0, 0], step, rtol=1e-4, atol=1e-6)
    last = inputs["history"][:, -1, 0]
    longer = np.concatenate([inputs["history"], (last * np.exp(step))[:, None, None]], axis=1)
    more = {name: inputs[name] + 1 for name in ("lengths", "origins")}
    more |= {"history": longer.astype(np.float32), "series": inputs["series"]}
    second = np.asarray(model(more))[:, 0, 0]
    expected = step + second[:, 0] + second[:, 1] * second[:, 2]
    np.testing.assert_allclose(np.asarray(changes)[:, 0, 1], expected, rtol=2e-3, atol=2e-5)


def test_saved_model_gives_the_same_outputs(tmp_path):
    settings = small(model={"calendar": ["hour"], "linear": 5, "embedding": 2})
    model, scales, (_, _, test) = built(settings)
    _, inputs, _ = asked(settings, scales, test)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(model(inputs), again(inputs))
