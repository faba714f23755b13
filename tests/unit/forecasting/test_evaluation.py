"""The comparison of the model with the baselines."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.forecasting import (
    backtest,
    evaluation,
)
from pipelines.forecasting.predictive import Parametric
from tests.support.forecasting import (
    small,
)


def test_verdict_names_the_better_forecast():
    rng = np.random.default_rng(0)
    n = 400
    deviation = np.where(np.arange(n) % 2, 1.0, 3.0)
    changes = (rng.standard_normal(n) * deviation)[:, None]
    truth = backtest.Truth(
        changes, np.full(n, 10.0), np.arange(n), np.zeros(n, int), ["A"], np.ones(n), np.ones(n),
        logs=False,
    )  # fmt: skip
    zero = np.zeros_like(changes)
    naive = Parametric(zero, np.full_like(changes, 2.0))
    right = Parametric(zero, deviation[:, None])
    names = ["last_value", "drift", "seasonal_naive", "moving_average", "linear", "ewma_volatility"]

    def judged(model, others):
        everyone = dict.fromkeys([*names, "garch"], others)
        return evaluation.evaluate(small(model={"horizon": 1}), truth, model, everyone)

    found = judged(right, naive)
    assert "beats garch" in found.verdict[0]
    assert found.scores["crps_next_to_ewma"] < 1
    assert found.scores["relative_mae"] == 1
    assert found.scores["coverage_80"] == pytest.approx(0.8, abs=0.05)
    assert found.scores["crps_next"] == pytest.approx(np.mean(right.crps(changes)))
    assert "loses to garch" in judged(naive, right).verdict[0]
    assert "cannot be told from garch" in judged(naive, naive).verdict[0]
