"""Forecasts of series in a file, and their representation for people and programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.engine.core.errors import UserError
from pipelines.engine.tasks.base import Prediction
from pipelines.forecasting import dates, records
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.series import Series, latest_steps
from pipelines.forecasting.serving import forecast_request


def read_latest(config: ForecastingConfig, source: str) -> list[Series]:
    """Read the last steps, as many as the model reads, of each series of a source."""
    data = config.data.model_copy(update={"min_steps": 1, "start": None, "end": None})
    # Paths on a command line are relative to the working directory, others to the data folder.
    path = str(Path(source).absolute()) if Path(source).exists() else source
    return latest_steps(records.read_series(data, path, {}), config.model.history)


def read_one(config: ForecastingConfig, source: str) -> Series:
    """Read the last steps of the first series of a file, or of the series named in ``FILE#NAME``.

    Raises:
        UserError: The file has no such series.
    """
    path, _, name = (source, "", "") if Path(source).exists() else source.partition("#")
    series = {s.name: s for s in read_latest(config, path)}
    if name and name not in series:
        raise UserError(f"{source}: no series {name!r}; there are: {', '.join(series)[:200]}")
    return series[name] if name else next(iter(series.values()))


def forecast_series(config: ForecastingConfig, served: Any, series: Series) -> dict[str, Any]:
    """Forecast one series with a SavedModel.

    Returns:
        The series' name, the forecast's ``dates`` and ``quantiles`` (raw values by level), the
        ``history`` and the ``frequency``, in types that can be written as JSON.
    """
    future = series.following(config.model.horizon)
    request = forecast_request(config, series, future)
    quantiles = served.signatures["serving_default"](**request)["quantiles"].numpy()[0]
    return {
        "series": series.name,
        "dates": dates.isoformat(future, series.zone),
        "quantiles": {
            f"{level:g}": quantiles[:, i].astype(float).tolist()
            for i, level in enumerate(config.model.quantiles)
        },
        "history": {
            "dates": dates.isoformat(series.times, series.zone),
            "values": series.values[:, 0].tolist(),
        },
        "frequency": series.frequency.name,
    }


def present(source: str, horizon: int, forecasts: list[dict[str, Any]]) -> Prediction:
    """Present the results of `forecast_series` for a source."""
    rows = []
    for forecast in forecasts:
        for k, date in enumerate(forecast["dates"]):
            shown = (forecast["quantiles"][level][k] for level in ("0.1", "0.5", "0.9"))
            rows.append([forecast["series"], short_date(date), *(f"{x:,.5g}" for x in shown)])
    frequencies = list(dict.fromkeys(forecast["frequency"] for forecast in forecasts))
    listed = "; ".join(frequencies[:3]) + (" …" if len(frequencies) > 3 else "")
    return Prediction(
        title=f"{source}: the next {horizon} steps ({listed})",
        columns=["series", "date", "10 %", "median", "90 %"],
        rows=rows,
        json={"source": source, "series": forecasts},
    )


def short_date(date: str) -> str:
    """Shorten an ISO 8601 date at midnight to its day."""
    return date.removesuffix("T00:00:00")
