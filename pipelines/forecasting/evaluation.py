"""Scores of forecasts, compared with the baselines at the same origins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.engine.core import intervals
from pipelines.engine.core.tables import Table
from pipelines.engine.tasks.base import Evaluation
from pipelines.forecasting import plots
from pipelines.forecasting.backtest import Truth
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.metrics import diebold_mariano, mean_over_time
from pipelines.forecasting.predictive import Parametric, Predictive, pinball
from pipelines.forecasting.processor import TINY

#: Levels of the interval that is scored.
_LOW, _HIGH = 0.1, 0.9
#: Differences with a smaller p-value are reported as significant.
_SIGNIFICANCE = 0.05


def evaluate(
    config: ForecastingConfig,
    truth: Truth,
    model: Predictive,
    baselines: dict[str, Parametric],
) -> Evaluation:
    """Score the model's forecasts and compare them with the baselines.

    Args:
        config: The config of the run.
        truth: The observed values.
        model: The model's forecasts at every origin.
        baselines: The forecasts of each baseline at the same origins.
    """
    forecasts: dict[str, Predictive] = {"model": model, **baselines}
    errors = {name: _Errors.from_forecast(f, truth) for name, f in forecasts.items()}
    low, high = np.moveaxis(model.quantiles([_LOW, _HIGH]), -1, 0)
    covered = (truth.changes >= low) & (truth.changes <= high)
    width = truth.raw(high) - truth.raw(low)
    levels = config.model.quantiles
    loss = pinball(truth.changes, model.quantiles(levels), levels)
    scores = _scores(truth, errors, loss, covered, width) | _direction(truth, model)
    comparison, verdict = _compare(truth, errors, scores)
    crps_next = mean_over_time(errors["model"].crps[:, 0], truth.times)
    return Evaluation(
        scores=scores,
        intervals=intervals.known(crps_next=crps_next.interval()),
        figures={
            "fan": plots.fans(truth, model),
            "coverage": plots.coverage(truth, model),
            "baselines": plots.baselines(
                {name: e.crps.mean(axis=0) for name, e in errors.items()},
                {name: e.absolute.mean(axis=0) for name, e in errors.items()},
            ),
            "pit": plots.pit(model.cdf(truth.changes)[:, 0]),
            "walk_forward": plots.walk_forward(truth, model),
        },
        tables={
            "by_horizon": _by_horizon(truth, errors, covered, width),
            "by_series": _by_series(truth, errors, covered),
            "baselines": _by_forecast(truth, errors, forecasts),
            "diebold_mariano": comparison,
            "verdict": Table(["sentence"], [[sentence] for sentence in verdict]),
        },
        verdict=verdict,
        baselines={
            name: float(e.crps[:, 0].mean()) for name, e in errors.items() if name != "model"
        },
    )


def _scores(
    truth: Truth,
    errors: dict[str, _Errors],
    loss: np.ndarray,
    covered: np.ndarray,
    width: np.ndarray,
) -> dict[str, float]:
    """Compute the scores of all windows together.

    Args:
        truth: The observed values.
        errors: The errors of the model and of each baseline.
        loss: The pinball loss, ``<float64>[windows, steps]``.
        covered: Whether the 80 % interval contains the observed value, ``<bool>[windows, steps]``.
        width: Width of the interval, raw, ``<float64>[windows, steps]``.
    """
    model, naive = errors["model"], errors["last_value"]
    return {
        "crps_next": float(model.crps[:, 0].mean()),
        "crps_next_to_ewma": _ratio(model.crps[:, 0], errors["ewma_volatility"].crps[:, 0]),
        "crps_next_to_garch": _ratio(model.crps[:, 0], errors["garch"].crps[:, 0]),
        "crps": float(model.crps.mean()),
        "pinball": float(loss.mean()),
        "coverage_80_next": float(covered[:, 0].mean()),
        "coverage_80": float(covered.mean()),
        "width_80_next": float(width[:, 0].mean()),
        "relative_mae": _ratio(model.absolute[:, 0], naive.absolute[:, 0]),
        "relative_mae_all_steps": _ratio(model.absolute, naive.absolute),
        "mae": float(model.absolute.mean()),
        "rmse": float(np.sqrt(np.square(model.absolute).mean())),
        "mase": float((model.absolute / truth.scale[:, None]).mean()),
        "standard_mse": float(model.standard.mean()),
        "linear_standard_mse": float(errors["linear"].standard.mean()),
        "last_value_standard_mse": float(naive.standard.mean()),
    }


def _direction(truth: Truth, model: Predictive) -> dict[str, float]:
    """Score the sign of the median's next change; empty if no value changes."""
    moved = truth.changes[:, 0] != 0
    if not moved.any():
        return {}
    correct = np.sign(model.median()[:, 0]) == np.sign(truth.changes[:, 0])
    hits = mean_over_time(correct[moved].astype(float), truth.times[moved])
    low, high = (min(max(edge, 0.0), 1.0) for edge in hits.interval())
    return {
        "direction": hits.value,
        "direction_low": low,
        "direction_high": high,
        "rises": float((truth.changes[moved, 0] > 0).mean()),
    }


@dataclass(frozen=True)
class _Errors:
    """The errors of one forecast, each ``<float64>[windows, steps]``.

    Attributes:
        crps: CRPS of the level's change.
        absolute: Absolute error of the median, raw.
        standard: Squared error of the median, in standard units.
    """

    crps: np.ndarray
    absolute: np.ndarray
    standard: np.ndarray

    @classmethod
    def from_forecast(cls, forecast: Predictive, truth: Truth) -> _Errors:
        median = forecast.median()
        return cls(
            crps=forecast.crps(truth.changes),
            absolute=np.abs(truth.raw(median) - truth.raw(truth.changes)),
            standard=np.square((median - truth.changes) / truth.deviation[:, None]),
        )


def _ratio(model: np.ndarray, theirs: np.ndarray) -> float:
    """Return the ratio of the means; 1 if both are zero."""
    return float((model.mean() + TINY**2) / (theirs.mean() + TINY**2))


def _by_horizon(
    truth: Truth, errors: dict[str, _Errors], covered: np.ndarray, width: np.ndarray
) -> Table:
    model, rows = errors["model"], []
    for k in range(truth.changes.shape[1]):
        rows.append(
            [
                k + 1,
                float(model.crps[:, k].mean()),
                *(float(e.crps[:, k].mean()) for name, e in errors.items() if name != "model"),
                float(model.absolute[:, k].mean()),
                _ratio(model.absolute[:, k], errors["last_value"].absolute[:, k]),
                float(np.sqrt(np.square(model.absolute[:, k]).mean())),
                float((model.absolute[:, k] / truth.scale).mean()),
                float(model.standard[:, k].mean()),
                float(covered[:, k].mean()),
                float(width[:, k].mean()),
            ]
        )
    crps = [f"crps_{name}" for name in errors if name != "model"]
    columns = ["step", "crps", *crps, "mae", "relative_mae", "rmse", "mase", "standard_mse"]
    return Table([*columns, "coverage_80", "width_80"], rows)


def _by_series(truth: Truth, errors: dict[str, _Errors], covered: np.ndarray) -> Table:
    rows: list[list[Any]] = []
    for i, name in enumerate(truth.names):
        windows = np.flatnonzero(truth.series == i)
        if len(windows):
            model = errors["model"]
            rows.append(
                [
                    name,
                    len(windows),
                    float(model.crps[windows, 0].mean()),
                    _ratio(model.crps[windows, 0], errors["ewma_volatility"].crps[windows, 0]),
                    _ratio(model.crps[windows, 0], errors["garch"].crps[windows, 0]),
                    _ratio(model.absolute[windows, 0], errors["last_value"].absolute[windows, 0]),
                    float((model.absolute[windows] / truth.scale[windows, None]).mean()),
                    float(covered[windows, 0].mean()),
                ]
            )
    columns = ["series", "windows", "crps_next", "crps_next_to_ewma", "crps_next_to_garch"]
    return Table([*columns, "relative_mae", "mase", "coverage_80_next"], rows)


def _by_forecast(
    truth: Truth, errors: dict[str, _Errors], forecasts: dict[str, Predictive]
) -> Table:
    rows: list[list[Any]] = []
    for name, e in errors.items():
        interval = forecasts[name].quantiles([_LOW, _HIGH])
        covered = (truth.changes >= interval[..., 0]) & (truth.changes <= interval[..., 1])
        rows.append(
            [
                name,
                float(e.crps[:, 0].mean()),
                float(e.crps.mean()),
                float(e.absolute[:, 0].mean()),
                float(e.absolute.mean()),
                _ratio(e.absolute[:, 0], errors["last_value"].absolute[:, 0]),
                float((e.absolute / truth.scale[:, None]).mean()),
                float(e.standard.mean()),
                float(covered[:, 0].mean()),
                float(covered.mean()),
            ]
        )
    columns = ["forecast", "crps_next", "crps", "mae_next", "mae", "relative_mae", "mase"]
    return Table([*columns, "standard_mse", "coverage_80_next", "coverage_80"], rows)


def _compare(
    truth: Truth, errors: dict[str, _Errors], scores: dict[str, float]
) -> tuple[Table, list[str]]:
    """Test the model against each baseline, and describe the results.

    Returns:
        A table of Diebold-Mariano tests, and sentences.
    """
    model, steps = errors["model"], truth.changes.shape[1]
    losses: dict[str, tuple[Callable[[_Errors], np.ndarray], int]] = {
        "CRPS, next step": (lambda e: e.crps[:, 0], 1),
        "CRPS, all steps": (lambda e: e.crps.mean(axis=1), steps),
        "squared error, all steps": (lambda e: e.standard.mean(axis=1), steps),
        "absolute error, next step": (lambda e: e.absolute[:, 0], 1),
    }
    rows: list[list[Any]] = []
    sentences: dict[str, list[str]] = {}
    for kind, (loss, horizon) in losses.items():
        for name, theirs in errors.items():
            if name == "model":
                continue
            test = diebold_mariano(loss(model), loss(theirs), truth.times, horizon)
            ratio = _ratio(loss(model), loss(theirs))
            significant = test.p_value < _SIGNIFICANCE
            word = ("beats" if ratio < 1 else "loses to") if significant else "cannot be told from"
            rows.append([kind, name, ratio, test.value, test.error, test.p_value, word])
            less = f"{abs(1 - ratio):.1%} {'less' if ratio < 1 else 'more'}"
            sentences.setdefault(kind, []).append(
                f"{word} {name.replace('_', ' ')} ({less}, p = {test.p_value:.2g})"
            )
    verdict = [f"{kind}: the model {', '.join(parts)}." for kind, parts in sentences.items()]
    if truth.logs:
        verdict.append(
            f"The error of the next price is {scores['relative_mae']:.3f} times that of the last "
            "value; nobody does much better. What can be forecast is how far it may move."
        )
    if "direction" in scores:
        low, high = scores["direction_low"], scores["direction_high"]
        coin = ", which is not told from a coin" if low <= 0.5 <= high else ""
        verdict.append(
            f"Direction of the next step: {scores['direction']:.1%} right (95 % interval {low:.1%} "
            f"to {high:.1%}){coin}; {scores['rises']:.1%} of the steps were rises."
        )
    columns = ["loss", "baseline", "ratio", "difference", "standard_error", "p", "model"]
    return Table(columns, rows), verdict
