"""Features of series and of their forecasts, which `unfold drift` compares.

All are in units of the training split: changes in standard deviations of those of their series.
Steps close in time are alike, so that they count in groups of as many as the model reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.engine.export.digest import How, Measure
from pipelines.engine.tasks.comparable import Feature, Wording
from pipelines.forecasting import backtest
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.model import Forecaster
from pipelines.forecasting.processor import Scales, covariates_of, levels_of
from pipelines.forecasting.series import Series, SeriesSlice
from pipelines.forecasting.windows import Windows

#: Forecasts that are compared with what came, and windows that are made requests of, at most.
_FORECASTS, _REQUESTS = 1000, 300
#: Smallest number of steps that have a volatility.
_STEPS = 5
_HOUR = 3600.0


def measures(config: ForecastingConfig) -> list[Measure]:
    """Return what a server sees of requests.

    Logarithmic changes do not depend on the size of the values; all others do.
    """
    relative: list[How] = ["steps", "variation", "change"]
    absolute: list[How] = ["steps", "mean", "spread", "change"]
    kinds = relative if config.data.values == "log_returns" else absolute
    return [
        Measure(name=f"history_{how}", side="input", tensor="history", how=how) for how in kinds
    ]


def origins(config: ForecastingConfig, slices: Sequence[SeriesSlice]) -> Iterator[Series]:
    """Yield the histories that evenly spaced forecasts of some slices start from."""
    steps = config.model.history
    stride = max(1, sum(p.stop - p.start for p in slices) // _REQUESTS)
    for part in slices:
        series = part.series
        for stop in range(max(part.start, min(steps, part.stop)), part.stop + 1, stride):
            where = slice(max(stop - steps, 0), stop)
            known = series.times if series.history is None else series.history
            yield replace(
                series, times=series.times[where], values=series.values[where], history=known
            )


def features(
    config: ForecastingConfig, scales: Scales, model: Forecaster, slices: Sequence[SeriesSlice]
) -> dict[str, Feature]:
    """Return the features of the steps of slices, and those of their forecasts."""
    blocks = _Blocks(slices, config.model.history)
    parts = [_Steps.of(part, config, scales, blocks) for part in slices]
    groups = np.concatenate([part.blocks for part in parts])

    def of_steps(arrays: Sequence[np.ndarray], wording: Wording) -> Feature:
        return Feature(np.concatenate(arrays), wording, groups)

    known = [np.full(len(part.blocks), part.name) for part in parts]
    volatility = [_volatility(part.changes, part.blocks) for part in parts]
    missing = _missing(slices)
    found = {
        "change": of_steps([p.changes for p in parts], Wording("Changes", unit="deviations")),
        "volatility": Feature(
            np.concatenate([values for values, _ in volatility]),
            Wording("Changes", "calmer", "wilder", "deviations"),
            np.concatenate([numbers for _, numbers in volatility]),
        ),
        "hours": of_steps([p.hours for p in parts], Wording("Steps", "shorter", "longer", "hours")),
        "series": of_steps(known, Wording("Series, by whether training had them,")),
        "missing": Feature(missing, Wording("Values, by whether they are missing,")),
    }
    if config.model.level or config.data.values == "levels":
        found["level"] = of_steps([p.levels for p in parts], Wording("Values", unit="deviations"))
    for i, (kind, name) in enumerate(_covariates(config)):
        arrays = [p.covariates[:, i] for p in parts]
        wording = Wording(f"Values of {name}", unit="deviations")
        found[f"{kind}_{name}"] = of_steps(arrays, wording)
    return found | _forecasts(config, scales, model, slices, blocks)


class _Blocks:
    """Numbers of the blocks of time that steps are in: ``steps`` times of all series each."""

    def __init__(self, slices: Sequence[SeriesSlice], steps: int) -> None:
        self._times = np.unique(
            np.concatenate([p.series.seconds[p.start : p.stop] for p in slices])
        )
        self._steps = steps

    def of(self, seconds: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._times, seconds) // self._steps


@dataclass(frozen=True)
class _Steps:
    """The steps of a slice: arrays ``[steps]``, and ``covariates [steps, covariates]``."""

    name: str
    changes: np.ndarray
    levels: np.ndarray
    hours: np.ndarray
    blocks: np.ndarray
    covariates: np.ndarray

    @classmethod
    def of(
        cls, part: SeriesSlice, config: ForecastingConfig, scales: Scales, blocks: _Blocks
    ) -> _Steps:
        series, number = part.series, scales.number(part.series.name)
        steps = np.arange(max(part.start, 1), part.stop)
        levels = levels_of(series, config.data.values)
        mean, deviation = scales.level[number]
        means, deviations = np.moveaxis(scales.covariates[number], -1, 0)
        return cls(
            "known" if number else "unknown",
            changes=np.diff(levels)[steps - 1] / scales.change[number],
            levels=(levels[steps] - mean) / deviation,
            hours=np.diff(series.seconds)[steps - 1] / _HOUR,
            blocks=blocks.of(series.seconds[steps]),
            covariates=(covariates_of(series, config)[steps] - means) / deviations,
        )


def _covariates(config: ForecastingConfig) -> list[tuple[str, str]]:
    """Return the kind and the name of each further input, in the order of `covariates_of`."""
    ratios = [f"{above}/{below}" for above, below in config.data.ratios.items()]
    return [*(("column", name) for name in config.data.columns), *(("ratio", r) for r in ratios)]


def _volatility(changes: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard deviation of the changes in each block, and the blocks."""
    numbers, counts = np.unique(blocks, return_counts=True)
    numbers = numbers[counts >= _STEPS]
    return np.array([changes[blocks == n].std() for n in numbers], np.float64), numbers


def _missing(slices: Sequence[SeriesSlice]) -> np.ndarray:
    """Return for each value of the whole series of slices whether it was missing in the data."""
    series = {p.series.name: p.series for p in slices}.values()
    missing = sum(s.missing for s in series)
    given = sum(len(s.times if s.history is None else s.history) for s in series)
    return np.repeat(["missing", "given"], [missing, given])


def _forecasts(
    config: ForecastingConfig,
    scales: Scales,
    model: Forecaster,
    slices: Sequence[SeriesSlice],
    blocks: _Blocks,
) -> dict[str, Feature]:
    """Return how far the next step is from its forecast, and how wide its 80 % interval is."""
    horizon = 1 if config.model.decode == "autoregressive" else config.model.horizon
    stride = max(1, sum(p.stop - p.start for p in slices) // _FORECASTS)
    windows = Windows.from_slices(slices, config, scales, origins=1, stride=stride, horizon=horizon)
    if not len(windows):
        return {}
    errors, widths = [], []
    for inputs, targets in windows.batches(scales, size=256):
        predictive = backtest.to_predictive(model.predict_on_batch(inputs), config)
        low, median, high = np.moveaxis(predictive.quantiles([0.1, 0.5, 0.9])[:, 0], -1, 0)
        unit = scales.change[inputs["series"]]
        errors.append(np.abs(targets[:, 0, 0] - median) / unit)
        widths.append((high - low) / unit)
    groups = blocks.of(windows.times[windows.first_origins + 1])

    def feature(arrays: list[Any], wording: Wording) -> Feature:
        return Feature(np.concatenate(arrays).astype(np.float64), wording, groups)

    error = Wording("Errors of forecasts", "smaller", "larger", "deviations")
    width = Wording("Intervals of forecasts", "narrower", "wider", "deviations")
    return {"error": feature(errors, error), "interval": feature(widths, width)}
