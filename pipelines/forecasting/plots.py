"""Pictures of forecasts."""

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

#: Panels of small multiples, and steps of history in a fan.
_PANELS, _BEFORE = 6, 60
#: Central intervals that are drawn, widest first.
_BANDS = ((0.05, 0.95), (0.1, 0.9), (0.25, 0.75))


def fan(ax: Any, before: np.ndarray, dates: np.ndarray, quantiles: dict[float, np.ndarray]) -> None:
    """History, and the forecast as bands around its median.

    Args:
        before: ``<float>[steps]``, raw.
        dates: ``<datetime64>[steps + horizon]``.
        quantiles: ``<float>[horizon]`` raw, by level.
    """
    count = len(before)
    ax.plot(dates[:count], before, color=plotting.GREY, lw=1)
    levels = sorted(quantiles)
    ahead = dates[count - 1 :]
    for level in levels[: len(levels) // 2]:
        if (other := round(1 - level, 9)) in quantiles:
            low, high = (np.concatenate([before[-1:], quantiles[q]]) for q in (level, other))
            ax.fill_between(ahead, low, high, color=plotting.BLUE, alpha=0.18, lw=0)
    ax.plot(ahead, np.concatenate([before[-1:], quantiles[0.5]]), color=plotting.BLUE, lw=1.5)
    ax.tick_params(axis="x", rotation=30)


def fans(truth: Truth, model: Predictive) -> Figure:
    """The last forecast of a few series, and what came."""
    shown = _last_of_each(truth)
    figure, axes = _multiples(len(shown))
    levels = sorted({q for band in _BANDS for q in band} | {0.5})
    quantiles = truth.raw(model.quantiles(levels))
    came = truth.raw(truth.changes)
    for ax, window in zip(axes, shown, strict=True):
        # A window's last value is the one that the next window finds already known.
        mine = np.flatnonzero(truth.series == truth.series[window])[-_BEFORE:]
        before = truth.last[mine]
        steps = np.arange(-len(before) + 1, came.shape[1] + 1)
        fan(ax, before, steps, {q: quantiles[window, :, i] for i, q in enumerate(levels)})
        ax.plot(steps[len(before) :], came[window], color=plotting.ORANGE, lw=1.2)
        ax.set_title(truth.names[truth.series[window]], fontsize=9)
    figure.suptitle("The last forecast (50, 80 and 90 %), and in orange what came", fontsize=10)
    return figure


def chart(series: Sequence[dict[str, Any]]) -> Figure:
    """The forecast of each series of a prediction, as `predict` gives it."""
    shown = series[:_PANELS]
    figure, axes = _multiples(len(shown))
    for ax, one in zip(axes, shown, strict=True):
        written = [*one["history"]["dates"], *one["dates"]]
        dates = np.array([datetime.fromisoformat(d).replace(tzinfo=None) for d in written])
        quantiles = {float(q): np.array(v) for q, v in one["quantiles"].items()}
        fan(ax, np.array(one["history"]["values"]), dates, quantiles)
        ax.set_title(one["series"], fontsize=9)
    return figure


def coverage(truth: Truth, model: Predictive) -> Figure:
    """How often what came was inside each interval, by how far ahead."""
    figure, ax = plotting.new_figure()
    steps = np.arange(1, truth.changes.shape[1] + 1)
    for low, high in _BANDS:
        bounds = model.quantiles([low, high])
        inside = (truth.changes >= bounds[..., 0]) & (truth.changes <= bounds[..., 1])
        ax.plot(steps, inside.mean(axis=0), "o-", ms=3, color=plotting.BLUE)
        ax.axhline(high - low, color=plotting.GREY, lw=1, ls="--")
        ax.annotate(f"{high - low:.0%}", (steps[-1], high - low), color=plotting.GREY)
    ax.set(xlabel="steps ahead", ylabel="share inside", ylim=(0, 1), title="Coverage of intervals")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return figure


def baselines(crps: dict[str, np.ndarray], absolute: dict[str, np.ndarray]) -> Figure:
    """CRPS and absolute error of the model and of each baseline, by how far ahead."""
    figure, axes = plotting.new_figure(12.0, 4.2, 2)
    for ax, found, name in zip(axes, (crps, absolute), ("CRPS", "absolute error"), strict=True):
        reference = found["last_value"]
        for forecast, by_step in found.items():
            ratio = by_step / np.maximum(reference, 1e-12)
            ours = {"color": plotting.BLUE, "lw": 2.2, "zorder": 3}
            style = ours if forecast == "model" else {"lw": 1}
            label = forecast.replace("_", " ")
            ax.plot(np.arange(1, len(ratio) + 1), ratio, "o-", ms=3, label=label, **style)
        top = np.median([np.max(v / np.maximum(reference, 1e-12)) for v in found.values()])
        ax.set(
            xlabel="steps ahead", title=f"{name} over that of the last value",
            ylim=(None, max(1.1, 1.15 * float(top))),
        )  # fmt: skip
        ax.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    return figure


def pit(ranks: np.ndarray, bins: int = 20) -> Figure:
    """Where in its distribution each truth lies: even, if the distributions are right."""
    figure, ax = plotting.new_figure(5.2, 3.6)
    ax.hist(ranks, bins=np.linspace(0, 1, bins + 1), density=True, color=plotting.BLUE, alpha=0.8)
    ax.axhline(1, color=plotting.GREY, lw=1, ls="--")
    ax.set(xlabel="F(what came), next step", ylabel="density")
    ax.set_title("Probability integral transform")
    return figure


def walk_forward(truth: Truth, model: Predictive) -> Figure:
    """Each next change of a few series, inside what was forecast the step before."""
    shown = _last_of_each(truth)
    figure, axes = _multiples(len(shown))
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
        "Each next change, in the 80 and 90 % intervals of the step before", fontsize=10
    )
    return figure


def _multiples(count: int) -> tuple[Figure, list[Any]]:
    columns = min(max(count, 1), 3)
    rows = -(-max(count, 1) // columns)
    # One panel is as wide as its title.
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
    """The last window of a few series."""
    last = {int(s): i for i, s in enumerate(truth.series)}
    return list(last.values())[:_PANELS]
