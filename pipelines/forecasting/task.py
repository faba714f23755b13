"""The forecasting task: distributions of the next steps of time series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from keras import ops

from layers.recorder import Recorder
from pipelines.engine.config.schema import as_list
from pipelines.engine.core import plotting
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.tables import Table
from pipelines.engine.core.wording import count
from pipelines.engine.data.sources.tables import InputTable
from pipelines.engine.data.splits import Splits
from pipelines.engine.explain.explanation import Explanation, Segment
from pipelines.engine.export import stateful
from pipelines.engine.export.digest import Measure
from pipelines.engine.export.savedmodel import Endpoint
from pipelines.engine.tasks.base import EXAMPLES, Evaluation, FileInputs, Prediction, Task
from pipelines.engine.tasks.comparable import Feature
from pipelines.engine.training import loop
from pipelines.forecasting import (
    backtest,
    baselines,
    dates,
    evaluation,
    features,
    plots,
    prediction,
    records,
)
from pipelines.forecasting import model as models
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.losses import ForecastLoss, ForecastMetric
from pipelines.forecasting.model import Forecaster
from pipelines.forecasting.processor import Scales
from pipelines.forecasting.series import Series, SeriesSlice, column_names, latest_steps
from pipelines.forecasting.serving import ForecastServing, forecast_request
from pipelines.forecasting.windows import WindowFeed, Windows


class Forecasting(Task):
    """Forecast distributions of the next steps of one or several series."""

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

    def objective(self, config: ForecastingConfig, processor: Any) -> loop.Objective:
        loss = ForecastLoss(config.model.head, config.model.quantiles)
        kind = "pinball" if config.model.head == "quantiles" else "nats"
        return loop.Objective(
            loss=loss,
            metrics=lambda: [
                ForecastMetric(loss, "loss", name=kind),
                ForecastMetric(loss, "rmse", name="rmse"),
            ],
            monitor=f"val_{kind}",
            higher_is_better=False,
        )

    def feed(self, config: ForecastingConfig, processor: Scales, splits: Splits) -> WindowFeed:
        return WindowFeed(config, processor, splits.train, splits.validation)

    def examples(
        self, config: ForecastingConfig, processor: Scales, model: Forecaster, splits: Splits
    ) -> Callable[[], Table] | None:
        """Return a function that forecasts the last windows of the validation split."""
        steps = 1 if config.model.decode == "autoregressive" else config.model.horizon
        windows = Windows.from_slices(
            splits.validation, config, processor, origins=1, stride=1, horizon=steps, whole=True
        )
        if not len(windows):
            return None
        last = {int(s): i for i, s in enumerate(windows.series)}
        which = np.array(list(last.values())[:EXAMPLES])
        inputs, targets = windows.batch(which, processor)
        names = ["", *processor.names]

        def answer() -> Table:
            predictive = backtest.to_predictive(model.predict_on_batch(inputs), config)
            low, middle, high = np.moveaxis(predictive.quantiles([0.1, 0.5, 0.9])[:, 0], -1, 0)
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
        windows = Windows.from_slices(
            splits.test, config, processor, origins=1, stride=1, horizon=horizon, whole=True
        )
        truth = backtest.collect_truth(config, splits)
        predictive = backtest.walk_forward(config, processor, model, served, windows)
        baseline_forecasts = baselines.forecasts(
            config, splits.train, splits.validation, splits.test
        )
        return evaluation.evaluate(config, truth, predictive, baseline_forecasts)

    def limits(self, config: ForecastingConfig, processor: Scales, splits: Splits) -> list[str]:
        trained, tested = _span(splits.train), _span(splits.test)
        inputs = ["the last values", *column_names(config.data), *config.model.calendar]
        found = [
            f"It was trained on {count(len(processor.names), 'series', 'series')} from "
            f"{trained[0]} to {trained[1]}, and tested on one period only, {tested[0]} to "
            f"{tested[1]}: a period that is unlike it was not tested.",
            f"It forecasts up to {count(config.model.horizon, 'step')}, and reads the last "
            f"{config.model.history:,}. It knows nothing but {', '.join(inputs)}.",
        ]
        if {part.series.name for part in splits.test} <= set(processor.names):
            found.append(
                "Any other series is forecast with the mean of the scales of these; that was not "
                "tested."
            )
        return found

    def endpoints(
        self, config: ForecastingConfig, processor: Scales, model: Forecaster
    ) -> dict[str, Endpoint]:
        serving = ForecastServing(config, processor, model)
        columns = 1 + len(column_names(config.data))
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
        names = tf.constant([target, *column_names(config.data)])
        levels = tf.constant(config.model.quantiles)

        # Endpoints are called with positional arguments.
        def forecast(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            return serving.forecast(dict(zip(inputs, tensors, strict=True)))

        return {
            "serving_default": Endpoint(forecast, inputs),
            "about": Endpoint(lambda: {"columns": names, "quantiles": levels}, {}),
            **stateful.endpoints(lambda: model.initial_state(1), serving.step, inputs),
        }

    def request(
        self, config: ForecastingConfig, examples: Sequence[SeriesSlice]
    ) -> dict[str, tf.Tensor]:
        series = [latest_steps([e.series], config.model.history)[0] for e in examples]
        return forecast_request(
            config, series, [one.following(config.model.horizon) for one in series]
        )

    def predict_batch(
        self, config: ForecastingConfig, served: Any, examples: Sequence[str | Series]
    ) -> list[Prediction]:
        """Forecast all series of each file, and each `Series`, together.

        A file that cannot be read does not affect the others: its prediction has an ``error``.
        """
        read: list[list[Series] | UserError] = []
        for example in examples:
            if isinstance(example, Series):
                read.append([example])
                continue
            try:
                read.append(prediction.read_latest(config, example))
            except UserError as error:
                read.append(error)
        series = [one for found in read if isinstance(found, list) for one in found]
        forecasts = iter(prediction.forecast_batch(config, served, series) if series else [])
        predictions = []
        for example, found in zip(examples, read, strict=True):
            name = example.name if isinstance(example, Series) else example
            if isinstance(found, list):
                own = list(islice(forecasts, len(found)))
                predictions.append(prediction.present(name, config.model.horizon, own))
            else:
                predictions.append(Prediction.failed(name, str(found)))
        return predictions

    def file_inputs(self, config: ForecastingConfig, table: InputTable, column: str) -> FileInputs:
        """Return one input for each series; see `prediction.file_inputs`."""
        return prediction.file_inputs(config, table)

    def answer_columns(self, config: ForecastingConfig, served: Any) -> dict[str, type]:
        quantiles = {f"quantile_{level:g}": float for level in config.model.quantiles}
        return {config.data.date: str, **quantiles}

    def answer_rows(self, config: ForecastingConfig, prediction: Prediction) -> list[list[Any]]:
        """Return a row for each step that is forecast."""
        (forecast,) = prediction.json["series"]
        steps = zip(*forecast["quantiles"].values(), strict=True)
        return [[date, *step] for date, step in zip(forecast["dates"], steps, strict=True)]

    def read_inputs(
        self, config: ForecastingConfig, source: str, report: dict[str, Any]
    ) -> Sequence[SeriesSlice]:
        return records.load_inputs(config, source, report)

    def features(
        self,
        config: ForecastingConfig,
        processor: Scales,
        model: Forecaster,
        records: Sequence[SeriesSlice],
    ) -> dict[str, Feature]:
        return features.features(config, processor, model, records)

    def measures(self, config: ForecastingConfig) -> Sequence[Measure]:
        return features.measures(config)

    def requests(
        self, config: ForecastingConfig, records: Sequence[SeriesSlice]
    ) -> Iterable[dict[str, tf.Tensor]]:
        return (
            forecast_request(config, [series], [series.following(config.model.horizon)])
            for series in features.origins(config, records)
        )

    def explanation_examples(
        self, config: ForecastingConfig, splits: Splits, count: int
    ) -> list[Series]:
        known = [
            replace(p.series, times=p.series.times[: p.stop], values=p.series.values[: p.stop])
            for p in splits.test
        ]
        return latest_steps(known, config.model.history)[:count]

    def explain(
        self,
        config: ForecastingConfig,
        processor: Scales,
        model: Forecaster,
        given: str | Series,
    ) -> Explanation:
        """Explain the first series of a file, or the one named in ``FILE#NAME``."""
        series = given if isinstance(given, Series) else prediction.read_one(config, given)
        horizon, steps = config.model.horizon, len(series)
        inputs = {
            "history": series.values[None].astype(np.float32),
            "lengths": np.array([steps], np.int32),
            "series": np.array([processor.number(series.name)], np.int32),
            "origins": np.arange(steps, dtype=np.int32)[None],
        }
        if config.model.calendar:
            times = np.concatenate([series.times, series.following(horizon)]) // dates.SECOND
            inputs["dates"] = processor.dates(series.seconds[None]).numpy()
            output_steps = 1 if config.model.decode == "autoregressive" else horizon
            targets = np.arange(steps)[:, None] + np.arange(1, output_steps + 1)
            inputs["future_dates"] = processor.dates(times[targets][None]).numpy()
        with Recorder().recording() as recorder:
            outputs = model(inputs, training=False)
        predictive = backtest.to_predictive(ops.convert_to_numpy(outputs)[0][:, None], config)
        last = series.values[:, 0]
        changes = predictive.quantiles([0.1, 0.5, 0.9])[:, 0]
        logs = config.data.values == "log_returns"
        raw = last[:, None] * np.exp(changes) if logs else last[:, None] + changes
        low, median, high = raw.T
        steps_shown = [
            prediction.short_date(date) for date in dates.isoformat(series.times, series.zone)
        ]
        return Explanation(
            input=f"{series.name}, {steps_shown[0]} to {steps_shown[-1]}",
            answer=f"next {median[-1]:,.5g}, and in 80 % of cases from {low[-1]:,.5g} to "
            f"{high[-1]:,.5g}",
            segments=[
                Segment(
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


def _span(parts: Sequence[SeriesSlice]) -> tuple[str, str]:
    """Return the first and the last day of slices of series."""
    zone = parts[0].series.zone
    first = min(int(part.series.times[part.start]) for part in parts)
    last = max(int(part.series.times[part.stop - 1]) for part in parts)
    begin, end = dates.isoformat(np.array([first, last]), zone)
    return begin[:10], end[:10]


TASK = Forecasting()
