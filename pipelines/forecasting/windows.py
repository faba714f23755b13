"""Series cut into windows: what a model reads, and at which steps it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.engine.data.bucketing import shuffled
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.processor import Scales, levels_of
from pipelines.forecasting.series import Part

#: Windows scored side by side.
_ROWS = 1024
#: Steps that a forecast has before it at least, where a series begins.
_LEAST = 10


@dataclass(frozen=True)
class Windows:
    """Windows into series that are laid one behind the other.

    Attributes:
        levels: ``<float64>[steps]``, of all series.
        values: ``<float32>[steps, columns]``, raw.
        times: ``<int64>[steps]``, seconds since 1970.
        rows: ``<int64>[windows, 5]``: first step of the window, how many there are; first origin,
            how many there are; the end of the targets.
        series: ``<int32>[windows]``.
        length, origins, horizon: a window's steps, origins and targets, padding included.
    """

    levels: np.ndarray
    values: np.ndarray
    times: np.ndarray
    rows: np.ndarray
    series: np.ndarray
    length: int
    origins: int
    horizon: int

    @classmethod
    def of(
        cls,
        parts: Sequence[Part],
        config: ForecastingConfig,
        scales: Scales,
        *,
        origins: int,
        stride: int,
        horizon: int,
        whole: bool = False,
    ) -> Windows:
        """The windows whose targets are in ``parts``.

        Args:
            origins: forecasts of one window, at most.
            stride: steps between two windows.
            whole: only origins whose targets are all there.
        """
        history, rows, series, before = config.model.history, [], [], 0
        for part in parts:
            # The last origin has one target, or all of them; the first knows a few steps.
            end = part.stop - (horizon if whole else 1)
            begin = max(part.start - 1, 0 if whole else min(_LEAST, part.stop // 2))
            for first in range(begin, end, stride):
                count = min(origins, end - first)
                start = max(first - history + 1, 0)
                rows.append((before + start, first + count - start, before + first, count,
                             before + part.stop))  # fmt: skip
                series.append(scales.number(part.series.name))
            before += len(part.series)
        empty = np.zeros((0, 1 + len(config.data.columns) + 2 * len(config.data.ratios)))
        return cls(
            levels=np.concatenate([[], *(levels_of(p.series, config.data.values) for p in parts)]),
            values=np.concatenate([empty, *(p.series.values for p in parts)]).astype(np.float32),
            times=np.concatenate([np.zeros(0, np.int64), *(p.series.seconds for p in parts)]),
            rows=np.array(rows, np.int64).reshape(-1, 5),
            series=np.array(series, np.int32),
            length=history + origins - 1,
            origins=origins,
            horizon=horizon,
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tokens(self) -> int:
        """Steps that are read, without padding."""
        return int(self.rows[:, 1].sum())

    def batch(self, which: np.ndarray, scales: Scales) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """``(inputs of a Forecaster, targets <float32>[batch, origins, horizon])``.

        A target is how far the level is above that of its origin; NaN where there is none.
        """
        start, steps, _, count, end = self.rows[which].T
        places, origin, ahead = self._places(which)
        there = ahead < end[:, None, None]
        there &= (np.arange(self.origins) < count[:, None])[..., None]
        last = len(self.levels) - 1
        targets = self.levels[np.minimum(ahead, last)] - self.levels[origin][..., None]
        inputs = {
            "history": self.values[places],
            "lengths": steps.astype(np.int32),
            "series": self.series[which],
            "at": (origin - start[:, None]).astype(np.int32),
        }
        if scales.calendar:
            inputs["dates"] = scales.dates(self.times[places]).numpy()
            inputs["ahead"] = scales.dates(self._dates(ahead)).numpy()
        return inputs, np.where(there, targets, np.nan).astype(np.float32)

    def moments(self, which: np.ndarray) -> dict[str, np.ndarray]:
        """Seconds of what is read ``time <int64>[batch, steps]``, and of what the first origin of
        each window forecasts ``future <int64>[batch, horizon]``."""
        places, _, ahead = self._places(which)
        return {"time": self.times[places], "future": self._dates(ahead[:, 0])}

    def _places(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the steps are that are read, the origins, and the steps after each."""
        start, steps, first, count, _ = self.rows[which].T
        places = start[:, None] + np.minimum(np.arange(self.length), steps[:, None] - 1)
        origin = first[:, None] + np.minimum(np.arange(self.origins), count[:, None] - 1)
        return places, origin, origin[..., None] + np.arange(1, self.horizon + 1)

    def _dates(self, places: np.ndarray) -> np.ndarray:
        """Seconds; behind the end of the data they do not matter, as nothing is asked there."""
        return self.times[np.minimum(places, len(self.times) - 1)]

    def each(
        self, scales: Scales, rows: int = _ROWS
    ) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """All windows in order, ``rows`` side by side."""
        for start in range(0, len(self), rows):
            yield self.batch(np.arange(start, min(start + rows, len(self))), scales)


class WindowFeed:
    """The windows that a model is trained and validated on, in an order of each epoch's own."""

    def __init__(
        self,
        config: ForecastingConfig,
        scales: Scales,
        train: Sequence[Part],
        validation: Sequence[Part],
    ) -> None:
        self._config, self._scales = config, scales
        horizon = 1 if config.model.decode == "autoregressive" else config.model.horizon
        origins = config.train.origins
        known = [p for p in validation if scales.number(p.series.name)]
        self._train, self._validation = (
            Windows.of(
                parts, config, scales, origins=origins, stride=stride or origins, horizon=horizon
            )
            for parts, stride in ((train, config.train.stride), (known or validation, None))
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

        def all_of_them() -> Iterator[Any]:
            for start in range(0, len(order), size):
                which = order[start : start + size]
                inputs, targets = windows.batch(which, self._scales)
                inputs["series"] = np.where(unknown[which], 0, inputs["series"]).astype(np.int32)
                yield inputs, targets

        inputs, targets = windows.batch(order[:1], self._scales)
        spec = tf.nest.map_structure(
            lambda a: tf.TensorSpec([None, *a.shape[1:]], a.dtype), (inputs, targets)
        )
        data = tf.data.Dataset.from_generator(all_of_them, output_signature=spec)
        steps = -(-len(order) // size)
        return data.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)
