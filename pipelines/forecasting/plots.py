"""Plots of forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from pipelines.engine.core import plotting

if TYPE_CHECKING:
    from pipelines.forecasting.backtest import Truth
    from pipelines.forecasting.predictive import Predictive

#: Maximum number of panels, and number of history steps in a fan chart.
_MAX_PANELS, _HISTORY = 6, 60
#: Central intervals, widest first.
_BANDS = ((0.05, 0.95), (0.1, 0.9), (0.25, 0.75))


def draw_fan(
    ax: Any, history: np.ndarray, dates: np.ndarray, quantiles: dict[float, np.ndarray]
) -> None:
    """Draw a history and its forecast as bands around the median.

    Args:
        ax: Matplotlib axes.
        history: Raw values, ``<float64>[steps]``.
        dates: ``<datetime64>[steps + horizon]``.
        quantiles: Raw values ``<float64>[horizon]`` by level.
    """
    count = len(history)
    ax.plot(dates[:count], history, color=plotting.GREY, lw=1)
    levels = sorted(quantiles)
    future = dates[count - 1 :]
    for level in levels[: len(levels) // 2]:
        if (other := round(1 - level, 9)) in quantiles:
            low, high = (np.concatenate([history[-1:], quantiles[q]]) for q in (level, other))
            ax.fill_between(future, low, high, color=plotting.BLUE, alpha=0.18, lw=0)
    ax.plot(future, np.concatenate([history[-1:], quantiles[0.5]]), color=plotting.BLUE, lw=1.5)
    ax.tick_params(axis="x", rotation=30)


def fans(truth: Truth, model: Predictive) -> Figure:
    """Plot the last forecast of up to six series, with the observed values."""
    shown = _last_of_each(truth)
    figure, axes = _new_panels(len(shown))
    levels = sorted({q for band in _BANDS for q in band} | {0.5})
    quantiles = truth.raw(model.quantiles(levels))
    observed = truth.raw(truth.changes)
    for ax, window in zip(axes, shown, strict=True):
        # The last values of consecutive windows are the history.
        mine = np.flatnonzero(truth.series == truth.series[window])[-_HISTORY:]
        history = truth.last[mine]
        steps = np.arange(-len(history) + 1, observed.shape[1] + 1)
        draw_fan(ax, history, steps, {q: quantiles[window, :, i] for i, q in enumerate(levels)})
        ax.plot(steps[len(history) :], observed[window], color=plotting.ORANGE, lw=1.2)
        ax.set_title(truth.names[truth.series[window]], fontsize=9)
    figure.suptitle("Last forecasts (50, 80 and 90 %) and observed values (orange)", fontsize=10)
    return figure


def chart(series: Sequence[dict[str, Any]]) -> Figure:
    """Plot forecasts as fan charts.

    Args:
        series: The results of `prediction.forecast_batch`.
    """
    shown = series[:_MAX_PANELS]
    figure, axes = _new_panels(len(shown))
    for ax, forecast in zip(axes, shown, strict=True):
        texts = [*forecast["history"]["dates"], *forecast["dates"]]
        dates = np.array([datetime.fromisoformat(d).replace(tzinfo=None) for d in texts])
        quantiles = {float(q): np.array(v) for q, v in forecast["quantiles"].items()}
        draw_fan(ax, np.array(forecast["history"]["values"]), dates, quantiles)
        ax.set_title(forecast["series"], fontsize=9)
    return figure


def coverage(truth: Truth, model: Predictive) -> Figure:
    """Plot the coverage of central intervals against the number of steps ahead."""
    figure, ax = plotting.new_figure()
    steps = np.arange(1, truth.changes.shape[1] + 1)
    for low, high in _BANDS:
        bounds = model.quantiles([low, high])
        covered = (truth.changes >= bounds[..., 0]) & (truth.changes <= bounds[..., 1])
        ax.plot(steps, covered.mean(axis=0), "o-", ms=3, color=plotting.BLUE)
        ax.axhline(high - low, color=plotting.GREY, lw=1, ls="--")
        ax.annotate(f"{high - low:.0%}", (steps[-1], high - low), color=plotting.GREY)
    ax.set(xlabel="steps ahead", ylabel="coverage", ylim=(0, 1), title="Coverage of intervals")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return figure


def baselines(crps: dict[str, np.ndarray], absolute: dict[str, np.ndarray]) -> Figure:
    """Plot errors relative to the last value, against the number of steps ahead.

    Args:
        crps: CRPS by step, ``<float64>[steps]``, of the model and of each baseline.
        absolute: Absolute error by step, ``<float64>[steps]``.
    """
    figure, axes = plotting.new_figure(12.0, 4.2, 2)
    for ax, errors, name in zip(axes, (crps, absolute), ("CRPS", "absolute error"), strict=True):
        reference = errors["last_value"]
        for forecast, by_step in errors.items():
            ratio = by_step / np.maximum(reference, 1e-12)
            ours = {"color": plotting.BLUE, "lw": 2.2, "zorder": 3}
            style = ours if forecast == "model" else {"lw": 1}
            label = forecast.replace("_", " ")
            ax.plot(np.arange(1, len(ratio) + 1), ratio, "o-", ms=3, label=label, **style)
        top = np.median([np.max(v / np.maximum(reference, 1e-12)) for v in errors.values()])
        ax.set(
            xlabel="steps ahead", title=f"{name} relative to the last value",
            ylim=(None, max(1.1, 1.15 * float(top))),
        )  # fmt: skip
        ax.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    return figure


def pit(ranks: np.ndarray, bins: int = 20) -> Figure:
    """Plot the probability integral transform, which is uniform for calibrated forecasts.

    Args:
        ranks: F(observed value) of each window, ``<float64>[windows]``.
        bins: Number of bins.
    """
    figure, ax = plotting.new_figure(5.2, 3.6)
    ax.hist(ranks, bins=np.linspace(0, 1, bins + 1), density=True, color=plotting.BLUE, alpha=0.8)
    ax.axhline(1, color=plotting.GREY, lw=1, ls="--")
    ax.set(xlabel="F(observed value), next step", ylabel="density")
    ax.set_title("Probability integral transform")
    return figure


def walk_forward(truth: Truth, model: Predictive) -> Figure:
    """Plot the next change at every origin of up to six series, with its forecast intervals."""
    shown = _last_of_each(truth)
    figure, axes = _new_panels(len(shown))
    bounds = model.quantiles([q for band in _BANDS[:2] for q in band])[:, 0]
    for ax, window in zip(axes, shown, strict=True):
        mine = np.flatnonzero(truth.series == truth.series[window])[-250:]
        dates = truth.times[mine].astype("datetime64[us]")
        for i in (0, 2):
            ax.fill_between(
                dates, bounds[mine, i], bounds[mine, i + 1], color=plotting.BLUE, alpha=0.2, lw=0
            )
        ax.plot(dates, truth.changes[mine, 0], ".", ms=2.5, color=plotting.ORANGE)
        ax.set_title(truth.names[truth.series[window]], fontsize=9)
        ax.tick_params(axis="x", rotation=30)
    figure.suptitle(
        "Changes, with their 80 and 90 % forecast intervals one step ahead", fontsize=10
    )
    return figure


def _new_panels(count: int) -> tuple[Figure, list[Any]]:
    """Return a figure with ``count`` panels and their axes."""
    columns = min(max(count, 1), 3)
    rows = -(-max(count, 1) // columns)
    # A single panel must be as wide as its title.
    width = 7.5 if columns == 1 else 4.0 * columns + 0.6
    figure, _ = plotting.new_figure(width, 2.7 * rows + 0.9, columns)
    figure.clear()
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=7)
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, list(axes[:count])


def _last_of_each(truth: Truth) -> list[int]:
    """Return the last window of each of the first six series."""
    last = {int(s): i for i, s in enumerate(truth.series)}
    return list(last.values())[:_MAX_PANELS]
