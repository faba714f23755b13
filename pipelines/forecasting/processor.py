"""The processor of forecasting: scales of the series and a ridge regression."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipelines.engine.core.files import write_bytes, write_json
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.series import Series, SeriesSlice

#: Lower bound of standard deviations, because that of a constant series is zero.
TINY = 1e-8
#: Candidate ridge penalties, relative to the mean square of the inputs.
_PENALTIES = tuple(10.0**p for p in range(2, -7, -1))


class Scales:
    """The names of the series and the scales of their values, from the training split.

    Row 0 of each array is for series that are not in the training split: the mean over all series.

    Attributes:
        names: Names of the series.
        calendar: The features of a date, see `ForecastingModelConfig`.
        arrays: The arrays below by name. ``further`` are the covariates.
        level: Mean and standard deviation of the target's level (its logarithm, for log returns),
            ``<float32>[series + 1, 2]``.
        change: Standard deviation of the level's changes over one step, ``<float32>[series + 1]``.
        covariates: Mean and standard deviation of further columns and ratios,
            ``<float32>[series + 1, covariates, 2]``.
        spread: Standard deviation of the change over k steps relative to that over one step,
            ``<float32>[horizon]``.
        ridge: Weights of the linear path, ``<float32>[lags, horizon]``; without one, lags is 0.
    """

    def __init__(
        self, names: Sequence[str], calendar: Sequence[str], arrays: dict[str, np.ndarray]
    ) -> None:
        self.names, self.calendar, self.arrays = list(names), list(calendar), dict(arrays)
        self.level, self.change = arrays["level"], arrays["change"]
        self.covariates, self.spread = arrays["further"], arrays["spread"]
        self.ridge = arrays["ridge"]
        self._table = _SeriesTable(self.names)

    @classmethod
    def fit(
        cls,
        config: ForecastingConfig,
        train: Sequence[SeriesSlice],
        validation: Sequence[SeriesSlice],
    ) -> Scales:
        """Compute the scales from the training split.

        The validation split is only used to choose the ridge penalty.
        """
        names = sorted({p.series.name for p in train})
        parts = {name: [p for p in train if p.series.name == name] for name in names}
        values, horizon = config.data.values, config.model.horizon
        level, change, covariates, spread = [], [], [], []
        for name in names:
            levels = [levels_of(p.series, values)[: p.stop] for p in parts[name]]
            changes = np.concatenate([np.diff(x) for x in levels])
            all_levels = np.concatenate(levels)
            level.append([all_levels.mean(), _deviation(all_levels)])
            change.append(_deviation(changes))
            rows = np.concatenate([covariates_of(p.series, config)[: p.stop] for p in parts[name]])
            covariates.append(np.stack([rows.mean(axis=0), _deviation(rows, axis=0)], axis=-1))
            spread.append(
                [
                    (_mean_square(np.concatenate([x[k:] - x[:-k] for x in levels])) + TINY**2)
                    / (_mean_square(changes) + TINY**2)
                    for k in range(1, horizon + 1)
                ]
            )
        lags = config.model.linear
        ridge = np.zeros((0, horizon))
        if lags is not None:
            ridge = fit_ridge(train, validation, config, lags)
        return cls(
            names,
            config.model.calendar,
            {
                "level": _with_mean(level),
                "change": _with_mean(change),
                "further": _with_mean(covariates),
                "spread": np.sqrt(np.nanmedian(spread, axis=0)).astype(np.float32),
                "ridge": ridge.astype(np.float32),
            },
        )

    def number(self, name: str) -> int:
        """Return the row of a series, 0 if it is not in the training split."""
        return self._table.rows.get(name, 0)

    def numbers(self, names: tf.Tensor) -> tf.Tensor:
        """Return the rows ``<int32>[…]`` of series ``<string>[…]``."""
        return self._table.table.lookup(names)

    def dates(self, times: tf.Tensor) -> tf.Tensor:
        """Encode dates as sine and cosine of the time of day, of the week and of the year.

        Args:
            times: Seconds since 1970, ``<int64>[…]``.

        Returns:
            ``<float32>[…, 2 · calendar]``.
        """
        period = {"hour": 86_400.0, "weekday": 7 * 86_400.0, "year": 365.2425 * 86_400.0}
        features = []
        for name in self.calendar:
            phase = tf.math.floormod(tf.cast(times, tf.float64), period[name]) / period[name]
            features += [tf.sin(2 * math.pi * phase), tf.cos(2 * math.pi * phase)]
        return tf.cast(tf.stack(features, axis=-1), tf.float32)

    def resources(self) -> list[tf.Module]:
        return [self._table]

    def save(self, folder: Path) -> None:
        write_json(folder / "series.json", {"names": self.names, "calendar": self.calendar})
        write_bytes(folder / "scales.npz", lambda file: np.savez(file, **self.arrays))  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: Path) -> Scales:
        saved = json.loads((folder / "series.json").read_text(encoding="utf-8"))
        raw = io.BytesIO((folder / "scales.npz").read_bytes())
        with np.load(raw, allow_pickle=False) as arrays:
            return cls(saved["names"], saved["calendar"], {k: arrays[k] for k in arrays.files})


class _SeriesTable(tf.Module):
    """A lookup table from the names of series to their rows."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.rows = {name: i for i, name in enumerate(names, 1)}
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(self.rows), tf.string),
                tf.constant(list(self.rows.values()), tf.int32),
            ),
            default_value=0,
        )


def levels_of(series: Series, values: str) -> np.ndarray:
    """Return the level of the target, ``<float64>[steps]``: its value, or its logarithm."""
    target = series.values[:, 0]
    levels: np.ndarray = np.log(target) if values == "log_returns" else target
    return levels


def covariates_of(series: Series, config: ForecastingConfig) -> np.ndarray:
    """Return the transformed further columns and ratios, ``<float64>[steps, covariates]``."""
    data, values = config.data, series.values
    features = []
    for i, kind in enumerate(data.columns.values(), 1):
        column = np.log(values[:, i]) if kind == "log_returns" else values[:, i]
        features.append(column if kind == "levels" else np.diff(column, prepend=column[:1]))
    pairs = values[:, 1 + len(data.columns) :]
    features += [np.log(pairs[:, 2 * i] / pairs[:, 2 * i + 1]) for i in range(len(data.ratios))]
    return np.stack(features, axis=-1) if features else np.zeros((len(series), 0))


def fit_ridge(
    train: Sequence[SeriesSlice],
    validation: Sequence[SeriesSlice],
    config: ForecastingConfig,
    lags: int,
) -> np.ndarray:
    """Fit one linear autoregression to all series by ridge regression.

    ::

        ŷ_{t+k} − y_t = Σ_j w_{j,k} (y_{t−j} − y_t)      j = 1 … lags

    w minimises the squared error on the training split with the penalty α Σ w². α is chosen by the
    error on the validation split; if that is too short, it is the largest one. Each series is
    divided by the standard deviation of its changes.

    Args:
        train: The slices of the training split.
        validation: The slices of the validation split.
        config: The config of the run.
        lags: Number of lags.

    Returns:
        w, ``<float64>[lags, horizon]``.
    """
    horizon = config.model.horizon
    gram, moment = np.zeros((lags, lags)), np.zeros((lags, horizon))
    held_out: list[tuple[np.ndarray, np.ndarray]] = []
    changes: dict[str, list[np.ndarray]] = {}
    for part in train:
        levels = levels_of(part.series, config.data.values)[: part.stop]
        changes.setdefault(part.series.name, []).append(np.diff(levels))
    scale = {name: float(_deviation(np.concatenate(arrays))) for name, arrays in changes.items()}
    for part in train:
        x, y = _pairs(part, config, lags, scale[part.series.name])
        gram += x.T @ x
        moment += x.T @ y
    for part in validation:
        if part.series.name in scale:
            held_out.append(_pairs(part, config, lags, scale[part.series.name]))
    unit = max(float(np.trace(gram)) / lags, TINY)
    best: np.ndarray = np.zeros((lags, horizon))
    lowest = math.inf
    for penalty in _PENALTIES:
        w = np.linalg.solve(gram + penalty * unit * np.eye(lags), moment)
        error = sum(float(np.square(x @ w - y).sum()) for x, y in held_out)
        if error < lowest:
            best, lowest = w, error
    return best


def _pairs(
    part: SeriesSlice, config: ForecastingConfig, lags: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs ``<float64>[origins, lags]`` and targets ``<float64>[origins, horizon]``.

    The origins are those of a slice with a whole horizon.
    """
    levels, horizon = levels_of(part.series, config.data.values) / scale, config.model.horizon
    origins = np.arange(max(part.start - 1, 1), part.stop - horizon)
    lagged = origins[:, None] - np.arange(1, lags + 1)
    inputs = levels[np.maximum(lagged, 0)] - levels[origins][:, None]
    targets = levels[origins[:, None] + np.arange(1, horizon + 1)] - levels[origins][:, None]
    return inputs, targets


def _with_mean(rows: Sequence[object]) -> np.ndarray:
    """Stack rows and prepend their mean, for unknown series."""
    array = np.asarray(rows, np.float64)
    return np.concatenate([array.mean(axis=0, keepdims=True), array]).astype(np.float32)


def _deviation(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    deviation: np.ndarray = np.maximum(np.std(values, axis=axis), TINY)
    return deviation


def _mean_square(values: np.ndarray) -> float:
    return float(np.mean(np.square(values))) if len(values) else math.nan
