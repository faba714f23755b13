"""What forecasting learns from the training split before the model: scales, and a ridge."""

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
from pipelines.forecasting.series import Part, Series

#: Kept at least, of any deviation: a constant series has none.
TINY = 1e-8
#: What the ridge penalty is chosen from, as a share of the mean square of what is read.
_PENALTIES = tuple(10.0**p for p in range(2, -7, -1))


class Scales:
    """Which series there are, and how large their numbers are.

    Row 0 of each array is for a series that was not trained on: the mean over all of them.

    Attributes:
        names: the series.
        level: ``<float32>[series + 1, 2]``, mean and deviation of the target's level (its
            logarithm, for log returns).
        change: ``<float32>[series + 1]``, deviation of its changes from one step to the next.
        further: ``<float32>[series + 1, features, 2]``, of further columns and ratios.
        spread: ``<float32>[horizon]``, deviation of the change over k steps in that of one.
        ridge: ``<float32>[lags, horizon]``, of the linear path; without one, of no lags.
        calendar: what is read of a date.
    """

    def __init__(
        self, names: Sequence[str], calendar: Sequence[str], arrays: dict[str, np.ndarray]
    ) -> None:
        self.names, self.calendar, self.arrays = list(names), list(calendar), dict(arrays)
        self.level, self.change = arrays["level"], arrays["change"]
        self.further, self.spread = arrays["further"], arrays["spread"]
        self.ridge = arrays["ridge"]
        self._table = _Table(self.names)

    @classmethod
    def fit(
        cls, config: ForecastingConfig, train: Sequence[Part], validation: Sequence[Part]
    ) -> Scales:
        """Learned from the training parts; the ridge's penalty is chosen by the validation."""
        names = sorted({p.series.name for p in train})
        parts = {name: [p for p in train if p.series.name == name] for name in names}
        values, horizon = config.data.values, config.model.horizon
        level, change, further, spread = [], [], [], []
        for name in names:
            levels = [levels_of(p.series, values)[: p.stop] for p in parts[name]]
            changes = np.concatenate([np.diff(x) for x in levels])
            one = _deviation(changes)
            whole = np.concatenate(levels)
            level.append([whole.mean(), _deviation(whole)])
            change.append(one)
            rows = np.concatenate([further_of(p.series, config)[: p.stop] for p in parts[name]])
            further.append(np.stack([rows.mean(axis=0), _deviation(rows, axis=0)], axis=-1))
            spread.append(
                [
                    (_square(np.concatenate([x[k:] - x[:-k] for x in levels])) + TINY**2)
                    / (_square(changes) + TINY**2)
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
                "further": _with_mean(further),
                "spread": np.sqrt(np.nanmedian(spread, axis=0)).astype(np.float32),
                "ridge": ridge.astype(np.float32),
            },
        )

    def number(self, name: str) -> int:
        """A series' row, 0 if it was not trained on."""
        return self._table.of.get(name, 0)

    def numbers(self, names: tf.Tensor) -> tf.Tensor:
        return self._table.table.lookup(names)

    def dates(self, times: tf.Tensor) -> tf.Tensor:
        """``seconds <int64>[…]`` → sine and cosine of the hour, weekday and season
        ``<float32>[…, 2 · calendar]``."""
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


class _Table(tf.Module):
    """Names of series to their rows."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.of = {name: i for i, name in enumerate(names, 1)}
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(self.of), tf.string), tf.constant(list(self.of.values()), tf.int32)
            ),
            default_value=0,
        )


def levels_of(series: Series, values: str) -> np.ndarray:
    """What is forecast, in the units of the model: the number, or its logarithm."""
    target = series.values[:, 0]
    return np.log(target) if values == "log_returns" else target


def further_of(series: Series, config: ForecastingConfig) -> np.ndarray:
    """``<float64>[steps, features]``: the further columns as they are read, and the ratios."""
    data, values = config.data, series.values
    read = []
    for i, how in enumerate(data.columns.values(), 1):
        column = np.log(values[:, i]) if how == "log_returns" else values[:, i]
        read.append(column if how == "levels" else np.diff(column, prepend=column[:1]))
    pairs = values[:, 1 + len(data.columns) :]
    read += [np.log(pairs[:, 2 * i] / pairs[:, 2 * i + 1]) for i in range(len(data.ratios))]
    return np.stack(read, axis=-1) if read else np.zeros((len(series), 0))


def fit_ridge(
    train: Sequence[Part], validation: Sequence[Part], config: ForecastingConfig, lags: int
) -> np.ndarray:
    """The linear autoregression of all series together, ``<float64>[lags, horizon]``::

        ŷ_{t+k} − y_t = Σ_j w_{j,k} (y_{t−j} − y_t)      j = 1 … lags

    w has the least squared error on the training split with the penalty α Σ w², of the α that
    has the least error on the validation split (the largest, where that is too short). Each
    series counts in the deviation of its changes.
    """
    horizon = config.model.horizon
    seen, wanted = np.zeros((lags, lags)), np.zeros((lags, horizon))
    held: list[tuple[np.ndarray, np.ndarray]] = []
    changes: dict[str, list[np.ndarray]] = {}
    for part in train:
        levels = levels_of(part.series, config.data.values)[: part.stop]
        changes.setdefault(part.series.name, []).append(np.diff(levels))
    scale = {name: float(_deviation(np.concatenate(some))) for name, some in changes.items()}
    for part in train:
        x, y = _pairs(part, config, lags, scale[part.series.name])
        seen += x.T @ x
        wanted += x.T @ y
    for part in validation:
        if part.series.name in scale:
            held.append(_pairs(part, config, lags, scale[part.series.name]))
    unit = max(float(np.trace(seen)) / lags, TINY)
    best: np.ndarray = np.zeros((lags, horizon))
    least = math.inf
    for penalty in _PENALTIES:
        w = np.linalg.solve(seen + penalty * unit * np.eye(lags), wanted)
        error = sum(float(np.square(x @ w - y).sum()) for x, y in held)
        if error < least:
            best, least = w, error
    return best


def _pairs(
    part: Part, config: ForecastingConfig, lags: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """What is read and what comes, at every origin of a part with a whole horizon."""
    levels, horizon = levels_of(part.series, config.data.values) / scale, config.model.horizon
    origins = np.arange(max(part.start - 1, 1), part.stop - horizon)
    before = origins[:, None] - np.arange(1, lags + 1)
    read = levels[np.maximum(before, 0)] - levels[origins][:, None]
    ahead = levels[origins[:, None] + np.arange(1, horizon + 1)] - levels[origins][:, None]
    return read, ahead


def _with_mean(rows: Sequence[object]) -> np.ndarray:
    array = np.asarray(rows, np.float64)
    return np.concatenate([array.mean(axis=0, keepdims=True), array]).astype(np.float32)


def _deviation(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    return np.maximum(np.std(values, axis=axis), TINY)


def _square(values: np.ndarray) -> float:
    return float(np.mean(np.square(values))) if len(values) else math.nan
