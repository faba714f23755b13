"""Figures of an evaluation that only classifiers have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pipelines.engine.core.plotting import BLUE, GREY, ORANGE, new_figure
from pipelines.sentiment.decision import CoverageCurve

#: Classes shown at most, those with the lowest F1.
_SHOWN_CLASSES = 40
#: Thresholds that are marked on the curve.
_MARKED = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def coverage(curve: CoverageCurve, threshold: float | None = None) -> Figure:
    """Plot the accuracy of the texts that get a label against their share.

    Args:
        curve: The curve.
        threshold: The threshold in use, if there is one.
    """
    figure, ax = new_figure(5.2, 4.2)
    ax.plot(curve.coverage, curve.accuracy, color=BLUE, lw=1.5)
    for mark in _MARKED:
        share, accuracy = curve.at(mark)
        if 0 < share < 1:
            ax.plot(share, accuracy, "o", color=BLUE, ms=4)
            ax.annotate(
                f"{mark:g}", (share, accuracy), xytext=(3, 5), textcoords="offset points",
                fontsize=8, color=GREY,
            )  # fmt: skip
    if threshold is not None and curve.at(threshold)[0]:
        ax.plot(*curve.at(threshold), "D", color=ORANGE, label=f"threshold {threshold:.3g}")
        ax.legend(frameon=False, loc="lower left")
    ax.set(
        xlabel="share of the texts that get a label", ylabel="share correct of these",
        title="Coverage and accuracy by threshold", xlim=(0, 1.02),
    )  # fmt: skip
    return figure


def classes(
    labels: Sequence[str],
    precision: np.ndarray,
    recall: np.ndarray,
    f1: np.ndarray,
    support: np.ndarray,
) -> Figure:
    """Plot precision, recall and F1 of each class, the highest F1 at the top.

    Args:
        labels: Names of the classes.
        precision, recall, f1: ``<float>[classes]``.
        support: Texts of each class, ``<int>[classes]``.
    """
    shown = np.argsort(f1, kind="stable")[:_SHOWN_CLASSES]
    figure, ax = new_figure(6.4, 1.6 + 0.28 * len(shown))
    rows = np.arange(len(shown))
    ax.hlines(rows, 0, 1, color=GREY, lw=0.4)
    for name, values, colour, mark in (
        ("precision", precision, ORANGE, "<"),
        ("recall", recall, GREY, ">"),
        ("F1", f1, BLUE, "o"),
    ):
        ax.plot(values[shown], rows, mark, color=colour, ms=6, label=name)
    names = [labels[i] if len(labels[i]) <= 30 else labels[i][:29] + "…" for i in shown]
    ticks = [f"{name} ({support[i]:,})" for name, i in zip(names, shown, strict=True)]
    ax.set_yticks(rows, ticks, parse_math=False)
    left_out = len(labels) - len(shown)
    ax.set(
        xlim=(-0.02, 1.02), ylim=(-0.7, len(shown) - 0.3),
        title="Classes (texts of each)" + (f"; {left_out:,} better ones" if left_out else ""),
    )  # fmt: skip
    figure.legend(
        *ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
    )
    return figure
