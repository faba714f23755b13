"""The forecasting model: scaling, recurrent layers and a distribution of the next steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from pipelines.forecasting import distributions
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.network import build_head, build_reader
from pipelines.forecasting.settings import ForecasterSettings

#: Standardised features are clipped to ±8.
_CLIP = 8.0


def build(config: ForecastingConfig, scales: dict[str, np.ndarray], *, seed: int) -> Forecaster:
    """Build an untrained model.

    Args:
        config: The config of the run.
        scales: The arrays of a `Scales`.
        seed: Seed of initial weights and dropout.
    """
    model = config.model
    series = len(scales["change"])
    settings = ForecasterSettings.from_config(config, series=series)
    reader = build_reader(model, inputs=settings.features, series=series, seed=seed)
    encoding = model.units[-1] + settings.features + model.embedding
    head = build_head(model, inputs=encoding, seed=seed + 50)
    forecaster = Forecaster(reader, head, settings.to_dict())
    forecaster.set_scales(scales)
    return forecaster


class EncodedHistory(NamedTuple):
    """Histories as a `Forecaster` encodes them.

    Attributes:
        levels: ``<float32>[batch, earlier + time]``, preceded by those kept in the streaming state.
        earlier: Number of levels from the streaming state.
        volatilities: Variances ``<float32>[batch, time]``, one for each half-life.
        encoded: The input of the head at each step, ``<float32>[batch, time, size]``.
        states: Final states of the recurrent layers.
    """

    levels: Any
    earlier: int
    volatilities: list[Any]
    encoded: Any
    states: list[Any]


@keras.saving.register_keras_serializable(package="unfold")
class Forecaster(keras.Model):
    """Forecast distributions from raw values; scaling is part of the model.

    With ℓ the level (the logarithm of the target for log returns), r_t = ℓ_t − ℓ_{t−1} and σ its
    standard deviation in the training split, the features of a step are::

        v_t = λ v_{t−1} + (1 − λ) r_t²          v_0 = σ², λ = ½^(1 / half-life)
        r_t / u_t,  |r_t| / u_t                 u_t = √v_t (scale: ewma) or σ (scale: training)
        ½ log(v_t / σ²)                         for each half-life

    and, if configured, covariates, the standardised level, and the date. The recurrent layers and V
    give the distribution of z, and the change over k steps is::

        ℓ_{t+k} − ℓ_t = base + unit · z         base = linear path or 0, unit = u_t · spread_k

    For ``values: levels``, base and unit are the mean of the level (minus ℓ_t) and its standard
    deviation. An untrained model thus forecasts the EWMA volatility or the ridge regression. The
    ridge regression is not trained further: the recurrent layers learn its residual, as in the
    linear path of Lai et al. (2018), which is here fitted in closed form.

    Args:
        reader: The model of `network.build_reader`.
        head: The model of `network.build_head`.
        settings: The dictionary of a `ForecasterSettings`.

    Call arguments:
        inputs: A dictionary of

            - ``history <float32>[batch, time, columns]``: raw values, padded on the right;
            - ``lengths <int32>[batch]``: steps without padding;
            - ``series <int32>[batch]``: number of the series, 0 if unknown;
            - ``origins <int32>[batch, origins]``: the last step known to each forecast;
            - with a calendar, ``dates <float32>[batch, time, 2 · calendar]`` and ``future_dates
              <float32>[batch, origins, steps, 2 · calendar]``.

    Output shape:
        ``<float32>[batch, origins, steps, 2 + n]``: base, unit, and the n parameters of z.
    """

    def __init__(
        self, reader: keras.Model, head: keras.Model, settings: dict[str, Any], **kwargs: Any
    ) -> None:
        # Raw values and their logarithms need float32, whatever the precision of the layers.
        super().__init__(autocast=False, **kwargs)
        # The attributes' names are paths in saved weights.
        self.reader, self.head = reader, head
        self.settings = ForecasterSettings(**settings)
        series, covariates = self.settings.series, self.settings.covariates
        self.lags = self.settings.linear or 0

        def constant(name: str, *shape: int) -> Any:
            return self.add_weight(
                shape=shape, initializer="zeros", trainable=False, dtype="float32", name=name
            )

        # Saved weights have this order.
        self.level_scale = constant("level", series, 2)
        self.change_scale = constant("change", series)
        self.covariate_scale = constant("further", series, covariates, 2) if covariates else None
        self.spread = constant("spread", self.settings.horizon)
        self.ridge = constant("ridge", self.lags, self.settings.output_steps) if self.lags else None
        self.built = True

    def set_scales(self, scales: dict[str, np.ndarray]) -> None:
        """Assign the arrays of a `Scales`."""
        self.level_scale.assign(scales["level"])
        self.change_scale.assign(scales["change"])
        if self.covariate_scale is not None:
            self.covariate_scale.assign(scales["further"])
        self.spread.assign(scales["spread"])
        if self.ridge is not None:
            self.ridge.assign(scales["ridge"][:, : self.ridge.shape[1]])

    def build(self, input_shape: Any = None) -> None:
        self.built = True  # its parts are already built

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        encoded = self.encode(inputs, training=training)
        return self.forecast(inputs, encoded, training=training)

    def encode(
        self, inputs: dict[str, Any], state: dict[str, Any] | None = None, training: bool = False
    ) -> EncodedHistory:
        """Encode histories.

        Args:
            inputs: As for the call; ``origins`` and ``future_dates`` are not used.
            state: Streaming state of the steps before the history; None if there are none.
            training: Whether to apply dropout.
        """
        levels, volatilities, features = self._features_of(inputs, state)
        rows, time = ops.shape(features)[0], ops.shape(features)[1]
        valid = ops.arange(time, dtype="int32")[None] < inputs["lengths"][:, None]
        if state is None:
            states = self._zero_states(rows)
        else:
            states = [state[f"cells_{i}"] for i in range(len(self.reader.inputs) - 3)]
        encoded, states = self.run_reader(features, inputs["series"], valid, states, training)
        earlier = 0 if state is None else state["recent"].shape[1]
        return EncodedHistory(levels, earlier, volatilities, encoded, states)

    def initial_state(self, rows: int) -> dict[str, Any]:
        """Return the streaming state before the first step.

        Returns:
            ``recent <float32>[rows, lags + 1, columns]``, the last raw steps; ``volatility
            <float32>[rows, half-lives]``; ``cells_0, …``, the states of the recurrent layers; and
            ``seen <bool>[rows]``, whether there was a step.
        """
        return self._state(
            ops.zeros((rows, 1 + self.lags, self.settings.columns_read)),
            [ops.zeros((rows, 1)) for _ in self.settings.half_lives],
            self._zero_states(rows),
            ops.zeros((rows,), dtype="bool"),
        )

    def next_state(
        self, inputs: dict[str, Any], encoded: EncodedHistory, state: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the streaming state after the last valid step of each row.

        Args:
            inputs: The inputs of `encode`.
            encoded: Its result.
            state: The state before the inputs.
        """
        history, last = inputs["history"], inputs["lengths"][:, None] - 1
        steps = ops.concatenate([self._recent(state, history), history], axis=1)
        kept = last + ops.arange(1, 2 + self.lags, dtype="int32")
        return self._state(
            ops.take_along_axis(steps, kept[..., None], axis=1),
            [ops.take_along_axis(v, last, axis=1) for v in encoded.volatilities],
            encoded.states,
            ops.ones_like(state["seen"]),
        )

    def forecast(
        self, inputs: dict[str, Any], encoded: EncodedHistory, training: bool = False
    ) -> Any:
        """Return the output of the call, given the encoded histories."""
        origins = inputs["origins"]
        positions = origins + encoded.earlier  # in the levels
        head_inputs = [ops.take_along_axis(encoded.encoded, origins[..., None], axis=1)]
        if "future_dates" in inputs:
            head_inputs.append(inputs["future_dates"])
        raw = self.head(head_inputs[0] if len(head_inputs) == 1 else head_inputs, training=training)
        volatility = None
        if encoded.volatilities:
            volatility = ops.take_along_axis(encoded.volatilities[0], origins, axis=1)
        unit = self.unit(volatility, inputs["series"])
        levels = encoded.levels
        last = ops.take_along_axis(levels, positions, axis=1)
        lagged = None
        if self.ridge is not None:
            lags = positions[..., None] - ops.arange(1, self.lags + 1, dtype="int32")
            flat = ops.reshape(ops.maximum(lags, 0), (ops.shape(origins)[0], -1))
            flat = ops.take_along_axis(levels, flat, axis=1)
            lagged = ops.reshape(flat, ops.shape(lags)) - last[..., None]
        return self.output(raw, unit, lagged, last, inputs["series"])

    def output(self, raw: Any, unit: Any, lagged: Any, last: Any, series: Any) -> Any:
        """Combine base, unit and parameters.

        Args:
            raw: The output of the head, ``<float32>[batch, origins, steps, size]``.
            unit: Unit of one step, ``<float32>[batch, origins]``.
            lagged: The values before the last one, minus the last one, ``<float32>[batch, origins,
                lags]``; None without a ridge regression.
            last: The last level, ``<float32>[batch, origins]``.
            series: ``<int32>[batch]``.
        """
        steps = raw.shape[-2]
        if self.settings.values == "levels":
            mean, deviation = self._level_moments(series)
            base = ops.repeat((mean - last)[..., None], steps, axis=-1)
            unit = ops.broadcast_to(deviation[..., None], ops.shape(base))
        else:
            unit = (unit + ops.zeros_like(last))[..., None] * self.spread[:steps]
            base = ops.zeros_like(unit)
            if lagged is not None:
                base = ops.matmul(lagged, self.ridge)
        parameters = distributions.to_parameters(raw, self.settings.head, self.settings.quantiles)
        return ops.concatenate([base[..., None], unit[..., None], parameters], axis=-1)

    def _features_of(
        self, inputs: dict[str, Any], state: dict[str, Any] | None
    ) -> tuple[Any, list[Any], Any]:
        """Compute ``(levels, volatilities, features)`` of histories, see `EncodedHistory`."""
        history, series = inputs["history"], inputs["series"]
        time = ops.shape(history)[1]
        earlier = 0
        if state is not None:
            earlier = state["recent"].shape[1]
            history = ops.concatenate([self._recent(state, history), history], axis=1)
        target = history[..., 0]
        levels = ops.log(target) if self.settings.values == "log_returns" else target
        changes = _differences(levels)[:, earlier:]
        step = ops.cast(ops.arange(time), "float32")
        age = step[None] - step[:, None]
        squares = ops.square(changes)
        initial = ops.square(ops.take(self.change_scale, series))[:, None]
        volatilities = []
        for i, decay in enumerate(self.settings.decays):
            # λ^(t−s) of each s up to t; the change of the first step is unknown.
            weights = ops.where(age >= 0, (1 - decay) * decay ** ops.maximum(age, 0.0), 0.0)
            decayed = initial * decay**step
            if state is not None:
                continued = state["volatility"][:, i : i + 1] * decay ** (step + 1)
                decayed = ops.where(state["seen"][:, None], continued, decayed)
            volatilities.append(ops.matmul(squares, weights) + decayed)
        features = [self.target_features(levels[:, earlier:], changes, volatilities, series)]
        if self.covariate_scale is not None:
            features.append(self._covariate_features(history, series)[:, earlier:])
        if "dates" in inputs:
            features.append(inputs["dates"])
        return levels, volatilities, ops.concatenate(features, axis=-1)

    @staticmethod
    def _recent(state: dict[str, Any], history: Any) -> Any:
        """Return the last steps of the state; before the first step, copies of that one."""
        return ops.where(state["seen"][:, None, None], state["recent"], history[:, :1])

    @staticmethod
    def _state(
        recent: Any, volatilities: list[Any], states: list[Any], seen: Any
    ) -> dict[str, Any]:
        state = {f"cells_{i}": cell_state for i, cell_state in enumerate(states)}
        if volatilities:
            state["volatility"] = ops.concatenate(volatilities, axis=-1)
        return state | {"recent": recent, "seen": seen}

    def target_features(
        self, levels: Any, changes: Any, volatilities: list[Any], series: Any
    ) -> Any:
        """Compute the features of the target, ``<float32>[batch, time, features]``."""
        unit = self.unit(volatilities[0] if volatilities else None, series)
        shock = ops.clip(changes / unit, -_CLIP, _CLIP)
        features = [shock, ops.abs(shock)]
        variance = ops.square(ops.take(self.change_scale, series))[:, None]
        features += [0.5 * ops.log(v / variance) for v in volatilities]
        if self.settings.level:
            mean, deviation = self._level_moments(series)
            features.append(ops.clip((levels - mean) / deviation, -_CLIP, _CLIP))
        return ops.stack(features, axis=-1)

    def _covariate_features(self, history: Any, series: Any) -> Any:
        """Compute standardised covariates, ``<float32>[batch, time, covariates]``."""
        kinds, features = self.settings.columns, []
        for i, kind in enumerate(kinds, 1):
            column = ops.log(history[..., i]) if kind == "log_returns" else history[..., i]
            features.append(column if kind == "levels" else _differences(column))
        for i in range(1 + len(kinds), self.settings.columns_read, 2):
            features.append(ops.log(history[..., i] / history[..., i + 1]))
        scale = ops.take(self.covariate_scale, series, axis=0)[:, None]
        standardised = (ops.stack(features, axis=-1) - scale[..., 0]) / scale[..., 1]
        return ops.clip(standardised, -_CLIP, _CLIP)

    def _level_moments(self, series: Any) -> tuple[Any, Any]:
        """Return mean and standard deviation of the level, each ``<float32>[batch, 1]``."""
        mean, deviation = (ops.take(self.level_scale[:, i], series)[:, None] for i in (0, 1))
        return mean, deviation

    def unit(self, volatility: Any, series: Any) -> Any:
        """Return the unit of a change over one step, ``<float32>[batch, origins or 1]``."""
        if self.settings.scale == "ewma":
            return ops.sqrt(volatility)
        return ops.take(self.change_scale, series)[:, None]

    def _zero_states(self, rows: Any) -> list[Any]:
        return [ops.zeros((rows, state.shape[-1])) for state in self.reader.inputs[3:]]

    def run_reader(
        self, features: Any, series: Any, valid: Any, states: list[Any], training: bool = False
    ) -> tuple[Any, list[Any]]:
        """Run the recurrent layers and return ``(encoded, final states)``."""
        encoded, *final_states = keras.tree.flatten(
            self.reader([features, series, valid, *states], training=training)
        )
        return encoded, final_states

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "reader": keras.saving.serialize_keras_object(self.reader),
            "head": keras.saving.serialize_keras_object(self.head),
            "settings": self.settings.to_dict(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Forecaster:
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
            for name in ("reader", "head")
        }
        return cls(**config | parts)


def _differences(levels: Any) -> Any:
    """Return ``x_t − x_{t−1}`` of ``<float32>[batch, time]``, 0 at the first step."""
    return ops.concatenate([ops.zeros_like(levels[:, :1]), levels[:, 1:] - levels[:, :-1]], axis=1)
