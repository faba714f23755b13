"""The forecasting task, assembled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from keras import ops

from layers.recorder import Recorder
from pipelines.engine.config.schema import as_list
from pipelines.engine.core import plotting
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.tables import Table
from pipelines.engine.data.splits import Splits
from pipelines.engine.explain.explanation import Explanation
from pipelines.engine.explain.explanation import Segment as Reading
from pipelines.engine.export import stateful
from pipelines.engine.export.savedmodel import Endpoint
from pipelines.engine.tasks.base import EXAMPLES, Evaluation, Prediction, Task
from pipelines.engine.training import loop
from pipelines.forecasting import baselines, dates, distributions, evaluation, plots, records
from pipelines.forecasting import model as models
from pipelines.forecasting.backtest import Truth
from pipelines.forecasting.config import MAX_PATHS, ForecastingConfig
from pipelines.forecasting.model import Forecaster, ForecastLoss, MeanOf
from pipelines.forecasting.predictive import DENSE, Empirical, Parametric, Predictive
from pipelines.forecasting.processor import Scales, levels_of
from pipelines.forecasting.series import Part, Series, latest, names_of
from pipelines.forecasting.windows import WindowFeed, Windows

#: Paths that are drawn side by side when a model is scored.
_SIDE_BY_SIDE = 50_000


class Forecasting(Task):
    """The next steps of one or many series, as distributions."""

    name = "forecasting"
    config = ForecastingConfig
    processor = Scales
    writers: ClassVar = {
        "chart": lambda prediction, path: plotting.save_figure(
            plots.chart(prediction.json["series"]), path
        )
    }

    def load(self, config: ForecastingConfig) -> Splits:
        return records.load(config)

    def fit_processor(self, config: ForecastingConfig, splits: Splits) -> Scales:
        return Scales.fit(config, splits.train, splits.validation)

    def build(self, config: ForecastingConfig, processor: Scales) -> Forecaster:
        return models.build(config, processor.arrays, seed=config.seed)

    def objective(self, config: ForecastingConfig) -> loop.Objective:
        loss = ForecastLoss(config.model.head, config.model.quantiles)
        kind = "pinball" if config.model.head == "quantiles" else "nats"
        return loop.Objective(
            loss=loss,
            metrics=lambda: [MeanOf(loss, "loss", name=kind), MeanOf(loss, "rmse", name="rmse")],
            monitor=f"val_{kind}",
            higher_is_better=False,
        )

    def feed(self, config: ForecastingConfig, processor: Scales, splits: Splits) -> WindowFeed:
        return WindowFeed(config, processor, splits.train, splits.validation)

    def examples(
        self, config: ForecastingConfig, processor: Scales, model: Forecaster, splits: Splits
    ) -> Callable[[], Table] | None:
        """The first step of each validation part's last forecast."""
        steps = 1 if config.model.decode == "autoregressive" else config.model.horizon
        windows = Windows.of(
            splits.validation, config, processor, origins=1, stride=1, horizon=steps, whole=True
        )
        if not len(windows):
            return None
        last = {int(s): i for i, s in enumerate(windows.series)}
        which = np.array(list(last.values())[:EXAMPLES])
        inputs, targets = windows.batch(which, processor)
        names = ["", *processor.names]

        def answer() -> Table:
            found = _direct(model.predict_on_batch(inputs), config)
            low, middle, high = np.moveaxis(found.quantiles([0.1, 0.5, 0.9])[:, 0], -1, 0)
            rows = zip(inputs["series"], targets[:, 0, 0], low, middle, high, strict=True)
            return Table(
                ["series", "change", "low_10", "median", "high_90"],
                [[names[s], *(f"{float(v):.6g}" for v in row)] for s, *row in rows],
            )

        return answer

    def evaluate(
        self,
        config: ForecastingConfig,
        processor: Scales,
        model: Forecaster,
        served: Any,
        splits: Splits,
    ) -> Evaluation:
        horizon = config.model.horizon
        windows = Windows.of(
            splits.test, config, processor, origins=1, stride=1, horizon=horizon, whole=True
        )
        truth = _truth(config, splits, windows)
        found = walk_forward(config, processor, model, served, windows)
        rules = baselines.forecasts(config, splits.train, splits.validation, splits.test)
        return evaluation.evaluate(config, truth, found, rules)

    def endpoints(
        self, config: ForecastingConfig, processor: Scales, model: Forecaster
    ) -> dict[str, Endpoint]:
        server = Server(config, processor, model)
        columns = 1 + len(names_of(config.data))
        inputs = {
            "history": tf.TensorSpec([None, None, columns], tf.float32, name="history"),
            "lengths": tf.TensorSpec([None], tf.int32, name="lengths"),
            "series": tf.TensorSpec([None], tf.string, name="series"),
        }
        if config.model.calendar:
            inputs["time"] = tf.TensorSpec([None, None], tf.int64, name="time")
            inputs["future"] = tf.TensorSpec([None, None], tf.int64, name="future")
        if config.model.decode == "autoregressive":
            inputs["paths"] = tf.TensorSpec([None], tf.int32, name="paths")
            inputs["seed"] = tf.TensorSpec([None], tf.int32, name="seed")
        target = ",".join(as_list(config.data.target))
        named = tf.constant([target, *names_of(config.data)])
        levels = tf.constant(config.model.quantiles)

        # By position, as Keras calls it, or by name.
        def forecast(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            return server.forecast(dict(zip(inputs, tensors, strict=True)))

        return {
            "serving_default": Endpoint(forecast, inputs),
            "about": Endpoint(lambda: {"columns": named, "quantiles": levels}, {}),
            **stateful.endpoints(lambda: model.no_memory(1), server.go_on, inputs),
        }

    def request(self, config: ForecastingConfig, example: Part) -> dict[str, tf.Tensor]:
        (one,) = latest([example.series], config.model.history)
        return _asked(config, one, one.following(config.model.horizon))

    def predict(self, config: ForecastingConfig, served: Any, example: str) -> Prediction:
        answers = [_answer(config, served, one) for one in _latest(config, example)]
        rows = []
        for one in answers:
            for k, date in enumerate(one["dates"]):
                shown = (one["quantiles"][q][k] for q in ("0.1", "0.5", "0.9"))
                rows.append([one["series"], _short(date), *(f"{x:,.5g}" for x in shown)])
        return Prediction(
            title=f"{example}: the next {config.model.horizon} steps ({_frequencies(answers)})",
            columns=["series", "date", "10 %", "median", "90 %"],
            rows=rows,
            json={"source": example, "series": answers},
        )

    def explanation_examples(
        self, config: ForecastingConfig, splits: Splits, count: int
    ) -> list[Series]:
        known = [
            replace(p.series, times=p.series.times[: p.stop], values=p.series.values[: p.stop])
            for p in splits.test
        ]
        return latest(known, config.model.history)[:count]

    def explain(
        self,
        config: ForecastingConfig,
        processor: Scales,
        model: Forecaster,
        given: str | Series,
    ) -> Explanation:
        """A file is explained by its first series; ``FILE#NAME`` names another."""
        one = given if isinstance(given, Series) else _named(config, given)
        horizon, steps = config.model.horizon, len(one)
        inputs = {
            "history": one.values[None].astype(np.float32),
            "lengths": np.array([steps], np.int32),
            "series": np.array([processor.number(one.name)], np.int32),
            "at": np.arange(steps, dtype=np.int32)[None],
        }
        if config.model.calendar:
            times = np.concatenate([one.times, one.following(horizon)]) // dates.SECOND
            inputs["dates"] = processor.dates(one.seconds[None]).numpy()
            ahead = 1 if config.model.decode == "autoregressive" else horizon
            after = np.arange(steps)[:, None] + np.arange(1, ahead + 1)
            inputs["ahead"] = processor.dates(times[after][None]).numpy()
        with Recorder().recording() as recorder:
            outputs = model(inputs, training=False)
        found = _direct(ops.convert_to_numpy(outputs)[0][:, None], config)
        last = one.values[:, 0]
        changes = found.quantiles([0.1, 0.5, 0.9])[:, 0]
        logs = config.data.values == "log_returns"
        raw = last[:, None] * np.exp(changes) if logs else last[:, None] + changes
        low, median, high = raw.T
        steps_shown = [_short(date) for date in dates.written(one.times, one.zone)]
        return Explanation(
            input=f"{one.name}, {steps_shown[0]} to {steps_shown[-1]}",
            answer=f"next {median[-1]:,.5g}, and in 80 % of cases from {low[-1]:,.5g} to "
            f"{high[-1]:,.5g}",
            segments=[
                Reading(
                    name="reads",
                    description="The curves show, after each step, the forecast for the next: its "
                    "median and the ends of its 80 % interval, beside the actual value.",
                    tokens=steps_shown,
                    recorder=recorder,
                    curves={
                        "median": median,
                        "10 %": low,
                        "90 %": high,
                        "came": np.concatenate([last[1:], [np.nan]]),
                    },
                    scale=", ".join(as_list(config.data.target)),
                    details=[f"{value:,.6g}" for value in last],
                )
            ],
        )


class Server:
    """The model as it is served: raw histories in, quantiles out.

    Requests may come from anybody: a history longer than the model reads is cut to its end, one
    that is empty counts as one step, and other arguments are brought to the nearest that is
    allowed.
    """

    def __init__(self, config: ForecastingConfig, processor: Scales, model: Forecaster) -> None:
        self._config, self._processor, self._model = config, processor, model

    def forecast(self, given: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """``quantiles <float32>[batch, horizon, levels]`` raw; with ``decode: autoregressive``
        also ``paths <float32>[batch, paths, horizon]``."""
        return self._answer(given, self._inputs(given, self._config.model.history), None)

    def go_on(
        self, given: dict[str, tf.Tensor], memory: stateful.State
    ) -> tuple[dict[str, tf.Tensor], stateful.State]:
        """As `forecast`, of the next steps of each series, one at least.

        However many come, none is cut off: up to the ``history`` of the config the answer is that
        of all steps at once.
        """
        inputs = self._inputs(given, None)
        reading = self._model.look(inputs, memory)
        answer = self._answer(given, inputs, reading)
        return answer, self._model.remember(inputs, reading, memory)

    def _inputs(self, given: dict[str, tf.Tensor], most: int | None) -> dict[str, tf.Tensor]:
        """What a `Forecaster` reads: of each row the last steps, ``most`` of them."""
        config, history = self._config.model, given["history"]
        time = tf.shape(history)[1]
        lengths = tf.clip_by_value(given["lengths"], 1, tf.maximum(time, 1))
        steps = lengths if most is None else tf.minimum(lengths, most)
        width = time if most is None else tf.minimum(time, most)
        # The last steps of each row, and padding that repeats the last of them.
        place = tf.minimum(tf.range(width)[None], steps[:, None] - 1) + (lengths - steps)[:, None]
        inputs = {
            "history": tf.gather(history, place, axis=1, batch_dims=1),
            "lengths": steps,
            "series": self._processor.numbers(given["series"]),
            "at": steps[:, None] - 1,
        }
        if config.calendar:
            time_of = tf.gather(given["time"], place, axis=1, batch_dims=1)
            inputs["dates"] = self._processor.dates(time_of)
            future = tf.ensure_shape(given["future"], [None, config.horizon])
            inputs["ahead"] = self._processor.dates(future)[:, None]
        return inputs

    def _answer(
        self,
        given: dict[str, tf.Tensor],
        inputs: dict[str, tf.Tensor],
        reading: models.Reading | None,
    ) -> dict[str, tf.Tensor]:
        config, horizon = self._config.model, self._config.model.horizon
        history, rows = inputs["history"], tf.shape(inputs["history"])[0]
        last = tf.gather(history[..., 0], inputs["lengths"] - 1, axis=1, batch_dims=1)
        last = last[:, None, None]

        def raw(changes: tf.Tensor) -> tf.Tensor:
            logs = self._config.data.values == "log_returns"
            return last * tf.exp(changes) if logs else last + changes

        if reading is None:
            reading = self._model.look(inputs)
        if config.decode == "direct":
            found = self._model.direct(inputs, reading)
            return {"quantiles": raw(_quantiles(found[:, 0], self._config))}
        paths = tf.clip_by_value(tf.reduce_max(given["paths"], keepdims=True), 2, MAX_PATHS)[0]
        # Each row's own stream: its numbers do not depend on what it is asked together with.
        uniforms = tf.map_fn(
            lambda seed: tf.random.stateless_uniform([paths, horizon, 2], [seed, 0], 1e-7, 1.0),
            tf.broadcast_to(given["seed"], [rows]),
            fn_output_signature=tf.TensorSpec([None, horizon, 2], tf.float32),
        )
        first, changes = self._model.paths(inputs, uniforms, reading)
        later = ops.quantile(changes[..., 1:], config.quantiles, axis=1)
        both = tf.concat([_quantiles(first, self._config), tf.transpose(later, [1, 2, 0])], axis=1)
        return {"quantiles": raw(both), "paths": raw(changes)}


def _quantiles(outputs: Any, config: ForecastingConfig) -> Any:
    """What a Forecaster puts out ``[…, 2 + n]`` as the quantiles of changes ``[…, levels]``."""
    z = distributions.quantiles_of(outputs[..., 2:], config.model.head, config.model.quantiles)
    return outputs[..., :1] + outputs[..., 1:2] * z


def _direct(outputs: Any, config: ForecastingConfig) -> Predictive:
    """What a Forecaster puts out ``[windows, 1, steps, 2 + n]`` as a distribution."""
    found = np.asarray(outputs, np.float64)[:, 0]
    base, unit, parameters = found[..., 0], found[..., 1], found[..., 2:]
    if config.model.head == "quantiles":
        values = base[..., None] + unit[..., None] * parameters
        return Empirical(np.asarray(config.model.quantiles), values)
    freedom = parameters[..., 2] if config.model.head == "student_t" else None
    return Parametric(base + unit * parameters[..., 0], unit * parameters[..., 1], freedom)


def walk_forward(
    config: ForecastingConfig, processor: Scales, model: Forecaster, served: Any, windows: Windows
) -> Predictive:
    """The model's forecast at every origin, all windows in batches side by side.

    Args:
        served: a SavedModel, which draws the paths of an autoregressive model.
    """
    outputs = []
    for inputs, _ in windows.each(processor):
        if "ahead" in inputs and config.model.decode == "autoregressive":
            inputs["ahead"] = inputs["ahead"][:, :, :1]
        outputs.append(np.asarray(model.predict_on_batch(inputs)))
    found = _direct(np.concatenate(outputs), config)
    if config.model.decode == "direct" or config.model.horizon == 1:
        return found
    later = []
    serve, names = served.signatures["serving_default"], np.array(["", *processor.names])
    rows = max(_SIDE_BY_SIDE // config.forecast.paths, 1)
    for start in range(0, len(windows), rows):
        which = np.arange(start, min(start + rows, len(windows)))
        inputs, _ = windows.batch(which, processor)
        asked = {
            "history": tf.constant(inputs["history"]),
            "lengths": tf.constant(inputs["lengths"]),
            "series": tf.constant(names[inputs["series"]]),
            "paths": tf.constant([config.forecast.paths]),
            "seed": tf.constant(config.forecast.seed + which, tf.int32),
        }
        if config.model.calendar:
            asked |= windows.moments(which)
        paths = serve(**asked)["paths"].numpy().astype(np.float64)
        last = inputs["history"][np.arange(len(which)), inputs["lengths"] - 1, 0][:, None, None]
        changes = np.log(paths / last) if config.data.values == "log_returns" else paths - last
        later.append(Empirical.of_paths(changes[..., 1:]).values)
    values = np.concatenate([found.quantiles(DENSE), np.concatenate(later)], axis=1)
    return Empirical(DENSE, values)


def _truth(config: ForecastingConfig, splits: Splits, windows: Windows) -> Truth:
    """What is known of the test windows, and of their series in training."""
    names = sorted({p.series.name for p in splits.test})
    of_series = {name: i for i, name in enumerate(names)}
    horizon, values = config.model.horizon, config.data.values
    changes, last, times, series = [], [], [], []
    for part in splits.test:
        origins = baselines.origins_of(part, horizon)
        levels = levels_of(part.series, values)
        ahead = origins[:, None] + np.arange(1, horizon + 1)
        changes.append(levels[ahead] - levels[origins][:, None])
        last.append(part.series.values[origins, 0])
        times.append(part.series.times[origins + 1])
        series.append(np.full(len(origins), of_series[part.series.name]))
    measured = {
        name: evaluation.scales_of(_in_training(splits, name, values), config.evaluation.season)
        for name in names
    }
    which = np.concatenate(series)
    scale, deviation = (np.array([measured[name][i] for name in names])[which] for i in (0, 1))
    return Truth(
        changes=np.concatenate(changes),
        last=np.concatenate(last),
        times=np.concatenate(times),
        series=which,
        names=names,
        scale=scale,
        deviation=deviation,
        logs=values == "log_returns",
    )


def _in_training(splits: Splits, name: str, values: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Raw numbers and levels of a series before it is scored."""
    parts: Sequence[Part] = [p for p in splits.train if p.series.name == name]
    known = [(p.series, p.stop) for p in parts] or [
        (p.series, p.start) for p in splits.test if p.series.name == name
    ]
    return [(s.values[:end, 0], levels_of(s, values)[:end]) for s, end in known]


def _named(config: ForecastingConfig, given: str) -> Series:
    """The latest steps of the first series in a file, or of the one behind its ``#``."""
    source, _, name = (given, "", "") if Path(given).exists() else given.partition("#")
    series = {one.name: one for one in _latest(config, source)}
    if name and name not in series:
        raise UserError(f"{given}: no series {name!r}; there are: {', '.join(series)[:200]}")
    return series[name] if name else next(iter(series.values()))


def _latest(config: ForecastingConfig, source: str) -> list[Series]:
    """The steps that the model reads, of each series of a source."""
    data = config.data.model_copy(update={"min_steps": 1, "start": None, "end": None})
    # What is given on a command line is where the user is, else where data is kept.
    path = str(Path(source).absolute()) if Path(source).exists() else source
    return latest(records.read(data, path, {}), config.model.history)


def _asked(config: ForecastingConfig, one: Series, future: np.ndarray) -> dict[str, tf.Tensor]:
    """The inputs of the serving signature for one series, and the dates it is to forecast."""
    asked = {
        "history": tf.constant(one.values[None], tf.float32),
        "lengths": tf.constant([len(one)]),
        "series": tf.constant([one.name]),
    }
    if config.model.calendar:
        asked |= {
            "time": tf.constant(one.seconds[None]),
            "future": tf.constant(future[None] // dates.SECOND),
        }
    if config.model.decode == "autoregressive":
        asked |= {
            "paths": tf.constant([config.forecast.paths]),
            "seed": tf.constant([config.forecast.seed]),
        }
    return asked


def _answer(config: ForecastingConfig, served: Any, one: Series) -> dict[str, Any]:
    """What a server answers about one series."""
    future = one.following(config.model.horizon)
    asked = _asked(config, one, future)
    quantiles = served.signatures["serving_default"](**asked)["quantiles"].numpy()[0]
    return {
        "series": one.name,
        "dates": dates.written(future, one.zone),
        "quantiles": {
            f"{q:g}": quantiles[:, i].astype(float).tolist()
            for i, q in enumerate(config.model.quantiles)
        },
        "history": {
            "dates": dates.written(one.times, one.zone),
            "values": one.values[:, 0].tolist(),
        },
        "frequency": one.frequency.name,
    }


def _frequencies(answers: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(one["frequency"] for one in answers))
    return "; ".join(names[:3]) + (" …" if len(names) > 3 else "")


def _short(date: str) -> str:
    return date.removesuffix("T00:00:00")


TASK = Forecasting()
