"""Backtests: forecasts at every origin of the test split, and the values observed afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.engine.data.splits import Splits
from pipelines.forecasting import baselines
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.model import Forecaster
from pipelines.forecasting.predictive import DENSE_LEVELS, Empirical, Parametric, Predictive
from pipelines.forecasting.processor import TINY, Scales, levels_of
from pipelines.forecasting.windows import Windows

#: Maximum number of paths sampled in one batch.
_MAX_PATHS_IN_BATCH = 50_000


@dataclass(frozen=True)
class Truth:
    """The observed values at every origin. Arrays are ``[windows]`` or ``[windows, steps]``.

    Attributes:
        changes: Changes of the level from the origin, ``<float64>[windows, steps]``.
        last: The raw value at the origin, ``<float64>[windows]``.
        times: Time of the first forecast step, ``<int64>[windows]`` in microseconds since 1970.
        series: Index into ``names``, ``<int64>[windows]``.
        names: Names of the series.
        scale: Mean absolute seasonal change in the training split, raw, ``<float64>[windows]``,
            for MASE.
        deviation: Standard deviation of the level in the training split, ``<float64>[windows]``,
            for errors in standard units.
        logs: Whether levels are logarithms.
    """

    changes: np.ndarray
    last: np.ndarray
    times: np.ndarray
    series: np.ndarray
    names: list[str]
    scale: np.ndarray
    deviation: np.ndarray
    logs: bool

    def raw(self, changes: np.ndarray) -> np.ndarray:
        """Convert changes of the level ``[windows, …]`` to raw values."""
        last = self.last.reshape(-1, *[1] * (changes.ndim - 1))
        values: np.ndarray = last * np.exp(changes) if self.logs else last + changes
        return values


def collect_truth(config: ForecastingConfig, splits: Splits) -> Truth:
    """Collect the observed values of the test split at every origin with a whole horizon."""
    names = sorted({part.series.name for part in splits.test})
    number_of = {name: i for i, name in enumerate(names)}
    horizon, values = config.model.horizon, config.data.values
    changes, last, times, series = [], [], [], []
    for part in splits.test:
        origins = baselines.origins_of(part, horizon)
        levels = levels_of(part.series, values)
        targets = origins[:, None] + np.arange(1, horizon + 1)
        changes.append(levels[targets] - levels[origins][:, None])
        last.append(part.series.values[origins, 0])
        times.append(part.series.times[origins + 1])
        series.append(np.full(len(origins), number_of[part.series.name]))
    scales = {
        name: training_scales(_training_values(splits, name, values), config.evaluation.season)
        for name in names
    }
    numbers = np.concatenate(series)
    scale, deviation = (np.array([scales[name][i] for name in names])[numbers] for i in (0, 1))
    return Truth(
        changes=np.concatenate(changes),
        last=np.concatenate(last),
        times=np.concatenate(times),
        series=numbers,
        names=names,
        scale=scale,
        deviation=deviation,
        logs=values == "log_returns",
    )


def training_scales(
    slices: Sequence[tuple[np.ndarray, np.ndarray]], season: int
) -> tuple[float, float]:
    """Compute the scales of a series' errors from its training split.

    Args:
        slices: Raw values and levels of each slice of the series.
        season: Steps in a season.

    Returns:
        The mean absolute change over a season of the raw values (Hyndman & Koehler 2006), and the
        standard deviation of the level.
    """
    changes = np.concatenate([np.abs(raw[season:] - raw[:-season]) for raw, _ in slices])
    levels = np.concatenate([level for _, level in slices])
    mean = float(changes.mean()) if len(changes) else 0.0
    return max(mean, TINY), max(float(levels.std()), TINY)


def _training_values(splits: Splits, name: str, values: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return raw values and levels of a series before the test split.

    For a series that is not in the training split, these are all values before its test slice.
    """
    known = [(part.series, part.stop) for part in splits.train if part.series.name == name] or [
        (part.series, part.start) for part in splits.test if part.series.name == name
    ]
    return [(s.values[:end, 0], levels_of(s, values)[:end]) for s, end in known]


def to_predictive(outputs: Any, config: ForecastingConfig) -> Predictive:
    """Convert a `Forecaster`'s outputs ``[windows, 1, steps, 2 + n]`` to distributions."""
    array = np.asarray(outputs, np.float64)[:, 0]
    base, unit, parameters = array[..., 0], array[..., 1], array[..., 2:]
    if config.model.head == "quantiles":
        values = base[..., None] + unit[..., None] * parameters
        return Empirical(np.asarray(config.model.quantiles), values)
    freedom = parameters[..., 2] if config.model.head == "student_t" else None
    return Parametric(base + unit * parameters[..., 0], unit * parameters[..., 1], freedom)


def walk_forward(
    config: ForecastingConfig, processor: Scales, model: Forecaster, served: Any, windows: Windows
) -> Predictive:
    """Forecast at every origin, with windows in batches.

    Args:
        config: The config of the run.
        processor: The scales.
        model: The model.
        served: A SavedModel, which samples the paths of an autoregressive model.
        windows: Windows with one origin each.
    """
    outputs = []
    for inputs, _ in windows.batches(processor):
        if "future_dates" in inputs and config.model.decode == "autoregressive":
            inputs["future_dates"] = inputs["future_dates"][:, :, :1]
        outputs.append(np.asarray(model.predict_on_batch(inputs)))
    predictive = to_predictive(np.concatenate(outputs), config)
    if config.model.decode == "direct" or config.model.horizon == 1:
        return predictive
    later = []
    serve, names = served.signatures["serving_default"], np.array(["", *processor.names])
    rows = max(_MAX_PATHS_IN_BATCH // config.forecast.paths, 1)
    for start in range(0, len(windows), rows):
        indices = np.arange(start, min(start + rows, len(windows)))
        inputs, _ = windows.batch(indices, processor)
        request = {
            "history": tf.constant(inputs["history"]),
            "lengths": tf.constant(inputs["lengths"]),
            "series": tf.constant(names[inputs["series"]]),
            "paths": tf.constant([config.forecast.paths]),
            "seed": tf.constant(config.forecast.seed + indices, tf.int32),
        }
        if config.model.calendar:
            request |= windows.seconds(indices)
        paths = serve(**request)["paths"].numpy().astype(np.float64)
        last = inputs["history"][np.arange(len(indices)), inputs["lengths"] - 1, 0][:, None, None]
        changes = np.log(paths / last) if config.data.values == "log_returns" else paths - last
        later.append(Empirical.from_paths(changes[..., 1:]).values)
    values = np.concatenate([predictive.quantiles(DENSE_LEVELS), np.concatenate(later)], axis=1)
    return Empirical(DENSE_LEVELS, values)
