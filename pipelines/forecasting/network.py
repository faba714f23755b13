"""The networks inside a `Forecaster`: recurrent layers over the features, and the output head."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from pipelines.engine.config.schema import CellConfig
from pipelines.engine.models.blocks import recurrent_stack, state_sizes
from pipelines.forecasting import distributions
from pipelines.forecasting.config import ForecastingModelConfig

#: Units of the hidden layer for the dates of the forecast steps.
_DATE_UNITS = 16


def build_reader(
    config: ForecastingModelConfig, *, inputs: int, series: int, seed: int
) -> keras.Model:
    """Build the recurrent network that reads a history.

    Args:
        config: The ``model`` section of the config.
        inputs: Number of features of each step.
        series: Number of series, the unknown one included.
        seed: Seed of initial weights and dropout.

    Returns:
        A model ``[features <float>[batch, time, inputs], series <int32>[batch],
        valid <bool>[batch, time], state…]`` → ``[encoded, state…]``. ``encoded
        <float32>[batch, time, units + inputs + embedding]`` are the hidden states, concatenated
        with the inputs of the recurrent layers.
    """
    features = keras.Input((None, inputs), name="features")
    series_number = keras.Input((), dtype="int32", name="series")
    valid = keras.Input((None,), dtype="bool", name="valid")
    states = [
        keras.Input((units,), name=f"state_{i}") for i, units in enumerate(state_sizes(config))
    ]
    x = features
    if config.embedding:
        vector = keras.layers.Embedding(
            series,
            config.embedding,
            embeddings_initializer=keras.initializers.RandomUniform(-0.05, 0.05, seed=seed),
            name="series_embedding",
        )(series_number)
        repeated = ops.zeros_like(x[..., :1]) + vector[:, None]
        x = ops.concatenate([x, repeated], axis=-1)
    hidden, final_states = recurrent_stack(
        CellConfig(cell=config.cell, units=config.units),
        x,
        valid,
        seed=seed + 10,
        dropout=config.dropout,
        states=states,
    )
    hidden = keras.layers.Dropout(config.dropout, seed=seed + 1, name="dropout")(hidden)
    encoded = ops.concatenate([ops.cast(hidden, "float32"), ops.cast(x, "float32")], axis=-1)
    return keras.Model(
        [features, series_number, valid, *states], [encoded, *final_states], name="reader"
    )


def build_head(config: ForecastingModelConfig, *, inputs: int, seed: int) -> keras.Model:
    """Build the output layers.

    Their initial output does not depend on the input: only the bias is not zero.

    Args:
        config: The ``model`` section of the config.
        inputs: Size of the encoding of a step.
        seed: Seed of the initial weights.

    Returns:
        A model ``encoded <float>[batch, origins, inputs]`` → ``<float32>[batch, origins, steps,
        size]``, the arguments of `distributions.to_parameters`. With a calendar, its inputs are
        ``[encoded, future_dates <float>[batch, origins, steps, 2 · calendar]]``.
    """
    steps = 1 if config.decode == "autoregressive" else config.horizon
    size = distributions.parameter_count(config.head, config.quantiles)
    bias = np.tile(distributions.initial_output(config.head, config.quantiles), steps)
    encoded = keras.Input((None, inputs), name="read")
    flat = keras.layers.Dense(
        steps * size,
        kernel_initializer="zeros",
        bias_initializer=FixedValues(bias.tolist()),
        dtype="float32",
        name="V",
    )(encoded)
    output = keras.layers.Reshape((-1, steps, size), dtype="float32")(flat)
    model_inputs = [encoded]
    if config.calendar:
        dates = keras.Input((None, steps, 2 * len(config.calendar)), name="future_dates")
        model_inputs.append(dates)
        from_dates = keras.layers.Dense(
            _DATE_UNITS,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
            name="dates",
        )(dates)
        from_history = keras.layers.Dense(
            _DATE_UNITS,
            use_bias=False,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 1),
            name="so_far",
        )(encoded)
        hidden = ops.tanh(from_dates + from_history[:, :, None])
        output = output + keras.layers.Dense(
            size, use_bias=False, kernel_initializer="zeros", dtype="float32", name="V_dates"
        )(hidden)
    return keras.Model(model_inputs, output, name="head")


# The registered name is that of saved models.
@keras.saving.register_keras_serializable(package="unfold", name="_Given")
class FixedValues(keras.initializers.Initializer):
    """Initialize a weight with given values.

    Args:
        values: The values, as many as the weight has elements.
    """

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return ops.reshape(ops.convert_to_tensor(self.values, dtype=dtype), shape)

    def get_config(self) -> dict[str, Any]:
        return {"values": self.values}
