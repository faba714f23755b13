"""Series, configs and models for the tests of forecasting."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipelines.forecasting import model as models
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.processor import Scales
from pipelines.forecasting.series import Series, SeriesSlice
from pipelines.forecasting.windows import Windows

LEVELS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
HEADS = ["quantiles", "gaussian", "student_t"]
DAY = 86_400


def config(source: str = "prices.csv", data: dict | None = None, **sections) -> ForecastingConfig:
    return ForecastingConfig.model_validate(
        {"data": {"source": source, **(data or {})}, **sections}
    )


def series(values, name: str = "A", start: int = 0) -> Series:
    values = np.asarray(values, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    return Series(name, (start + np.arange(len(values))) * DAY, values, f"{name}:1")


def parts(one: Series, *edges: int) -> list[list[SeriesSlice]]:
    ends = (0, *edges, len(one))
    return [[SeriesSlice(one, a, b)] for a, b in pairwise(ends)]


def prices(steps: int, seed: int = 0, scale: float = 0.01) -> np.ndarray:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).standard_normal(steps) * scale))


def write(folder: Path, text: str, name: str = "prices.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def daily(values, start: str = "2020-01-01") -> list[str]:
    dates = np.datetime64(start) + np.arange(len(values))
    return [f"{d},{v}" for d, v in zip(dates, values, strict=True)]


def small(**sections) -> ForecastingConfig:
    model = {"history": 20, "horizon": 3, "units": [4], **sections.pop("model", {})}
    return config(model=model, **sections)


def simulated_garch(steps: int, omega=0.05, alpha=0.1, beta=0.85, seed=0):
    rng = np.random.default_rng(seed)
    variance, returns = omega / (1 - alpha - beta), np.zeros(steps)
    variances = np.zeros(steps + 1)
    for t in range(steps):
        variances[t] = variance
        returns[t] = math.sqrt(variance) * rng.standard_normal()
        variance = omega + alpha * returns[t] ** 2 + beta * variance
    variances[steps] = variance
    return 0.01 * returns, 1e-4 * variances


def built(settings: ForecastingConfig, values=None, edges=(300, 350)):
    made = prices(400) if values is None else values
    train, validation, test = parts(series(made), *edges)
    scales = Scales.fit(settings, train, validation)
    return models.build(settings, scales.arrays, seed=1), scales, (train, validation, test)


def asked(settings, scales, some, **more):
    windows = Windows.from_slices(
        some, settings, scales, origins=1, stride=1, horizon=settings.model.horizon, whole=True
    )
    return windows, *windows.batch(np.arange(len(windows)), scales)
