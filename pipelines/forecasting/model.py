"""Cells over a history, and the distribution of what comes next."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from pipelines.engine.config.schema import CellConfig
from pipelines.engine.models.blocks import recurrent_stack, state_sizes
from pipelines.engine.training.losses import MeanLoss, weighted
from pipelines.forecasting import distributions
from pipelines.forecasting.config import ForecastingConfig, ForecastingModelConfig

#: Standardised numbers are read up to here.
_FAR = 8.0
#: Units of the hidden layer that sees the date of the step that is forecast.
_DATE_UNITS = 16


def build(config: ForecastingConfig, scales: dict[str, np.ndarray], *, seed: int) -> Forecaster:
    """
    Args:
        scales: the arrays of a `Scales`.
    """
    model, data = config.model, config.data
    series = len(scales["change"])
    settings = {
        **model.model_dump(mode="json", exclude={"cell", "units", "dropout", "embedding"}),
        "values": data.values,
        "columns": list(data.columns.values()),
        "ratios": len(data.ratios),
        "series": series,
    }
    width = features(settings)
    reader = _reader(model, inputs=width, series=series, seed=seed)
    head = _head(model, inputs=model.units[-1] + width + model.embedding, seed=seed + 50)
    forecaster = Forecaster(reader, head, settings)
    forecaster.set_scales(scales)
    return forecaster


def features(settings: dict[str, Any]) -> int:
    """How many numbers are read at each step."""
    further = len(settings["columns"]) + settings["ratios"]
    own = 2 + len(settings["half_lives"]) + int(settings["level"])
    return own + further + 2 * len(settings["calendar"])


def _reader(config: ForecastingModelConfig, *, inputs: int, series: int, seed: int) -> keras.Model:
    """``[features <float>[batch, time, inputs], series <int32>[batch], valid, state…]`` →
    ``[read <float>[batch, time, units + inputs + embedding], state…]``: the hidden states, and
    beside them what they were made of."""
    read = keras.Input((None, inputs), name="features")
    which = keras.Input((), dtype="int32", name="series")
    valid = keras.Input((None,), dtype="bool", name="valid")
    states = [
        keras.Input((units,), name=f"state_{i}") for i, units in enumerate(state_sizes(config))
    ]
    x = read
    if config.embedding:
        vector = keras.layers.Embedding(
            series,
            config.embedding,
            embeddings_initializer=keras.initializers.RandomUniform(-0.05, 0.05, seed=seed),
            name="series_embedding",
        )(which)
        everywhere = ops.zeros_like(x[..., :1]) + vector[:, None]
        x = ops.concatenate([x, everywhere], axis=-1)
    hidden, after = recurrent_stack(
        CellConfig(cell=config.cell, units=config.units), x, valid,
        seed=seed + 10, dropout=config.dropout, states=states,
    )  # fmt: skip
    hidden = keras.layers.Dropout(config.dropout, seed=seed + 1, name="dropout")(hidden)
    read_on = ops.concatenate([ops.cast(hidden, "float32"), ops.cast(x, "float32")], axis=-1)
    return keras.Model([read, which, valid, *states], [read_on, *after], name="reader")


def _head(config: ForecastingModelConfig, *, inputs: int, seed: int) -> keras.Model:
    """V: ``[read <float>[batch, origins, inputs], ahead]`` → ``<float32>[batch, origins, steps,
    size]``, what `distributions.shape` reads. It begins with nothing but the bias.

    With dates, ``ahead <float>[batch, origins, steps, 2 · calendar]`` is those of what comes.
    """
    steps = 1 if config.decode == "autoregressive" else config.horizon
    size = distributions.size(config.head, config.quantiles)
    start = np.tile(distributions.start(config.head, config.quantiles), steps)
    read = keras.Input((None, inputs), name="read")
    flat = keras.layers.Dense(
        steps * size,
        kernel_initializer="zeros",
        bias_initializer=_Given(start.tolist()),
        dtype="float32",
        name="V",
    )(read)
    out = keras.layers.Reshape((-1, steps, size), dtype="float32")(flat)
    asked = [read]
    if config.calendar:
        ahead = keras.Input((None, steps, 2 * len(config.calendar)), name="ahead")
        asked.append(ahead)
        initial = keras.initializers.GlorotUniform(seed=seed)
        known = keras.layers.Dense(_DATE_UNITS, kernel_initializer=initial, name="dates")(ahead)
        so_far = keras.layers.Dense(
            _DATE_UNITS, use_bias=False,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 1), name="so_far",
        )(read)  # fmt: skip
        both = ops.tanh(known + so_far[:, :, None])
        out = out + keras.layers.Dense(
            size, use_bias=False, kernel_initializer="zeros", dtype="float32", name="V_dates"
        )(both)
    return keras.Model(asked, out, name="head")


@keras.saving.register_keras_serializable(package="unfold")
class _Given(keras.initializers.Initializer):
    """A vector as it is."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return ops.reshape(ops.convert_to_tensor(self.values, dtype=dtype), shape)

    def get_config(self) -> dict[str, Any]:
        return {"values": self.values}


class Reading(NamedTuple):
    """What a `Forecaster` makes of histories.

    Attributes:
        levels: ``<float>[batch, earlier + time]``, those of the steps before these first.
        earlier: how many those are.
        volatilities: ``<float>[batch, time]``, by half-life.
        hidden: what V reads at each step, ``<float>[batch, time, ·]``.
        states: of the cells, after the last valid step.
    """

    levels: Any
    earlier: int
    volatilities: list[Any]
    hidden: Any
    states: list[Any]


@keras.saving.register_keras_serializable(package="unfold")
class Forecaster(keras.Model):
    """Raw numbers in, distributions out: scaling is part of the model.

    With ℓ the level (its logarithm, for log returns), r_t = ℓ_t − ℓ_{t−1} and σ its deviation in
    the training split, what is read at each step is::

        v_t = λ v_{t−1} + (1 − λ) r_t²          v_0 = σ², λ = ½^(1 / half-life)
        r_t / u_t,  |r_t| / u_t                 u_t = √v_t (scale: ewma) or σ (scale: training)
        ½ log(v_t / σ²)                         for each half-life

    and what is asked for: further columns, the standardised level, the date. The cells and V say
    how z is distributed, and the answer is the change over k steps::

        ℓ_{t+k} − ℓ_t = base + unit · z         base = linear path or 0, unit = u_t · spread_k

    (of ``values: levels``, base and unit are the level's own mean and deviation). A model that has
    learned nothing is thus the EWMA volatility, or the ridge regression, which stays as it was
    fitted: the cells learn what it leaves (the linear path of Lai et al. 2018, in closed form).

    Call: ``history <float32>[batch, time, columns]`` raw, right-padded; ``lengths <int32>[batch]``;
    ``series <int32>[batch]``, 0 unknown; ``at <int32>[batch, origins]``, the last step that each
    forecast knows; with a calendar ``dates <float32>[batch, time, 2 · calendar]`` and ``ahead
    <float32>[batch, origins, steps, 2 · calendar]`` → ``<float32>[batch, origins, steps, 2 + n]``:
    base, unit, and the parameters of z.

    Args:
        reader, head: see `build`.
        settings: the keys of the model, and how the columns are read.
    """

    def __init__(
        self, reader: keras.Model, head: keras.Model, settings: dict[str, Any], **kwargs: Any
    ) -> None:
        # Raw numbers and their logarithms need all 24 bits, whatever the precision of the cells.
        super().__init__(autocast=False, **kwargs)
        self.reader, self.head, self.settings = reader, head, settings
        series, horizon = settings["series"], settings["horizon"]
        lags = settings["linear"] or 0
        further = len(settings["columns"]) + settings["ratios"]

        def kept(name: str, *shape: int) -> Any:
            return self.add_weight(
                shape=shape, initializer="zeros", trainable=False, dtype="float32", name=name
            )

        self.level_of = kept("level", series, 2)
        self.change_of = kept("change", series)
        self.further_of = kept("further", series, further, 2) if further else None
        self.spread = kept("spread", horizon)
        steps = 1 if settings["decode"] == "autoregressive" else horizon
        self.ridge = kept("ridge", lags, steps) if lags else None
        self.built = True

    def set_scales(self, scales: dict[str, np.ndarray]) -> None:
        """Take over what was learned before the model."""
        self.level_of.assign(scales["level"])
        self.change_of.assign(scales["change"])
        if self.further_of is not None:
            self.further_of.assign(scales["further"])
        self.spread.assign(scales["spread"])
        if self.ridge is not None:
            self.ridge.assign(scales["ridge"][:, : self.ridge.shape[1]])

    def build(self, input_shape: Any = None) -> None:
        self.built = True  # its parts are

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        return self.direct(inputs, self.look(inputs, training=training), training=training)

    def look(
        self, inputs: dict[str, Any], memory: dict[str, Any] | None = None, training: bool = False
    ) -> Reading:
        """What is made of a history.

        Args:
            inputs: as of the call; those of ``at`` and ``ahead`` are not read.
            memory: what was remembered of the steps before these; None where there are none.
        """
        levels, volatilities, read = self._read(inputs, memory)
        rows, time = ops.shape(read)[0], ops.shape(read)[1]
        valid = ops.arange(time, dtype="int32")[None] < inputs["lengths"][:, None]
        states = self._no_states(rows) if memory is None else self._states_of(memory)
        hidden, states = self._step(read, inputs["series"], valid, states, training)
        earlier = 0 if memory is None else memory["recent"].shape[1]
        return Reading(levels, earlier, volatilities, hidden, states)

    def no_memory(self, rows: int) -> dict[str, Any]:
        """What is remembered before the first step: ``recent <float32>[rows, lags + 1, columns]``,
        the last raw steps; ``volatility <float32>[rows, half-lives]``; the cells' states; and
        ``seen <bool>[rows]``, whether there was a step."""
        further = len(self.settings["columns"]) + 2 * self.settings["ratios"]
        return self._memory(
            ops.zeros((rows, 1 + self._lags, 1 + further)),
            [ops.zeros((rows, 1)) for _ in self.settings["half_lives"]],
            self._no_states(rows),
            ops.zeros((rows,), dtype="bool"),
        )

    def remember(
        self, inputs: dict[str, Any], reading: Reading, memory: dict[str, Any]
    ) -> dict[str, Any]:
        """What is remembered after the last valid step of each row."""
        history, last = inputs["history"], inputs["lengths"][:, None] - 1
        rows = ops.concatenate([self._recent(memory, history), history], axis=1)
        kept = last + ops.arange(1, 2 + self._lags, dtype="int32")
        return self._memory(
            ops.take_along_axis(rows, kept[..., None], axis=1),
            [self._at(v, last) for v in reading.volatilities],
            reading.states,
            ops.ones_like(memory["seen"]),
        )

    def direct(self, inputs: dict[str, Any], reading: Reading, training: bool = False) -> Any:
        """The answer of a call to what was read."""
        at, placed = inputs["at"], inputs["at"] + reading.earlier
        asked = [ops.take_along_axis(reading.hidden, at[..., None], axis=1)]
        if "ahead" in inputs:
            asked.append(inputs["ahead"])
        raw = self.head(asked[0] if len(asked) == 1 else asked, training=training)
        volatility = self._at(reading.volatilities[0], at) if reading.volatilities else None
        unit = self._unit(volatility, inputs["series"])
        before = None
        levels = reading.levels
        last = self._at(levels, placed)
        if self.ridge is not None:
            back = placed[..., None] - ops.arange(1, self.ridge.shape[0] + 1, dtype="int32")
            frames = ops.reshape(ops.maximum(back, 0), (ops.shape(at)[0], -1))
            frames = ops.take_along_axis(levels, frames, axis=1)
            before = ops.reshape(frames, ops.shape(back)) - last[..., None]
        return self._answer(raw, unit, before, last, inputs["series"])

    def _answer(self, raw: Any, unit: Any, before: Any, last: Any, series: Any) -> Any:
        """Base, unit and parameters, from what V gives.

        Args:
            unit: ``<float>[batch, origins]``, of one step.
            before: ``<float>[batch, origins, lags]``, the last values less the last one.
            last: ``<float>[batch, origins]``.
        """
        head, levels = self.settings["head"], self.settings["quantiles"]
        steps = raw.shape[-2]
        if self.settings["values"] == "levels":
            mean, deviation = (ops.take(self.level_of[:, i], series)[:, None] for i in (0, 1))
            base = ops.repeat((mean - last)[..., None], steps, axis=-1)
            unit = ops.broadcast_to(deviation[..., None], ops.shape(base))
        else:
            unit = (unit + ops.zeros_like(last))[..., None] * self.spread[:steps]
            base = ops.zeros_like(unit)
            if before is not None:
                base = ops.matmul(before, self.ridge)
        return ops.concatenate(
            [base[..., None], unit[..., None], distributions.shape(raw, head, levels)], axis=-1
        )

    def _read(
        self, inputs: dict[str, Any], memory: dict[str, Any] | None
    ) -> tuple[Any, list[Any], Any]:
        """``(levels [batch, time], v [batch, time] by half-life, features [batch, time, ·])``; the
        levels begin with those that are remembered."""
        history, series = inputs["history"], inputs["series"]
        time = ops.shape(history)[1]
        earlier = 0
        if memory is not None:
            earlier = memory["recent"].shape[1]
            history = ops.concatenate([self._recent(memory, history), history], axis=1)
        levels = self._level(history[..., 0])
        changes = _changes(levels)[:, earlier:]
        step = ops.cast(ops.arange(time), "float32")
        back = step[None] - step[:, None]
        squares = ops.square(changes)
        first = ops.square(ops.take(self.change_of, series))[:, None]
        volatilities = []
        for i, decay in enumerate(self._decays()):
            # λ^(t−s) of each s up to t; the change into the first step is not known.
            weights = ops.where(back >= 0, (1 - decay) * decay ** ops.maximum(back, 0.0), 0.0)
            faded = first * decay**step
            if memory is not None:
                on = memory["volatility"][:, i : i + 1] * decay ** (step + 1)
                faded = ops.where(memory["seen"][:, None], on, faded)
            volatilities.append(ops.matmul(squares, weights) + faded)
        read = self._features(levels[:, earlier:], changes, volatilities, series)
        if self.further_of is not None:
            read.append(self._further(history, series)[:, earlier:])
        if "dates" in inputs:
            read.append(inputs["dates"])
        return levels, volatilities, ops.concatenate(read, axis=-1)

    @staticmethod
    def _recent(memory: dict[str, Any], history: Any) -> Any:
        """The last steps that are remembered; before the first step, that one."""
        return ops.where(memory["seen"][:, None, None], memory["recent"], history[:, :1])

    @staticmethod
    def _memory(recent: Any, volatilities: list[Any], states: list[Any], seen: Any) -> Any:
        memory = {f"cells_{i}": state for i, state in enumerate(states)}
        if volatilities:
            memory["volatility"] = ops.concatenate(volatilities, axis=-1)
        return memory | {"recent": recent, "seen": seen}

    def _states_of(self, memory: dict[str, Any]) -> list[Any]:
        return [memory[f"cells_{i}"] for i in range(len(self.reader.inputs) - 3)]

    @property
    def _lags(self) -> int:
        return 0 if self.ridge is None else int(self.ridge.shape[0])

    def _features(
        self, levels: Any, changes: Any, volatilities: list[Any], series: Any
    ) -> list[Any]:
        """What is read of the target itself; all ``[batch, time]``."""
        unit = self._unit(volatilities[0] if volatilities else None, series)
        shock = ops.clip(changes / unit, -_FAR, _FAR)
        own = [shock, ops.abs(shock)]
        usual = ops.square(ops.take(self.change_of, series))[:, None]
        own += [0.5 * ops.log(v / usual) for v in volatilities]
        if self.settings["level"]:
            mean, deviation = (ops.take(self.level_of[:, i], series)[:, None] for i in (0, 1))
            own.append(ops.clip((levels - mean) / deviation, -_FAR, _FAR))
        return [ops.stack(own, axis=-1)]

    def _further(self, history: Any, series: Any) -> Any:
        """Further columns and ratios, standardised ``[batch, time, ·]``."""
        kinds, read = self.settings["columns"], []
        for i, how in enumerate(kinds, 1):
            column = ops.log(history[..., i]) if how == "log_returns" else history[..., i]
            read.append(column if how == "levels" else _changes(column))
        for i in range(1 + len(kinds), 1 + len(kinds) + 2 * self.settings["ratios"], 2):
            read.append(ops.log(history[..., i] / history[..., i + 1]))
        scale = ops.take(self.further_of, series, axis=0)[:, None]
        return ops.clip((ops.stack(read, axis=-1) - scale[..., 0]) / scale[..., 1], -_FAR, _FAR)

    def _level(self, target: Any) -> Any:
        return ops.log(target) if self.settings["values"] == "log_returns" else target

    def _unit(self, volatility: Any, series: Any) -> Any:
        """The deviation of one step's change ``[batch, origins]``."""
        if self.settings["scale"] == "ewma":
            return ops.sqrt(volatility)
        return ops.take(self.change_of, series)[:, None]

    def _decays(self) -> list[float]:
        return [0.5 ** (1 / half_life) for half_life in self.settings["half_lives"]]

    @staticmethod
    def _at(values: Any, at: Any) -> Any:
        return ops.take_along_axis(values, at, axis=1)

    def _no_states(self, rows: Any) -> list[Any]:
        return [ops.zeros((rows, state.shape[-1])) for state in self.reader.inputs[3:]]

    def _step(
        self, read: Any, series: Any, valid: Any, states: list[Any], training: bool = False
    ) -> tuple[Any, list[Any]]:
        hidden, *after = keras.tree.flatten(
            self.reader([read, series, valid, *states], training=training)
        )
        return hidden, after

    def paths(
        self, inputs: dict[str, Any], uniforms: Any, reading: Reading | None = None
    ) -> tuple[Any, Any]:
        """Each step's output is fed back as the next one's input (``decode: autoregressive``).

        Args:
            inputs: as of the call, with one origin, the last valid step of each row.
            uniforms: ``<float>[batch, paths, horizon, 2]`` in (0, 1): the same numbers, the same
                paths.
            reading: of the inputs, where it is known.

        Returns:
            ``(first <float>[batch, 1, 2 + n], changes <float>[batch, paths, horizon])``: the
            distribution of the first step as it is, and the change from the last value on each
            path.
        """
        inputs, uniforms = keras.tree.map_structure(ops.convert_to_tensor, (inputs, uniforms))
        rows, count = ops.shape(uniforms)[0], ops.shape(uniforms)[1]
        head, levels_of = self.settings["head"], self.settings["quantiles"]
        levels, earlier, volatilities, hidden, states = reading or self.look(inputs)
        at, lags = inputs["at"], self._lags
        hidden = ops.take_along_axis(hidden, at[..., None], axis=1)
        back = ops.maximum(earlier + at - ops.arange(lags, -1, -1, dtype="int32"), 0)

        def each(tensor: Any) -> Any:
            """A row for each path."""
            return ops.repeat(tensor, count, axis=0)

        recent = each(self._at(levels, back))  # [rows, lags + 1], the last value last
        begun = recent[:, -1:]
        volatility = [each(self._at(v, at)) for v in volatilities]
        hidden, states, series = each(hidden), [each(s) for s in states], each(inputs["series"])
        ahead = each(inputs["ahead"][:, 0]) if "ahead" in inputs else None
        drawn = ops.reshape(uniforms, (-1, uniforms.shape[2], 2))
        known = ops.ones((rows * count, 1), dtype="bool")
        first, changes = None, []
        for k in range(self.settings["horizon"]):
            asked = hidden if ahead is None else [hidden, ahead[:, None, k : k + 1]]
            unit = self._unit(volatility[0] if volatility else None, series)
            before = (ops.flip(recent[:, :-1], 1) - recent[:, -1:])[:, None] if lags else None
            answer = self._answer(self.head(asked), unit, before, recent[:, -1:], series)[:, 0]
            if first is None:
                first = ops.reshape(answer, (rows, count, 1, -1))[:, 0]
            z = distributions.draw(drawn[:, k], answer[:, 0, 2:], head, levels_of)
            change = (answer[:, 0, 0] + answer[:, 0, 1] * z)[:, None]
            value = recent[:, -1:] + change
            changes.append(value - begun)
            recent = ops.concatenate([recent[:, 1:], value], axis=1)
            volatility = [
                decay * v + (1 - decay) * ops.square(change)
                for decay, v in zip(self._decays(), volatility, strict=True)
            ]
            read = self._features(value, change, volatility, series)
            if ahead is not None:
                read.append(ahead[:, k : k + 1])
            hidden, states = self._step(ops.concatenate(read, axis=-1), series, known, states)
        stacked = ops.concatenate(changes, axis=1)
        return first, ops.reshape(stacked, (rows, count, self.settings["horizon"]))

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "reader": keras.saving.serialize_keras_object(self.reader),
            "head": keras.saving.serialize_keras_object(self.head),
            "settings": self.settings,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Forecaster:
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
            for name in ("reader", "head")
        }
        return cls(**config | parts)


def _changes(levels: Any) -> Any:
    """``[batch, time]`` → what each is above the one before; the first is above nothing."""
    return ops.concatenate([ops.zeros_like(levels[:, :1]), levels[:, 1:] - levels[:, :-1]], axis=1)


@keras.saving.register_keras_serializable(package="unfold")
class ForecastLoss(MeanLoss):
    """`distributions.losses`, the mean over what there is: targets that are NaN are left out.

    Args:
        head, quantiles: of the model.

    Call: ``(targets <float32>[batch, origins, steps], outputs of a Forecaster)``.
    """

    def __init__(self, head: str, quantiles: list[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head, self.quantiles = head, list(quantiles)

    def scored(self, targets: Any, outputs: Any) -> tuple[Any, Any, Any]:
        """``(loss, (z − middle)², 1 for a target and 0 for none)``, each as the targets."""
        targets = ops.cast(targets, "float32")
        there = ops.logical_not(ops.isnan(targets))
        base, unit, parameters = outputs[..., 0], outputs[..., 1], outputs[..., 2:]
        z = (ops.where(there, targets, base) - base) / unit
        loss = distributions.losses(z, parameters, self.head, self.quantiles)
        error = z - distributions.middle(parameters, self.head, self.quantiles)
        weight = ops.cast(there, "float32")
        return loss * weight, ops.square(error) * weight, weight

    def parts(self, targets: Any, outputs: Any) -> tuple[Any, Any]:
        loss, _, weight = self.scored(targets, outputs)
        return loss, weight

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"head": self.head, "quantiles": self.quantiles}


@keras.saving.register_keras_serializable(package="unfold")
class MeanOf(keras.metrics.Metric):
    """The loss, or the root of the squared error of the middle in units, over an epoch."""

    def __init__(self, loss: ForecastLoss, kind: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss, self.kind = loss, kind
        self.total = self.add_weight(name="total", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, targets: Any, outputs: Any, sample_weight: Any = None) -> None:
        scored = self.loss.scored(targets, outputs)
        loss, square, weight = weighted(sample_weight, *scored)
        self.total.assign_add(ops.sum(loss if self.kind == "loss" else square))
        self.count.assign_add(ops.sum(weight))

    def result(self) -> Any:
        mean = self.total / ops.maximum(self.count, 1.0)
        return mean if self.kind == "loss" else ops.sqrt(mean)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "loss": keras.saving.serialize_keras_object(self.loss),
            "kind": self.kind,
        }
