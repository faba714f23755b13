"""Sample paths of an autoregressive `Forecaster`."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from pipelines.forecasting import distributions
from pipelines.forecasting.model import EncodedHistory, Forecaster


class _PathState(NamedTuple):
    """What the next step of a path depends on; each array has ``batch · paths`` rows.

    Attributes:
        recent: The last ``lags + 1`` levels, the latest at the end.
        volatilities: Variances ``<float32>[rows, 1]``, one for each half-life.
        encoded: The input of the head, ``<float32>[rows, 1, size]``.
        states: States of the recurrent layers.
    """

    recent: Any
    volatilities: list[Any]
    encoded: Any
    states: list[Any]


def sample_paths(
    model: Forecaster, inputs: dict[str, Any], uniforms: Any, encoded: EncodedHistory | None = None
) -> tuple[Any, Any]:
    """Sample paths, feeding each output back as the next input.

    Args:
        model: A model with ``decode: autoregressive``.
        inputs: The inputs of the model, with one origin, the last valid step of each row.
        uniforms: Random numbers in (0, 1), ``<float32>[batch, paths, horizon, 2]``.
        encoded: The encoded inputs, if they are known.

    Returns:
        The model's output for the first step, ``<float32>[batch, 1, 2 + n]``, and the changes from
        the last level along each path, ``<float32>[batch, paths, horizon]``.
    """
    inputs, uniforms = keras.tree.map_structure(ops.convert_to_tensor, (inputs, uniforms))
    rows, paths = ops.shape(uniforms)[0], ops.shape(uniforms)[1]

    def for_each_path(tensor: Any) -> Any:
        return ops.repeat(tensor, paths, axis=0)

    encoded = encoded or model.encode(inputs)
    origins, lags = inputs["origins"], model.lags
    lagged = encoded.earlier + origins - ops.arange(lags, -1, -1, dtype="int32")
    recent = ops.take_along_axis(encoded.levels, ops.maximum(lagged, 0), axis=1)
    last_encoded = ops.take_along_axis(encoded.encoded, origins[..., None], axis=1)
    volatilities = [ops.take_along_axis(v, origins, axis=1) for v in encoded.volatilities]
    state = _PathState(
        for_each_path(recent),
        [for_each_path(v) for v in volatilities],
        for_each_path(last_encoded),
        [for_each_path(s) for s in encoded.states],
    )
    start, series, dates = state.recent[:, -1:], for_each_path(inputs["series"]), None
    if "future_dates" in inputs:
        dates = for_each_path(inputs["future_dates"][:, 0])
    uniforms = ops.reshape(uniforms, (-1, uniforms.shape[2], 2))
    first, changes, horizon = None, [], model.settings.horizon
    for k in range(horizon):
        date = None if dates is None else dates[:, k : k + 1]
        output, state = _step(model, state, series, date, uniforms[:, k])
        if first is None:
            first = ops.reshape(output, (rows, paths, 1, -1))[:, 0]
        changes.append(state.recent[:, -1:] - start)
    stacked = ops.concatenate(changes, axis=1)
    return first, ops.reshape(stacked, (rows, paths, horizon))


def _step(
    model: Forecaster, state: _PathState, series: Any, date: Any, uniforms: Any
) -> tuple[Any, _PathState]:
    """Sample the next level of each path and read it.

    Args:
        model: The model.
        state: The paths so far.
        series: ``<int32>[rows]``.
        date: ``<float32>[rows, 1, 2 · calendar]``; None without a calendar.
        uniforms: ``<float32>[rows, 2]``.

    Returns:
        The model's output, ``<float32>[rows, 1, 2 + n]``, and the new state.
    """
    settings, volatilities = model.settings, state.volatilities
    raw = model.head(state.encoded if date is None else [state.encoded, date[:, None]])
    unit = model.unit(volatilities[0] if volatilities else None, series)
    last = state.recent[:, -1:]
    lagged = (ops.flip(state.recent[:, :-1], 1) - last)[:, None] if model.lags else None
    output = model.output(raw, unit, lagged, last, series)[:, 0]
    z = distributions.sample(uniforms, output[:, 0, 2:], settings.head, settings.quantiles)
    change = (output[:, 0, 0] + output[:, 0, 1] * z)[:, None]
    level = last + change
    volatilities = [
        decay * v + (1 - decay) * ops.square(change)
        for decay, v in zip(settings.decays, volatilities, strict=True)
    ]
    features = [model.target_features(level, change, volatilities, series)]
    if date is not None:
        features.append(date)
    valid = ops.ones((ops.shape(level)[0], 1), dtype="bool")
    encoded, states = model.run_reader(
        ops.concatenate(features, axis=-1), series, valid, state.states
    )
    recent = ops.concatenate([state.recent[:, 1:], level], axis=1)
    return output, _PathState(recent, volatilities, encoded, states)
