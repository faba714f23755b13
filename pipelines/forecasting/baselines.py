"""Eight classical baselines for forecasts.

Each is fitted on the training split of a series and then applied at every origin, using all values
up to the origin and none after it. If a baseline gives no scale, its scale is the root mean squared
error on the training split, for each number of steps ahead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.predictive import Parametric
from pipelines.forecasting.processor import TINY, fit_ridge, levels_of
from pipelines.forecasting.series import SeriesSlice

#: RiskMetrics' decay λ for daily returns (J. P. Morgan 1996).
DECAY = 0.94
#: Minimum number of changes to fit a GARCH; with fewer, the EWMA volatility replaces it.
MIN_CHANGES_FOR_GARCH = 250


class ForecastChanges(NamedTuple):
    """Forecast distributions of changes from the origin.

    Attributes:
        location: Medians, ``<float64>[windows, horizon]``.
        scale: Scales, ``<float64>[windows, horizon]``; None for the error on the training split.
        freedom: Degrees of freedom of a Student-t; infinity for a Gaussian.
    """

    location: np.ndarray
    scale: np.ndarray | None = None
    freedom: float = math.inf


#: ``(levels <float64>[steps], end of training, origins <int>[windows], horizon)`` → forecast.
Baseline = Callable[[np.ndarray, int, np.ndarray, int], ForecastChanges]


def last_value(levels: np.ndarray, end: int, origins: np.ndarray, horizon: int) -> ForecastChanges:
    """Forecast the last value: ŷ_{t+k} = y_t."""
    return ForecastChanges(np.zeros((len(origins), horizon)))


def drift(levels: np.ndarray, end: int, origins: np.ndarray, horizon: int) -> ForecastChanges:
    """Extrapolate the mean change of the training split: ŷ_{t+k} = y_t + k · mean change."""
    slope = (levels[end - 1] - levels[0]) / max(end - 1, 1)
    return ForecastChanges(np.tile(slope * np.arange(1, horizon + 1), (len(origins), 1)))


def seasonal(season: int) -> Baseline:
    """Return the seasonal naive forecast: ŷ_{t+k} = y_{t+k−m·⌈k/m⌉}, with m the season."""

    def forecast(
        levels: np.ndarray, end: int, origins: np.ndarray, horizon: int
    ) -> ForecastChanges:
        k = np.arange(1, horizon + 1)
        same = origins[:, None] + k - season * -(-k // season)
        return ForecastChanges(levels[np.maximum(same, 0)] - levels[origins][:, None])

    return forecast


def moving_average(window: int) -> Baseline:
    """Return the forecast by the mean of the last ``window`` values."""

    def forecast(
        levels: np.ndarray, end: int, origins: np.ndarray, horizon: int
    ) -> ForecastChanges:
        sums = np.concatenate([[0.0], np.cumsum(levels - levels[0])])
        first = np.maximum(origins + 1 - window, 0)
        mean = (sums[origins + 1] - sums[first]) / (origins + 1 - first) + levels[0]
        return ForecastChanges(np.repeat((mean - levels[origins])[:, None], horizon, axis=1))

    return forecast


def ewma_volatility(
    levels: np.ndarray, end: int, origins: np.ndarray, horizon: int
) -> ForecastChanges:
    """Forecast no change, with an exponentially weighted volatility.

    ::

        σ²_t = λ σ²_{t−1} + (1 − λ) r²_t        λ = 0.94; √k σ_t over k steps
    """
    changes = np.diff(levels)
    variance = np.empty(len(levels))
    variance[0] = max(float(np.mean(np.square(changes[: end - 1]))), TINY**2)
    for t, change in enumerate(changes, 1):
        variance[t] = DECAY * variance[t - 1] + (1 - DECAY) * change * change
    scale = np.sqrt(variance[origins][:, None] * np.arange(1, horizon + 1))
    return ForecastChanges(np.zeros((len(origins), horizon)), scale)


def garch(law: Literal["normal", "t"]) -> Baseline:
    """Return a GARCH(1,1) with a constant mean (Bollerslev 1986, 1987), fitted by `arch`::

        r_t = μ + ε_t,  σ²_{t+1} = ω + α ε²_t + β σ²_t

    Args:
        law: The distribution of ε_t / σ_t. The sum of Student-t variables over several steps is
            approximated by a Student-t with the same ν.
    """

    def forecast(
        levels: np.ndarray, end: int, origins: np.ndarray, horizon: int
    ) -> ForecastChanges:
        from arch import arch_model

        changes = np.diff(levels)
        known = changes[: end - 1]
        if len(known) < MIN_CHANGES_FOR_GARCH or known.std() <= TINY:
            return ewma_volatility(levels, end, origins, horizon)
        unit = known.std()
        # A fit that does not converge is used all the same.
        model = arch_model(known / unit, dist=law, rescale=False)
        fitted = model.fit(disp="off", show_warning=False)
        mu, omega, alpha, beta, *freedom = (float(p) for p in fitted.params)
        variance = np.empty(len(levels))
        variance[0] = float(fitted.conditional_volatility[0]) ** 2
        for t, change in enumerate(changes / unit - mu, 1):
            variance[t] = omega + alpha * change * change + beta * variance[t - 1]
        next_variance, total, sums = variance[origins], np.zeros(len(origins)), []
        for _ in range(horizon):
            total = total + next_variance
            sums.append(total)
            next_variance = omega + (alpha + beta) * next_variance
        location = np.tile(unit * mu * np.arange(1, horizon + 1), (len(origins), 1))
        scale = unit * np.sqrt(np.stack(sums, axis=1))
        if not freedom:
            return ForecastChanges(location, scale)
        # The innovations of `arch` have unit variance; a Student-t of unit scale has ν / (ν − 2).
        return ForecastChanges(location, scale * math.sqrt(1 - 2 / freedom[0]), freedom[0])

    return forecast


def linear(weights: np.ndarray) -> Baseline:
    """Return the linear autoregression with the weights of `processor.fit_ridge`."""

    def forecast(
        levels: np.ndarray, end: int, origins: np.ndarray, horizon: int
    ) -> ForecastChanges:
        before = np.maximum(origins[:, None] - np.arange(1, len(weights) + 1), 0)
        return ForecastChanges((levels[before] - levels[origins][:, None]) @ weights)

    return forecast


def forecasts(
    config: ForecastingConfig,
    train: Sequence[SeriesSlice],
    validation: Sequence[SeriesSlice],
    test: Sequence[SeriesSlice],
) -> dict[str, Parametric]:
    """Forecast with every baseline, at every origin of the test split with a whole horizon.

    A series that is not in the training split is forecast with a baseline fitted on its values
    before the test split.

    Args:
        config: The config of the run.
        train: The slices of the training split.
        validation: The slices of the validation split.
        test: The slices of the test split.

    Returns:
        The forecasts by the name of the baseline, in the order of the test slices.
    """
    settings, horizon = config.evaluation, config.model.horizon
    baselines: dict[str, Baseline] = {
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
    results: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in baselines}
    for part in test:
        origins = origins_of(part, horizon)
        if not len(origins):
            continue
        levels = levels_of(part.series, config.data.values)
        end = ends.get((part.series.name, part.series.times[0]), part.start)
        for name, baseline in baselines.items():
            location, scale, freedom = baseline(levels, end, origins, horizon)
            if scale is None:
                scale = np.broadcast_to(
                    _training_error(baseline, levels, end, horizon), location.shape
                )
            scale, freedoms = np.maximum(scale, TINY), np.full(location.shape, freedom)
            results[name].append((location, scale, freedoms))
    return {
        name: Parametric(*(np.concatenate(arrays) for arrays in zip(*slices, strict=True)))
        for name, slices in results.items()
    }


def origins_of(part: SeriesSlice, horizon: int) -> np.ndarray:
    """Return the origins whose whole horizon is in a slice, ``<int64>[windows]``."""
    return np.arange(max(part.start - 1, 0), part.stop - horizon)


def _training_error(baseline: Baseline, levels: np.ndarray, end: int, horizon: int) -> np.ndarray:
    """Return the root mean squared error at each step, ``<float64>[horizon]``.

    If the training split is too short, the error of one step is scaled by √k.
    """
    origins = np.arange(0, end - horizon)
    if len(origins) < horizon:
        one_step = np.sqrt(np.mean(np.square(np.diff(levels[:end])))) if end > 1 else TINY
        scaled: np.ndarray = one_step * np.sqrt(np.arange(1, horizon + 1))
        return scaled
    location = baseline(levels, end, origins, horizon).location
    truth = levels[origins[:, None] + np.arange(1, horizon + 1)] - levels[origins][:, None]
    error: np.ndarray = np.sqrt(np.mean(np.square(truth - location), axis=0))
    return error
