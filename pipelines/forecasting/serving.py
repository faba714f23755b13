"""The serving signatures of forecasting: raw histories in, quantiles out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from pipelines.engine.export import stateful
from pipelines.forecasting import dates, distributions
from pipelines.forecasting.config import MAX_PATHS, ForecastingConfig
from pipelines.forecasting.model import EncodedHistory, Forecaster
from pipelines.forecasting.paths import sample_paths
from pipelines.forecasting.processor import Scales
from pipelines.forecasting.series import Series


def forecast_request(
    config: ForecastingConfig, series: Sequence[Series], future: Sequence[np.ndarray]
) -> dict[str, tf.Tensor]:
    """Return the inputs of the serving signature for a batch of series.

    Args:
        config: The config of the run.
        series: The steps that the model reads of each series.
        future: Times of the steps to forecast, ``<int64>[horizon]`` in microseconds.
    """
    request = {
        "history": tf.constant(_padded([s.values for s in series]), tf.float32),
        "lengths": tf.constant([len(s) for s in series]),
        "series": tf.constant([s.name for s in series]),
    }
    if config.model.calendar:
        request |= {
            "time": tf.constant(_padded([s.seconds for s in series])),
            "future": tf.constant(np.stack(future) // dates.SECOND),
        }
    if config.model.decode == "autoregressive":
        request |= {
            "paths": tf.constant([config.forecast.paths]),
            "seed": tf.constant([config.forecast.seed]),
        }
    return request


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays of unequal length, with zeros at their ends."""
    longest = max(map(len, rows))
    return np.stack(
        [np.pad(row, [(0, longest - len(row))] + [(0, 0)] * (row.ndim - 1)) for row in rows]
    )


class ForecastServing:
    """The serving signatures of a `Forecaster`.

    Requests are not trusted: a history longer than the model's is cut to its end, an empty one
    counts as one step, and other arguments are clipped to their limits.
    """

    def __init__(self, config: ForecastingConfig, processor: Scales, model: Forecaster) -> None:
        self._config, self._processor, self._model = config, processor, model

    def forecast(self, request: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Forecast the next steps of each history.

        Args:
            request: ``history <float32>[batch, time, columns]`` raw, ``lengths <int32>[batch]``
                and ``series <string>[batch]``; with a calendar, ``time <int64>[batch, time]`` and
                ``future <int64>[batch, horizon]`` in seconds; with ``decode: autoregressive``,
                ``paths <int32>[1 or batch]`` and ``seed <int32>[1 or batch]``.

        Returns:
            ``quantiles <float32>[batch, horizon, levels]`` in the target's units; with ``decode:
            autoregressive`` also ``paths <float32>[batch, paths, horizon]``.
        """
        inputs = self._model_inputs(request, self._config.model.history)
        return self._forecast(request, inputs, self._model.encode(inputs))

    def step(
        self, request: dict[str, tf.Tensor], state: stateful.State
    ) -> tuple[dict[str, tf.Tensor], stateful.State]:
        """Continue each series by at least one step, then forecast as `forecast` does.

        No step is cut off. As long as a series is not longer than the ``history`` of the config,
        the forecast equals that of all its steps at once.

        Args:
            request: As for `forecast`, with the steps since the last call.
            state: The state of the series, see `Forecaster.initial_state`.

        Returns:
            The outputs of `forecast` and the new state.
        """
        inputs = self._model_inputs(request, None)
        encoded = self._model.encode(inputs, state)
        outputs = self._forecast(request, inputs, encoded)
        return outputs, self._model.next_state(inputs, encoded, state)

    def _model_inputs(
        self, request: dict[str, tf.Tensor], max_steps: int | None
    ) -> dict[str, tf.Tensor]:
        """Return the inputs of a `Forecaster`: the last ``max_steps`` of each row."""
        config, history = self._config.model, request["history"]
        time = tf.shape(history)[1]
        lengths = tf.clip_by_value(request["lengths"], 1, tf.maximum(time, 1))
        steps = lengths if max_steps is None else tf.minimum(lengths, max_steps)
        width = time if max_steps is None else tf.minimum(time, max_steps)
        # The last steps of each row, padded by repeating the last one.
        indices = tf.minimum(tf.range(width)[None], steps[:, None] - 1) + (lengths - steps)[:, None]
        inputs = {
            "history": tf.gather(history, indices, axis=1, batch_dims=1),
            "lengths": steps,
            "series": self._processor.numbers(request["series"]),
            "origins": steps[:, None] - 1,
        }
        if config.calendar:
            seconds = tf.gather(request["time"], indices, axis=1, batch_dims=1)
            inputs["dates"] = self._processor.dates(seconds)
            future = tf.ensure_shape(request["future"], [None, config.horizon])
            inputs["future_dates"] = self._processor.dates(future)[:, None]
        return inputs

    def _forecast(
        self,
        request: dict[str, tf.Tensor],
        inputs: dict[str, tf.Tensor],
        encoded: EncodedHistory,
    ) -> dict[str, tf.Tensor]:
        config, horizon = self._config.model, self._config.model.horizon
        history, rows = inputs["history"], tf.shape(inputs["history"])[0]
        last = tf.gather(history[..., 0], inputs["lengths"] - 1, axis=1, batch_dims=1)
        last = last[:, None, None]

        def to_raw(changes: tf.Tensor) -> tf.Tensor:
            logs = self._config.data.values == "log_returns"
            return last * tf.exp(changes) if logs else last + changes

        if config.decode == "direct":
            outputs = self._model.forecast(inputs, encoded)
            return {"quantiles": to_raw(_quantiles(outputs[:, 0], self._config))}
        paths = tf.clip_by_value(tf.reduce_max(request["paths"], keepdims=True), 2, MAX_PATHS)[0]
        # Each row has its own random stream, so that its paths do not depend on the batch.
        uniforms = tf.map_fn(
            lambda seed: tf.random.stateless_uniform([paths, horizon, 2], [seed, 0], 1e-7, 1.0),
            tf.broadcast_to(request["seed"], [rows]),
            fn_output_signature=tf.TensorSpec([None, horizon, 2], tf.float32),
        )
        first, changes = sample_paths(self._model, inputs, uniforms, encoded)
        # The first step's quantiles are exact; those of later steps come from the paths.
        later = ops.quantile(changes[..., 1:], config.quantiles, axis=1)
        quantiles = tf.concat(
            [_quantiles(first, self._config), tf.transpose(later, [1, 2, 0])], axis=1
        )
        return {"quantiles": to_raw(quantiles), "paths": to_raw(changes)}


def _quantiles(outputs: Any, config: ForecastingConfig) -> Any:
    """Return the quantiles of changes, ``[…, levels]``, of a model's outputs ``[…, 2 + n]``."""
    z = distributions.quantiles_of(outputs[..., 2:], config.model.head, config.model.quantiles)
    return outputs[..., :1] + outputs[..., 1:2] * z
