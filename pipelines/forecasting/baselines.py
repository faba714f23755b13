"""What a forecast has to beat: eight rules that are older than any network.

Each is fitted on the training split of a series and then filters forward over all of it, so that
a forecast knows all before its origin and nothing after it. Where a rule says nothing of how far
off it will be, that is the root of its mean squared error on the training split, k by k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.predictive import Parametric
from pipelines.forecasting.processor import TINY, fit_ridge, levels_of
from pipelines.forecasting.series import Part

#: RiskMetrics' weight of the past for daily returns (J. P. Morgan 1996).
DECAY = 0.94
#: Changes that a GARCH needs to be fitted; with fewer it is the EWMA volatility.
LEAST_FOR_GARCH = 250


class Changes(NamedTuple):
    """Location, scale and freedom of changes, each ``<float64>[windows, horizon]``.

    No scale: the training split says it. Infinite freedom: Gaussian.
    """

    location: np.ndarray
    scale: np.ndarray | None = None
    freedom: float = math.inf


#: ``(levels <float64>[steps], end of training, origins <int>[windows], horizon)`` → changes.
Rule = Callable[[np.ndarray, int, np.ndarray, int], Changes]


def last_value(levels: np.ndarray, end: int, origins: np.ndarray, horizon: int) -> Changes:
    """It stays as it is: ŷ_{t+k} = y_t."""
    return Changes(np.zeros((len(origins), horizon)))


def drift(levels: np.ndarray, end: int, origins: np.ndarray, horizon: int) -> Changes:
    """It goes on as in training: ŷ_{t+k} = y_t + k · the mean change."""
    slope = (levels[end - 1] - levels[0]) / max(end - 1, 1)
    return Changes(np.tile(slope * np.arange(1, horizon + 1), (len(origins), 1)))


def seasonal(season: int) -> Rule:
    """As at the same place in the last season: ŷ_{t+k} = y_{t+k−m·⌈k/m⌉}."""

    def rule(levels: np.ndarray, end: int, origins: np.ndarray, horizon: int) -> Changes:
        k = np.arange(1, horizon + 1)
        same = origins[:, None] + k - season * -(-k // season)
        return Changes(levels[np.maximum(same, 0)] - levels[origins][:, None])

    return rule


def moving_average(window: int) -> Rule:
    """The mean of the last values."""

    def rule(levels: np.ndarray, end: int, origins: np.ndarray, horizon: int) -> Changes:
        sums = np.concatenate([[0.0], np.cumsum(levels - levels[0])])
        first = np.maximum(origins + 1 - window, 0)
        mean = (sums[origins + 1] - sums[first]) / (origins + 1 - first) + levels[0]
        return Changes(np.repeat((mean - levels[origins])[:, None], horizon, axis=1))

    return rule


def ewma_volatility(levels: np.ndarray, end: int, origins: np.ndarray, horizon: int) -> Changes:
    """σ²_t = λ σ²_{t−1} + (1 − λ) r²_t with λ = 0.94, and √k times as much over k steps."""
    changes = np.diff(levels)
    variance = np.empty(len(levels))
    variance[0] = max(float(np.mean(np.square(changes[: end - 1]))), TINY**2)
    for t, change in enumerate(changes, 1):
        variance[t] = DECAY * variance[t - 1] + (1 - DECAY) * change * change
    scale = np.sqrt(variance[origins][:, None] * np.arange(1, horizon + 1))
    return Changes(np.zeros((len(origins), horizon)), scale)


def garch(law: Literal["normal", "t"]) -> Rule:
    """GARCH(1,1) with a constant mean (Bollerslev 1986, 1987), fitted by `arch`::

        r_t = μ + ε_t,  σ²_{t+1} = ω + α ε²_t + β σ²_t

    Args:
        law: of ε_t / σ_t. Over several steps the sum of Student-t is taken for one of the same ν.
    """

    def rule(levels: np.ndarray, end: int, origins: np.ndarray, horizon: int) -> Changes:
        from arch import arch_model

        changes = np.diff(levels)
        known = changes[: end - 1]
        if len(known) < LEAST_FOR_GARCH or known.std() <= TINY:
            return ewma_volatility(levels, end, origins, horizon)
        unit = known.std()
        # A fit that did not converge is scored as it is.
        model = arch_model(known / unit, dist=law, rescale=False)
        fitted = model.fit(disp="off", show_warning=False)
        mu, omega, alpha, beta, *freedom = (float(p) for p in fitted.params)
        variance = np.empty(len(levels))
        variance[0] = float(fitted.conditional_volatility[0]) ** 2
        for t, change in enumerate(changes / unit - mu, 1):
            variance[t] = omega + alpha * change * change + beta * variance[t - 1]
        ahead, total, sums = variance[origins], np.zeros(len(origins)), []
        for _ in range(horizon):
            total = total + ahead
            sums.append(total)
            ahead = omega + (alpha + beta) * ahead
        location = np.tile(unit * mu * np.arange(1, horizon + 1), (len(origins), 1))
        scale = unit * np.sqrt(np.stack(sums, axis=1))
        if not freedom:
            return Changes(location, scale)
        # `arch` has a variance of one; a Student-t of scale one has ν / (ν − 2).
        return Changes(location, scale * math.sqrt(1 - 2 / freedom[0]), freedom[0])

    return rule


def linear(weights: np.ndarray) -> Rule:
    """The linear autoregression, see `processor.fit_ridge`."""

    def rule(levels: np.ndarray, end: int, origins: np.ndarray, horizon: int) -> Changes:
        before = np.maximum(origins[:, None] - np.arange(1, len(weights) + 1), 0)
        return Changes((levels[before] - levels[origins][:, None]) @ weights)

    return rule


def forecasts(
    config: ForecastingConfig,
    train: Sequence[Part],
    validation: Sequence[Part],
    test: Sequence[Part],
) -> dict[str, Parametric]:
    """Every baseline at every origin of the test parts with a whole horizon, part by part.

    A part whose series has nothing in the training split is filtered with what there is before
    the test.
    """
    settings, horizon = config.evaluation, config.model.horizon
    rules: dict[str, Rule] = {
        "last_value": last_value,
        "drift": drift,
        "seasonal_naive": seasonal(settings.season),
        "moving_average": moving_average(settings.window),
        "linear": linear(fit_ridge(train, validation, config, settings.lags)),
        "ewma_volatility": ewma_volatility,
        "garch": garch("normal"),
        "garch_student_t": garch("t"),
    }
    ends = {(p.series.name, p.series.times[0]): p.stop for p in train}
    found: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in rules}
    for part in test:
        origins = origins_of(part, horizon)
        if not len(origins):
            continue
        levels = levels_of(part.series, config.data.values)
        end = ends.get((part.series.name, part.series.times[0]), part.start)
        for name, rule in rules.items():
            location, scale, freedom = rule(levels, end, origins, horizon)
            if scale is None:
                scale = np.broadcast_to(_training_error(rule, levels, end, horizon), location.shape)
            scale, freedoms = np.maximum(scale, TINY), np.full(location.shape, freedom)
            found[name].append((location, scale, freedoms))
    return {
        name: Parametric(*(np.concatenate(arrays) for arrays in zip(*some, strict=True)))
        for name, some in found.items()
    }


def origins_of(part: Part, horizon: int) -> np.ndarray:
    """Where a part is forecast from: all of each horizon is in the part."""
    return np.arange(max(part.start - 1, 0), part.stop - horizon)


def _training_error(rule: Rule, levels: np.ndarray, end: int, horizon: int) -> np.ndarray:
    """Root of the mean squared error at each step; of too short a training, by √k."""
    origins = np.arange(0, end - horizon)
    if len(origins) < horizon:
        one = np.sqrt(np.mean(np.square(np.diff(levels[:end])))) if end > 1 else TINY
        return one * np.sqrt(np.arange(1, horizon + 1))
    location = rule(levels, end, origins, horizon).location
    truth = levels[origins[:, None] + np.arange(1, horizon + 1)] - levels[origins][:, None]
    return np.sqrt(np.mean(np.square(truth - location), axis=0))
