"""Forecasts of series in a file, and their representation for people and programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.missing import label_text
from pipelines.engine.data.sources.tables import InputTable
from pipelines.engine.tasks.base import FileInput, FileInputs, Prediction
from pipelines.forecasting import dates, records
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.series import Series, latest_steps
from pipelines.forecasting.serving import forecast_request


def read_latest(
    config: ForecastingConfig, source: str, report: dict[str, Any] | None = None, **changes: Any
) -> list[Series]:
    """Read the last steps, as many as the model reads, of each series of a source.

    Args:
        config: The config of the run.
        source: The source.
        report: Gets counts and notes, see `records.read_series`.
        changes: Other values for keys of the ``data`` section.
    """
    update = {"min_steps": 1, "start": None, "end": None, **changes}
    data = config.data.model_copy(update=update)
    # Paths on a command line are relative to the working directory, others to the data folder.
    path = str(Path(source).absolute()) if Path(source).exists() else source
    report = {} if report is None else report
    return latest_steps(records.read_series(data, path, report), config.model.history)


def file_inputs(config: ForecastingConfig, table: InputTable) -> FileInputs:
    """Return one input for each series of a table.

    All rows are read at once. Unusable rows are counted in the notes, and a series without a usable
    one has an input with an error.
    """
    name_column = config.data.series or "series"
    if not table.rows:
        return FileInputs([name_column], 0, iter(()))
    report: dict[str, Any] = {}
    notes: list[str] = []
    reason = "no usable row" + (" that data.where selects" if config.data.where else "")
    try:
        series = read_latest(config, str(table.path), report, max_bad_rows=1.0)
    except UserError as error:  # no row at all can be used, and the message says why
        series, reason = [], str(error)
    for found in report.values():
        if isinstance(found, dict) and found.get("unusable"):
            count = sum(found["unusable"].values())
            examples = "; ".join(found["first_unusable"])
            notes.append(f"{count:,} of {found['rows']:,} rows cannot be used: {examples}")
    known = {one.name for one in series}
    missing = [] if config.data.series is None else _names_besides(config, table, known)
    if not series and not missing:
        raise UserError(reason)

    def inputs() -> Iterator[FileInput]:
        for one in series:
            yield FileInput([one.name], one.place, one)
        for name in missing:
            yield FileInput([name], str(table.path), error=reason)

    return FileInputs([name_column], len(series) + len(missing), inputs(), notes)


def _names_besides(config: ForecastingConfig, table: InputTable, known: set[str]) -> list[str]:
    """Return the names of series in a long table whose forecasts are missing, sorted."""
    assert config.data.series is not None
    column = table.columns.index(config.data.series)
    names = {label_text(row.cells[column]) or "" for row in table.read()} - {""}
    if isinstance(config.data.target, str) or len(config.data.target) == 1:
        return sorted(names - known)
    labels = {f"{name} {target}": name for name in names for target in config.data.target}
    return sorted(label for label in labels if label not in known)


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


def forecast_batch(
    config: ForecastingConfig, served: Any, series: Sequence[Series]
) -> list[dict[str, Any]]:
    """Forecast several series with one call of a SavedModel.

    Returns:
        For each series its name, the forecast's ``dates`` and ``quantiles`` (raw values by level),
        the ``history`` and the ``frequency``, in types that can be written as JSON.
    """
    future = [one.following(config.model.horizon) for one in series]
    request = forecast_request(config, series, future)
    quantiles = served.signatures["serving_default"](**request)["quantiles"].numpy()
    return [_describe(config, *row) for row in zip(series, future, quantiles, strict=True)]


def _describe(
    config: ForecastingConfig, series: Series, future: np.ndarray, quantiles: np.ndarray
) -> dict[str, Any]:
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
    """Present the results of `forecast_batch` for a source."""
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
