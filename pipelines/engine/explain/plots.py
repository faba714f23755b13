"""Draw explanations: one subfigure per segment, with its steps along the x-axis."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pipelines.engine.core import plotting
from pipelines.engine.explain.explanation import (
    SHOWN_UNITS,
    Attention,
    Explanation,
    LayerTrace,
    Segment,
)

#: The most steps drawn; of a longer segment, those with the most changes.
STEPS = 60
_COLOURS = (plotting.BLUE, plotting.ORANGE, "#2e7d4f", "#7a4fa0", plotting.GREY, "#9c2f2f")
#: The most attention positions that are labelled, and the most characters of a label.
_POSITION_LABELS, _LABEL_LENGTH = 40, 14
_VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥"}

#: Height in inches, and a function that draws into axes.
Panel = tuple[float, Callable[[Any], None]]


def draw(explanation: Explanation) -> Figure:
    """Draw each segment: the evolving answer, attention, and for every layer the mean gates and
    the units that change most."""
    rows = []
    for segment in explanation.segments:
        layers = segment.layers
        start = busiest(segment, layers)
        rows.append((segment, start, _panels(segment, layers, slice(start, start + STEPS))))
    steps = max(min(len(segment.tokens), STEPS) for segment in explanation.segments)
    heights = [sum(height for height, _ in panels) + 1.3 for _, _, panels in rows]
    width = min(max(6.5, 2.6 + 0.24 * steps), 17.0)
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    subfigures = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for subfigure, (segment, start, panels) in zip(subfigures, rows, strict=True):
        _draw_segment(subfigure, segment, start, panels)
    return figure


def _panels(segment: Segment, layers: list[LayerTrace], window: slice) -> list[Panel]:
    panels: list[Panel] = []
    if segment.curves:
        panels.append((1.7, lambda ax: _draw_curves(ax, segment, window)))
    if segment.attention is not None:
        count = len(segment.attention.positions)
        height = min(0.4 + 0.17 * count, 4.0) if count else 0.9
        panels.append(
            (height, partial(_draw_attention, attention=segment.attention, window=window))
        )
    for layer in layers:
        means = layer.means()
        height = 0.35 + 0.21 * len(means)
        panels.append((height, partial(_draw_means, layer=layer, means=means, window=window)))
        units = layer.units_by_change()[:SHOWN_UNITS]
        height = 0.35 + 0.17 * len(units)
        panels.append((height, partial(_draw_units, layer=layer, units=units, window=window)))
    return panels


def _draw_segment(subfigure: Any, segment: Segment, start: int, panels: list[Panel]) -> None:
    tokens = [label(t) for t in segment.tokens[start : start + STEPS]]
    steps = ""
    if len(segment.tokens) > STEPS:
        steps = f", steps {start + 1} to {start + len(tokens)} of {len(segment.tokens)}"
    subfigure.suptitle(f"The model {segment.name}{steps}", fontsize=10, x=0.01, ha="left")
    if not panels:
        return
    heights = [height for height, _ in panels]
    axes = subfigure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[
        :, 0
    ]
    for ax, (_, draw_panel) in zip(axes, panels, strict=True):
        ax.spines[:].set_visible(False)
        draw_panel(ax)
        ax.tick_params(length=0, labelsize=8)
    size = 8 if len(tokens) <= 40 else 7
    axes[-1].set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=size, parse_math=False)
    axes[-1].set_xlim(-0.5, len(tokens) - 0.5)


def busiest(segment: Segment, layers: list[LayerTrace]) -> int:
    """The start of the `STEPS` steps in which the answer (or else the state) changes most."""
    count = len(segment.tokens)
    if count <= STEPS:
        return 0
    if segment.curves:
        curves = np.nan_to_num(np.stack(list(segment.curves.values())))
        changes = np.abs(np.diff(curves, prepend=curves[:, :1])).sum(axis=0)
    elif layers:
        changes = np.abs(layers[0].state_changes()).mean(axis=1)
    else:
        return 0
    total = np.concatenate([[0.0], np.cumsum(changes)])
    return int(np.argmax(total[STEPS:] - total[:-STEPS]))


def label(token: str) -> str:
    """Shorten a token, and make its white space visible."""
    short = token.strip(" ") or token
    short = "".join(_VISIBLE.get(c, c) for c in short)
    return short if len(short) <= _LABEL_LENGTH else short[: _LABEL_LENGTH - 1] + "…"


def _draw_curves(ax: Any, segment: Segment, window: slice) -> None:
    for colour, (name, values) in zip(_COLOURS, segment.curves.items(), strict=False):
        known = np.flatnonzero(~np.isnan(values[window]))
        ax.plot(known, values[window][known], "o-", ms=2.5, lw=1.3, color=colour, label=name)
    if segment.scale == "probability":
        ax.set_ylim(-0.03, 1.03)
    ax.grid(axis="y", alpha=0.25)
    ax.set_ylabel(segment.scale, fontsize=8)
    legend = ax.legend(frameon=False, fontsize=8, ncols=6, loc="lower left", bbox_to_anchor=(0, 1))
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_attention(ax: Any, attention: Attention, window: slice) -> None:
    """Draw the weights as a heat map; over an image, brighten where they are large."""
    weights = attention.weights[window]
    ax.set_title("attention", fontsize=8, loc="left")
    if attention.grid is None:
        ax.imshow(weights.T, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        positions = [label(p) for p in attention.positions]
        ticks = range(0, len(positions), 1 + len(positions) // _POSITION_LABELS)
        ax.set_yticks(ticks, [positions[i] for i in ticks], parse_math=False)
        return
    with Image.open(io.BytesIO(attention.image)) as image:
        pixels = np.asarray(image.convert("RGB").resize((96, 96)))
    ax.set(yticks=[], ylim=(1, 0))
    for step, weight in enumerate(weights):
        grid = Image.fromarray(weight.reshape(attention.grid) / max(weight.max(), 1e-9))
        light = np.asarray(grid.resize(pixels.shape[1::-1], Image.Resampling.BICUBIC))
        lit = pixels * (0.2 + 0.8 * light.clip(0, 1)[..., None])
        ax.imshow(lit.astype("uint8"), extent=(step - 0.48, step + 0.48, 1, 0), aspect="auto")


def _draw_means(ax: Any, layer: LayerTrace, means: dict[str, np.ndarray], window: slice) -> None:
    """Draw gates from 0 to 1, and magnitudes from 0 to their maximum, which the label gives."""
    rows, names = [], []
    for name, mean in means.items():
        is_gate, largest = name.endswith("_gate"), float(mean.max())
        rows.append(mean if is_gate else mean / (largest or 1.0))
        names.append(name.replace("_", " ") + ("" if is_gate else f" ≤ {largest:.2g}"))
    ax.imshow(
        np.stack(rows)[:, window], cmap="Blues", vmin=0, vmax=1, aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.set_title(f"{layer.title}: means over units, magnitudes for states", fontsize=8, loc="left")


def _draw_units(ax: Any, layer: LayerTrace, units: np.ndarray, window: slice) -> None:
    state = layer.values["hidden_state"][window, units].T
    largest = float(np.abs(state).max()) or 1.0
    ax.imshow(
        state, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest"
    )
    ax.set_yticks(range(len(units)), [f"unit {u}" for u in units])
    ax.set_title(
        f"{layer.title}: units that change most, orange −{largest:.2g} to purple {largest:.2g}",
        fontsize=8, loc="left",
    )  # fmt: skip
