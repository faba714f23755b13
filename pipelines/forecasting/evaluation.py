"""How good forecasts are, walking forward, beside the baselines on the same windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.engine.core.tables import Table
from pipelines.engine.tasks.base import Evaluation
from pipelines.forecasting import plots
from pipelines.forecasting.backtest import Truth
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.metrics import diebold_mariano, mean_over_time
from pipelines.forecasting.predictive import Parametric, Predictive, pinball
from pipelines.forecasting.processor import TINY

#: The interval that is scored.
_LOW, _HIGH = 0.1, 0.9
#: A p-value below this is told as a difference.
_SURE = 0.05


def evaluate(
    config: ForecastingConfig,
    truth: Truth,
    model: Predictive,
    baselines: dict[str, Parametric],
) -> Evaluation:
    """Scores, tables, pictures and sentences."""
    everyone: dict[str, Predictive] = {"model": model, **baselines}
    errors = {name: _Errors.of(one, truth) for name, one in everyone.items()}
    levels = config.model.quantiles
    quantiles = model.quantiles([*levels, _LOW, _HIGH])
    low, high = quantiles[..., -2], quantiles[..., -1]
    inside = (truth.changes >= low) & (truth.changes <= high)
    width = truth.raw(high) - truth.raw(low)
    pin = pinball(truth.changes, quantiles[..., : len(levels)], levels)
    ours, naive = errors["model"], errors["last_value"]
    moved = truth.changes[:, 0] != 0
    right = np.sign(model.median()[:, 0]) == np.sign(truth.changes[:, 0])
    hits = mean_over_time(right[moved].astype(float), truth.times[moved]) if moved.any() else None
    scores = {
        "crps_next": float(ours.crps[:, 0].mean()),
        "crps_next_to_ewma": _ratio(ours.crps[:, 0], errors["ewma_volatility"].crps[:, 0]),
        "crps_next_to_garch": _ratio(ours.crps[:, 0], errors["garch"].crps[:, 0]),
        "crps": float(ours.crps.mean()),
        "pinball": float(pin.mean()),
        "coverage_80_next": float(inside[:, 0].mean()),
        "coverage_80": float(inside.mean()),
        "width_80_next": float(width[:, 0].mean()),
        "relative_mae": _ratio(ours.absolute[:, 0], naive.absolute[:, 0]),
        "relative_mae_all_steps": _ratio(ours.absolute, naive.absolute),
        "mae": float(ours.absolute.mean()),
        "rmse": float(np.sqrt(np.square(ours.absolute).mean())),
        "mase": float((ours.absolute / truth.scale[:, None]).mean()),
        "standard_mse": float(ours.standard.mean()),
        "linear_standard_mse": float(errors["linear"].standard.mean()),
        "last_value_standard_mse": float(naive.standard.mean()),
    }
    if hits is not None:
        lowest, highest = (min(max(edge, 0.0), 1.0) for edge in hits.interval())
        scores |= {"direction": hits.value, "direction_low": lowest, "direction_high": highest}
        scores["rises"] = float((truth.changes[moved, 0] > 0).mean())
    tests, verdict = _verdict(truth, errors, scores)
    return Evaluation(
        scores=scores,
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
            "by_horizon": _by_horizon(truth, errors, inside, width),
            "by_series": _by_series(truth, errors, inside),
            "baselines": _side_by_side(truth, errors, everyone),
            "diebold_mariano": tests,
            "verdict": Table(["sentence"], [[line] for line in verdict]),
        },
        verdict=verdict,
        baselines={
            name: float(e.crps[:, 0].mean()) for name, e in errors.items() if name != "model"
        },
    )


@dataclass(frozen=True)
class _Errors:
    """Of one forecast: CRPS of the level's change, absolute error raw, squared in standard units;
    each ``[windows, steps]``."""

    crps: np.ndarray
    absolute: np.ndarray
    standard: np.ndarray

    @classmethod
    def of(cls, forecast: Predictive, truth: Truth) -> _Errors:
        median = forecast.median()
        return cls(
            crps=forecast.crps(truth.changes),
            absolute=np.abs(truth.raw(median) - truth.raw(truth.changes)),
            standard=np.square((median - truth.changes) / truth.deviation[:, None]),
        )


def _ratio(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Of the means; 1 where both are nothing."""
    return float((ours.mean() + TINY**2) / (theirs.mean() + TINY**2))


def _by_horizon(
    truth: Truth, errors: dict[str, _Errors], inside: np.ndarray, width: np.ndarray
) -> Table:
    ours, rows = errors["model"], []
    for k in range(truth.changes.shape[1]):
        rows.append(
            [
                k + 1,
                float(ours.crps[:, k].mean()),
                *(float(e.crps[:, k].mean()) for n, e in errors.items() if n != "model"),
                float(ours.absolute[:, k].mean()),
                _ratio(ours.absolute[:, k], errors["last_value"].absolute[:, k]),
                float(np.sqrt(np.square(ours.absolute[:, k]).mean())),
                float((ours.absolute[:, k] / truth.scale).mean()),
                float(ours.standard[:, k].mean()),
                float(inside[:, k].mean()),
                float(width[:, k].mean()),
            ]
        )
    crps = [f"crps_{name}" for name in errors if name != "model"]
    columns = ["step", "crps", *crps, "mae", "relative_mae", "rmse", "mase", "standard_mse"]
    return Table([*columns, "coverage_80", "width_80"], rows)


def _by_series(truth: Truth, errors: dict[str, _Errors], inside: np.ndarray) -> Table:
    rows: list[list[Any]] = []
    for i, name in enumerate(truth.names):
        some = np.flatnonzero(truth.series == i)
        if len(some):
            ours = errors["model"]
            rows.append(
                [
                    name,
                    len(some),
                    float(ours.crps[some, 0].mean()),
                    _ratio(ours.crps[some, 0], errors["ewma_volatility"].crps[some, 0]),
                    _ratio(ours.crps[some, 0], errors["garch"].crps[some, 0]),
                    _ratio(ours.absolute[some, 0], errors["last_value"].absolute[some, 0]),
                    float((ours.absolute[some] / truth.scale[some, None]).mean()),
                    float(inside[some, 0].mean()),
                ]
            )
    columns = ["series", "windows", "crps_next", "crps_next_to_ewma", "crps_next_to_garch"]
    return Table([*columns, "relative_mae", "mase", "coverage_80_next"], rows)


def _side_by_side(
    truth: Truth, errors: dict[str, _Errors], everyone: dict[str, Predictive]
) -> Table:
    rows: list[list[Any]] = []
    for name, e in errors.items():
        interval = everyone[name].quantiles([_LOW, _HIGH])
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


def _verdict(
    truth: Truth, errors: dict[str, _Errors], scores: dict[str, float]
) -> tuple[Table, list[str]]:
    """Against each baseline, tested, and said in plain words."""
    ours, steps = errors["model"], truth.changes.shape[1]
    kinds = {
        "CRPS, next step": (lambda e: e.crps[:, 0], 1),
        "CRPS, all steps": (lambda e: e.crps.mean(axis=1), steps),
        "squared error, all steps": (lambda e: e.standard.mean(axis=1), steps),
        "absolute error, next step": (lambda e: e.absolute[:, 0], 1),
    }
    rows: list[list[Any]] = []
    said: dict[str, list[str]] = {}
    for kind, (loss, horizon) in kinds.items():
        for name, theirs in errors.items():
            if name == "model":
                continue
            test = diebold_mariano(loss(ours), loss(theirs), truth.times, horizon)
            ratio = _ratio(loss(ours), loss(theirs))
            sure = test.p_value < _SURE
            word = ("beats" if ratio < 1 else "loses to") if sure else "cannot be told from"
            rows.append([kind, name, ratio, test.value, test.error, test.p_value, word])
            less = f"{abs(1 - ratio):.1%} {'less' if ratio < 1 else 'more'}"
            said.setdefault(kind, []).append(
                f"{word} {name.replace('_', ' ')} ({less}, p = {test.p_value:.2g})"
            )
    verdict = [f"{kind}: the model {', '.join(parts)}." for kind, parts in said.items()]
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


def scales_of(parts: Sequence[tuple[np.ndarray, np.ndarray]], season: int) -> tuple[float, float]:
    """``(mean absolute seasonal change, raw; deviation of the level)`` of a series in training.

    Args:
        parts: raw numbers and levels of each of its parts.
    """
    steps = [np.abs(raw[season:] - raw[:-season]) for raw, _ in parts]
    changes = np.concatenate(steps)
    levels = np.concatenate([level for _, level in parts])
    mean = float(changes.mean()) if len(changes) else 0.0
    return max(mean, TINY), max(float(levels.std()), TINY)
