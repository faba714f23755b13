"""Windows into series: the steps that a model reads, its forecast origins and its targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.engine.data.bucketing import shuffled
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.processor import Scales, levels_of
from pipelines.forecasting.series import SeriesSlice

#: Windows in a batch of `Windows.batches`.
_BATCH_SIZE = 1024
#: Minimum number of steps before the first origin of a training series.
_MIN_CONTEXT = 10


@dataclass(frozen=True)
class Windows:
    """Windows into series that are stored one after the other.

    Attributes:
        levels: Levels of all series, ``<float64>[steps]``.
        values: Raw values, ``<float32>[steps, columns]``.
        times: Seconds since 1970, ``<int64>[steps]``.
        starts: Index of the first step of each window, ``<int64>[windows]``.
        lengths: Number of steps of each window, ``<int64>[windows]``.
        first_origins: Index of the first origin of each window, ``<int64>[windows]``.
        origin_counts: Number of origins of each window, ``<int64>[windows]``.
        ends: Index after the last target of each window, ``<int64>[windows]``.
        series: Number of the series of each window, ``<int32>[windows]``.
        length: Number of steps of a window, padding included.
        origins: Number of origins of a window, padding included.
        horizon: Number of targets of an origin, padding included.
    """

    levels: np.ndarray
    values: np.ndarray
    times: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    first_origins: np.ndarray
    origin_counts: np.ndarray
    ends: np.ndarray
    series: np.ndarray
    length: int
    origins: int
    horizon: int

    @classmethod
    def from_slices(
        cls,
        slices: Sequence[SeriesSlice],
        config: ForecastingConfig,
        scales: Scales,
        *,
        origins: int,
        stride: int,
        horizon: int,
        whole: bool = False,
    ) -> Windows:
        """Return the windows whose targets are in ``slices``.

        Args:
            slices: Slices of series.
            config: The config of the run.
            scales: The scales, which number the series.
            origins: Maximum number of forecast origins in a window.
            stride: Steps between two windows.
            horizon: Number of targets of an origin.
            whole: Whether to use only origins whose targets all exist.
        """
        history, rows, series, offset = config.model.history, [], [], 0
        for part in slices:
            # The last origin has one target, or all of them if ``whole``.
            end = part.stop - (horizon if whole else 1)
            begin = max(part.start - 1, 0 if whole else min(_MIN_CONTEXT, part.stop // 2))
            for first in range(begin, end, stride):
                count = min(origins, end - first)
                start = max(first - history + 1, 0)
                rows.append(
                    (
                        offset + start,
                        first + count - start,
                        offset + first,
                        count,
                        offset + part.stop,
                    )
                )
                series.append(scales.number(part.series.name))
            offset += len(part.series)
        starts, lengths, first_origins, origin_counts, ends = (
            np.array(rows, np.int64).reshape(-1, 5).T
        )
        empty = np.zeros((0, 1 + len(config.data.columns) + 2 * len(config.data.ratios)))
        return cls(
            levels=np.concatenate([[], *(levels_of(p.series, config.data.values) for p in slices)]),
            values=np.concatenate([empty, *(p.series.values for p in slices)]).astype(np.float32),
            times=np.concatenate([np.zeros(0, np.int64), *(p.series.seconds for p in slices)]),
            starts=starts,
            lengths=lengths,
            first_origins=first_origins,
            origin_counts=origin_counts,
            ends=ends,
            series=np.array(series, np.int32),
            length=history + origins - 1,
            origins=origins,
            horizon=horizon,
        )

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def tokens(self) -> int:
        """Number of steps in all windows, without padding."""
        return int(self.lengths.sum())

    def batch(self, which: np.ndarray, scales: Scales) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the inputs and targets of some windows.

        Args:
            which: Indices of the windows, ``<int64>[batch]``.
            scales: The scales, which encode dates.

        Returns:
            The inputs of a `Forecaster`, and the targets ``<float32>[batch, origins, horizon]``. A
            target is the change of the level from its origin; NaN where there is no target.
        """
        steps, origins, targets = self._indices(which)
        exists = targets < self.ends[which, None, None]
        exists &= (np.arange(self.origins) < self.origin_counts[which, None])[..., None]
        last = len(self.levels) - 1
        changes = self.levels[np.minimum(targets, last)] - self.levels[origins][..., None]
        inputs = {
            "history": self.values[steps],
            "lengths": self.lengths[which].astype(np.int32),
            "series": self.series[which],
            "origins": (origins - self.starts[which, None]).astype(np.int32),
        }
        if scales.calendar:
            inputs["dates"] = scales.dates(self.times[steps]).numpy()
            inputs["future_dates"] = scales.dates(self._seconds_at(targets)).numpy()
        return inputs, np.where(exists, changes, np.nan).astype(np.float32)

    def seconds(self, which: np.ndarray) -> dict[str, np.ndarray]:
        """Return the times of some windows, in seconds since 1970.

        Returns:
            ``time <int64>[batch, length]`` of the steps, and ``future <int64>[batch, horizon]`` of
            the targets of each window's first origin.
        """
        steps, _, targets = self._indices(which)
        return {"time": self.times[steps], "future": self._seconds_at(targets[:, 0])}

    def _indices(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the indices of steps, origins and targets; padding repeats the last one.

        Their shapes are ``[batch, length]``, ``[batch, origins]`` and ``[batch, origins,
        horizon]``. Targets may be beyond the end of the data.
        """
        steps = self.starts[which, None] + np.minimum(
            np.arange(self.length), self.lengths[which, None] - 1
        )
        origins = self.first_origins[which, None] + np.minimum(
            np.arange(self.origins), self.origin_counts[which, None] - 1
        )
        return steps, origins, origins[..., None] + np.arange(1, self.horizon + 1)

    def _seconds_at(self, indices: np.ndarray) -> np.ndarray:
        """Return times; after the end of the data, where no target exists, the last time."""
        seconds: np.ndarray = self.times[np.minimum(indices, len(self.times) - 1)]
        return seconds

    def batches(
        self, scales: Scales, size: int = _BATCH_SIZE
    ) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Yield all windows in order, in batches of ``size``."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))), scales)


class WindowFeed:
    """Training and validation windows; the order of the training windows depends on the epoch.

    Attributes:
        steps: Batches in an epoch.
        tokens: Steps in an epoch.
        padded_tokens: Steps in an epoch, padding included.
    """

    def __init__(
        self,
        config: ForecastingConfig,
        scales: Scales,
        train: Sequence[SeriesSlice],
        validation: Sequence[SeriesSlice],
    ) -> None:
        self._config, self._scales = config, scales
        horizon = 1 if config.model.decode == "autoregressive" else config.model.horizon
        origins = config.train.origins
        known = [p for p in validation if scales.number(p.series.name)]
        self._train, self._validation = (
            Windows.from_slices(
                slices, config, scales, origins=origins, stride=stride or origins, horizon=horizon
            )
            for slices, stride in ((train, config.train.stride), (known or validation, None))
        )
        size = config.train.batch_size
        self.steps = -(-len(self._train) // size)
        self.tokens = self._train.tokens
        self.padded_tokens = len(self._train) * self._train.length

    def train(self, epoch: int) -> tf.data.Dataset:
        order = shuffled(len(self._train), seed=self._config.seed, epoch=epoch)
        drawn = np.random.default_rng([self._config.seed, epoch, 1]).random(len(order))
        return self._batches(self._train, order, drawn < self._config.train.unknown)

    def validation(self) -> tf.data.Dataset:
        count = len(self._validation)
        return self._batches(self._validation, np.arange(count), np.zeros(count, bool))

    def _batches(self, windows: Windows, order: np.ndarray, unknown: np.ndarray) -> tf.data.Dataset:
        size = self._config.train.batch_size

        def generate() -> Iterator[Any]:
            for start in range(0, len(order), size):
                which = order[start : start + size]
                inputs, targets = windows.batch(which, self._scales)
                inputs["series"] = np.where(unknown[which], 0, inputs["series"]).astype(np.int32)
                yield inputs, targets

        inputs, targets = windows.batch(order[:1], self._scales)
        spec = tf.nest.map_structure(
            lambda a: tf.TensorSpec([None, *a.shape[1:]], a.dtype), (inputs, targets)
        )
        data = tf.data.Dataset.from_generator(generate, output_signature=spec)
        steps = -(-len(order) // size)
        return data.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)
