"""Features of series and their forecasts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.forecasting import backtest, features
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.model import Forecaster
from pipelines.forecasting.processor import Scales
from pipelines.forecasting.series import SeriesSlice
from pipelines.forecasting.task import TASK
from tests.support import forecasting as support


def days(one):
    """The series with days between its steps, in microseconds."""
    return replace(one, times=one.times * 1_000_000)


@pytest.fixture(scope="module")
def fitted() -> tuple[ForecastingConfig, Scales, Forecaster, list[SeriesSlice]]:
    settings = support.small()
    model, scales, (_, validation, test) = support.built(settings)
    parts = [replace(p, series=days(p.series)) for p in [*validation, *test]]
    return settings, scales, model, parts


def test_steps_are_in_units_of_training(fitted):
    settings, scales, model, parts = fitted
    found = features.features(settings, scales, model, parts)
    part = parts[0]
    levels = np.log(part.series.values[:, 0])
    changes = [np.diff(levels)[p.start - 1 : p.stop - 1] / scales.change[1] for p in parts]
    np.testing.assert_allclose(found["change"].values, np.concatenate(changes))
    assert set(found["hours"].values) == {24.0}
    assert set(found["series"].values) == {"known"}
    assert set(found["missing"].values) == {"given"}
    # Groups are blocks of as many steps as the model reads.
    blocks = found["change"].groups
    assert np.bincount(blocks).max() == settings.model.history
    slices = np.repeat([0, 1], [len(c) for c in changes])
    keys = sorted({*zip(slices, blocks, strict=True)})
    within = [found["change"].values[(slices == s) & (blocks == b)] for s, b in keys]
    volatility = [values.std() for values in within if len(values) >= 5]
    np.testing.assert_allclose(np.sort(found["volatility"].values), np.sort(volatility))
    assert "level" not in found


def test_errors_are_those_of_the_forecast_of_the_next_step(fitted):
    settings, scales, model, parts = fitted
    found = features.features(settings, scales, model, parts)
    _, inputs, targets = support.asked(settings, scales, parts[-1:])
    predictive = backtest.to_predictive(model.predict_on_batch(inputs), settings)
    median = predictive.quantiles([0.5])[:, 0, 0]
    errors = np.abs(targets[:, 0, 0] - median) / scales.change[1]
    # Windows with a whole horizon are fewer.
    for error in errors:
        assert np.isclose(found["error"].values, error, atol=1e-5).any()
    assert (found["interval"].values > 0).all()


def test_series_that_training_had_not_are_unknown(fitted):
    settings, scales, model, _ = fitted
    new = days(support.series(support.prices(40, seed=5), name="NEW"))
    found = features.features(
        settings, scales, model, [SeriesSlice(replace(new, missing=4), 0, 40)]
    )
    assert set(found["series"].values) == {"unknown"}
    assert (found["missing"].values == "missing").sum() == 4
    assert (found["missing"].values == "given").sum() == 40


@pytest.mark.parametrize("steps", [3, 4, 12])
def test_short_series_have_features_too(fitted, steps):
    settings, scales, model, _ = fitted
    short = days(support.series(support.prices(steps)))
    found = features.features(settings, scales, model, [SeriesSlice(short, 0, steps)])
    assert len(found["change"].values) == steps - 1
    assert len(list(TASK.requests(settings, [SeriesSlice(short, 0, steps)]))) >= 1


def test_requests_read_what_a_client_would_send(fitted):
    settings, _, _, parts = fitted
    requests = list(TASK.requests(settings, parts))
    assert 50 <= len(requests) <= 300 + len(parts)
    shapes = {tuple(r["history"].shape) for r in requests}
    assert shapes == {(1, settings.model.history, 1)}
    first = parts[0]
    np.testing.assert_allclose(
        requests[0]["history"][0, -1, 0], first.series.values[first.start - 1, 0], rtol=1e-6
    )


def test_a_server_measures_what_does_not_depend_on_the_size_of_logarithmic_values():
    def names(values: str) -> list[str]:
        return [m.name for m in features.measures(support.config(data={"values": values}))]

    relative = ["history_steps", "history_variation", "history_change"]
    assert names("log_returns") == relative
    assert names("differences") == [relative[0], "history_mean", "history_spread", relative[2]]
