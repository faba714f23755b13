"""Pictures that several tasks draw. Nothing is shown on a screen: figures are files."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.engine.core.files import write_bytes

#: Inches: more classes than fit are drawn smaller.
_LARGEST = 18.0
BLUE, ORANGE, GREY = "#1f5fa8", "#d9711c", "#8a8a8a"


def new_figure(width: float = 6.4, height: float = 4.2, columns: int = 1) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    for ax in np.atleast_1d(axes):
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    write_bytes(path, lambda file: figure.savefig(file, format="png", dpi=120))


def learning_curves(history: Sequence[dict[str, float]], title: str) -> Figure:
    """Each measured quantity over epochs, training against validation."""
    names = [n for n in history[0] if f"val_{n}" in history[0]]
    figure, axes = new_figure(4.6 * len(names), 3.6, len(names))
    epochs = np.arange(1, len(history) + 1)
    for ax, name in zip(np.atleast_1d(axes), names, strict=True):
        ax.plot(epochs, [r[name] for r in history], "o-", color=GREY, ms=3, label="training")
        ax.plot(
            epochs, [r[f"val_{name}"] for r in history], "o-", color=BLUE, ms=3, label="validation"
        )
        ax.set(xlabel="epoch", title=name.replace("_", " "))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(frameon=False)
    figure.suptitle(title)
    return figure


def attention_map(weights: np.ndarray, inputs: Sequence[str], outputs: Sequence[str]) -> Figure:
    """What each word of the answer (down) looked at (across): its parts together.

    Args:
        weights: ``<float>[outputs, inputs]``.
        inputs, outputs: tokens; a word begins at one with a space before it.
    """
    across, of_input = _words(inputs)
    down, of_output = _words(outputs)
    sums = np.zeros((len(down), len(across)))
    np.add.at(sums, np.ix_(of_output, of_input), weights)
    sums /= np.maximum(np.bincount(of_output, minlength=len(down)), 1)[:, None]
    width, height = (min(2.0 + 0.5 * n, _LARGEST) for n in (len(across), len(down)))
    figure, ax = new_figure(width, height)
    ax.imshow(sums, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    style: dict[str, Any] = {"parse_math": False, "fontsize": 10 if len(across) <= 30 else 6}
    ax.set_xticks(range(len(across)), across, rotation=90, **style)
    ax.set_yticks(range(len(down)), down, **style)
    ax.xaxis.tick_top()
    return figure


def _words(tokens: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Tokens put together as words, and which word each of them belongs to."""
    begins = np.array([i == 0 or t.startswith(" ") or not t for i, t in enumerate(tokens)], int)
    which = np.cumsum(begins) - 1 if len(tokens) else np.zeros(0, int)
    words = [""] * (int(which.max(initial=-1)) + 1)
    for token, word in zip(tokens, which, strict=True):
        words[word] += token.strip() if token else "end"
    return words, which


def confusion_matrix(matrix: np.ndarray, labels: Sequence[str]) -> Figure:
    """True class down, predicted class across; colour is the share of the true class."""
    size = min(max(4.0, 1.0 + 0.55 * len(labels)), _LARGEST)
    figure, ax = new_figure(size + 0.8, size)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= 20:
        for (i, j), n in np.ndenumerate(matrix):
            text = f"{n:,}\n{share[i, j]:.1%}" if len(labels) <= 6 else f"{n:,}"
            ax.text(j, i, text, ha="center", va="center", color="w" if share[i, j] > 0.55 else "k")
    # So many names as are legible; a name is not a formula, whatever signs are in it.
    ticks = range(0, len(labels), 1 + len(labels) // 100)
    names = [labels[i] if len(labels[i]) <= 30 else labels[i][:29] + "…" for i in ticks]
    style: dict[str, Any] = {"parse_math": False, "fontsize": 10 if len(labels) <= 40 else 6}
    ax.set_xticks(ticks, names, rotation=0 if len(labels) <= 4 else 90, **style)
    ax.set_yticks(ticks, names, **style)
    ax.set(xlabel="predicted", ylabel="true", title="Confusion matrix")
    return figure


def reliability_diagram(confidence: np.ndarray, correct: np.ndarray, *, bins: int = 10) -> Figure:
    """How often a prediction made with some confidence is right."""
    figure, ax = new_figure(4.8, 4.6)
    which = _bins(confidence, bins)
    filled = np.unique(which)
    x = [confidence[which == b].mean() for b in filled]
    y = [correct[which == b].mean() for b in filled]
    n = np.array([(which == b).sum() for b in filled])
    ax.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", label="perfectly calibrated")
    ax.bar(
        (filled + 0.5) / bins,
        n / n.sum(),
        width=1 / bins,
        color=BLUE,
        alpha=0.15,
        label="share of predictions",
    )
    ax.plot(x, y, "o-", color=BLUE, label="model")
    error = expected_calibration_error(confidence, correct, bins=bins)
    ax.set(
        xlabel="confidence", ylabel="share correct", xlim=(0, 1), ylim=(0, 1),
        title=f"Reliability (calibration error {error:.3f})",
    )  # fmt: skip
    ax.legend(frameon=False, loc="upper left")
    return figure


def expected_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, *, bins: int = 10
) -> float:
    """Mean over bins of |mean confidence − share correct|, weighted by bin size (ECE)."""
    which = _bins(confidence, bins)
    gaps = [
        (which == b).mean() * abs(confidence[which == b].mean() - correct[which == b].mean())
        for b in np.unique(which)
    ]
    return float(math.fsum(gaps))


def _bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    which: np.ndarray = np.minimum((confidence * bins).astype(int), bins - 1)
    return which


def image_grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """Places for pictures, without ticks: ``rows · columns`` of so many inches each."""
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        # Not with its axis off: the layout would leave no room for titles of several lines.
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure, axes


def wrap(text: str, width: int, lines: int = 3) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))
