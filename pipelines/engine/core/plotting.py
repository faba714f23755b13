"""Matplotlib figures shared by the pipelines, drawn without a display."""

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

#: Largest width and height of a figure in inches.
_MAX_SIZE = 18.0
BLUE, ORANGE, GREY = "#1f5fa8", "#d9711c", "#8a8a8a"


def new_figure(width: float = 6.4, height: float = 4.2, columns: int = 1) -> tuple[Figure, Any]:
    """Create a figure and its axes.

    Args:
        width, height: size of the figure in inches.
        columns: number of axes, side by side.

    Returns:
        The figure, and its axes or an array of them, as ``matplotlib.pyplot.subplots`` does.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    for ax in np.atleast_1d(axes):
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file."""
    write_bytes(path, lambda file: figure.savefig(file, format="png", dpi=120))


def learning_curves(history: Sequence[dict[str, float]], title: str) -> Figure:
    """Plot each metric over the epochs, for training and validation.

    Args:
        history: the metrics of each epoch; those of validation begin with ``val_``.
        title: title of the figure.
    """
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
    """Plot attention weights between words: output words down, input words across.

    The weight of a word is the sum over its input tokens and the mean over its output tokens.

    Args:
        weights: ``<float>[outputs, inputs]``.
        inputs, outputs: tokens; one that begins with a space begins a word, and an empty one is
            the end of the text.
    """
    columns, column_of = _words(inputs)
    rows, row_of = _words(outputs)
    by_word = np.zeros((len(rows), len(columns)))
    np.add.at(by_word, np.ix_(row_of, column_of), weights)
    by_word /= np.maximum(np.bincount(row_of, minlength=len(rows)), 1)[:, None]
    width, height = (min(2.0 + 0.5 * n, _MAX_SIZE) for n in (len(columns), len(rows)))
    figure, ax = new_figure(width, height)
    ax.imshow(by_word, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    style: dict[str, Any] = {"parse_math": False, "fontsize": 10 if len(columns) <= 30 else 6}
    ax.set_xticks(range(len(columns)), columns, rotation=90, **style)
    ax.set_yticks(range(len(rows)), rows, **style)
    ax.xaxis.tick_top()
    return figure


def _words(tokens: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Join tokens to words; also return the index of each token's word."""
    begins = np.array([i == 0 or t.startswith(" ") or not t for i, t in enumerate(tokens)], int)
    word_of = np.cumsum(begins) - 1 if len(tokens) else np.zeros(0, int)
    words = [""] * (int(word_of.max(initial=-1)) + 1)
    for token, word in zip(tokens, word_of, strict=True):
        words[word] += token.strip() if token else "end"
    return words, word_of


def confusion_matrix(matrix: np.ndarray, labels: Sequence[str]) -> Figure:
    """Plot a confusion matrix: true classes down, predicted classes across.

    The colour is the fraction of the true class.

    Args:
        matrix: counts, ``<int>[classes, classes]``.
        labels: names of the classes.
    """
    size = min(max(4.0, 1.0 + 0.55 * len(labels)), _MAX_SIZE)
    figure, ax = new_figure(size + 0.8, size)
    fraction = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    ax.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= 20:
        for (i, j), n in np.ndenumerate(matrix):
            text = f"{n:,}\n{fraction[i, j]:.1%}" if len(labels) <= 6 else f"{n:,}"
            ax.text(
                j, i, text, ha="center", va="center", color="w" if fraction[i, j] > 0.55 else "k"
            )
    # Only as many names as are legible, and none parsed as a formula.
    ticks = range(0, len(labels), 1 + len(labels) // 100)
    names = [labels[i] if len(labels[i]) <= 30 else labels[i][:29] + "…" for i in ticks]
    style: dict[str, Any] = {"parse_math": False, "fontsize": 10 if len(labels) <= 40 else 6}
    ax.set_xticks(ticks, names, rotation=0 if len(labels) <= 4 else 90, **style)
    ax.set_yticks(ticks, names, **style)
    ax.set(xlabel="predicted", ylabel="true", title="Confusion matrix")
    return figure


def reliability_diagram(confidence: np.ndarray, correct: np.ndarray, *, bins: int = 10) -> Figure:
    """Plot accuracy against confidence, with the expected calibration error.

    Args:
        confidence: probability of the predicted class, ``<float>[examples]``.
        correct: whether the prediction is correct, ``<bool>[examples]``.
        bins: number of bins of equal width.
    """
    figure, ax = new_figure(4.8, 4.6)
    bin_of = _bins(confidence, bins)
    filled = np.unique(bin_of)
    x = [confidence[bin_of == b].mean() for b in filled]
    y = [correct[bin_of == b].mean() for b in filled]
    n = np.array([(bin_of == b).sum() for b in filled])
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
    """Return the mean over bins of |mean confidence − accuracy|, weighted by bin size (ECE).

    Args:
        confidence: probability of the predicted class, ``<float>[examples]``.
        correct: whether the prediction is correct, ``<bool>[examples]``.
        bins: number of bins of equal width.
    """
    bin_of = _bins(confidence, bins)
    gaps = [
        (bin_of == b).mean() * abs(confidence[bin_of == b].mean() - correct[bin_of == b].mean())
        for b in np.unique(bin_of)
    ]
    return float(math.fsum(gaps))


def _bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    bin_of: np.ndarray = np.minimum((confidence * bins).astype(int), bins - 1)
    return bin_of


def image_grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """Create a figure with a grid of axes without ticks, for images.

    Args:
        rows, columns: size of the grid.
        width, height: size of one of the axes in inches.

    Returns:
        The figure, and its axes row by row.
    """
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        # With axis("off"), the layout would leave no room for titles of several lines.
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure, axes


def wrap(text: str, width: int, lines: int = 3) -> str:
    """Wrap a text to at most ``lines`` lines of ``width`` characters, ending in … if cut."""
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))
