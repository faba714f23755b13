"""An account as pictures: one for each part, its steps across."""

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
from pipelines.engine.explain.explanation import UNITS, Attention, Explanation, LayerTrace, Segment

#: Steps that fit into a picture; of more, those are drawn where most happens.
STEPS = 60
_COLOURS = (plotting.BLUE, plotting.ORANGE, "#2e7d4f", "#7a4fa0", plotting.GREY, "#9c2f2f")
#: Places of attention, and letters of a token, that are named.
_PLACES, _LETTERS = 40, 14
_VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥"}


Panel = tuple[float, Callable[[Any], None]]


def draw(account: Explanation) -> Figure:
    """Of each part the answer as it evolves, what is looked at, and of every layer the means of its
    gates and the units that switch most."""
    parts = []
    for part in account.parts:
        layers = part.layers
        start = busiest(part, layers)
        parts.append((part, start, _panels(part, layers, slice(start, start + STEPS))))
    steps = max(min(len(part.tokens), STEPS) for part in account.parts)
    heights = [sum(height for height, _ in panels) + 1.3 for _, _, panels in parts]
    width = min(max(6.5, 2.6 + 0.24 * steps), 17.0)
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    below = figure.subfigures(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
    for place, (part, start, panels) in zip(below, parts, strict=True):
        _paint(place, part, start, panels)
    return figure


def _panels(part: Segment, layers: list[LayerTrace], shown: slice) -> list[Panel]:
    """Inches, and what draws into axes."""
    panels: list[Panel] = []
    if part.curves:
        panels.append((1.7, lambda ax: _curves(ax, part, shown)))
    if part.attention is not None:
        places = len(part.attention.places)
        height = min(0.4 + 0.17 * places, 4.0) if places else 0.9
        panels.append((height, partial(_attention, looked=part.attention, shown=shown)))
    for layer in layers:
        means = layer.means()
        panels.append(
            (0.35 + 0.21 * len(means), partial(_means, layer=layer, means=means, shown=shown))
        )
        rows = min(UNITS, len(layer.order()))
        panels.append((0.35 + 0.17 * rows, partial(_units, layer=layer, shown=shown)))
    return panels


def _paint(place: Any, part: Segment, start: int, panels: list[Panel]) -> None:
    tokens = [label(t) for t in part.tokens[start : start + STEPS]]
    where = ""
    if len(part.tokens) > STEPS:
        where = f", steps {start + 1} to {start + len(tokens)} of {len(part.tokens)}"
    place.suptitle(f"The model {part.name}{where}", fontsize=10, x=0.01, ha="left")
    if not panels:
        return
    heights = [height for height, _ in panels]
    axes = place.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (_, paint) in zip(axes, panels, strict=True):
        ax.spines[:].set_visible(False)
        paint(ax)
        ax.tick_params(length=0, labelsize=8)
    size = 8 if len(tokens) <= 40 else 7
    axes[-1].set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=size, parse_math=False)
    axes[-1].set_xlim(-0.5, len(tokens) - 0.5)


def busiest(part: Segment, layers: list[LayerTrace]) -> int:
    """The first of the `STEPS` steps in which the answer, or without one the state, moves most."""
    count = len(part.tokens)
    if count <= STEPS:
        return 0
    if part.curves:
        lines = np.nan_to_num(np.stack(list(part.curves.values())))
        moved = np.abs(np.diff(lines, prepend=lines[:, :1])).sum(axis=0)
    elif layers:
        moved = np.abs(layers[0].turns()).mean(axis=1)
    else:
        return 0
    total = np.concatenate([[0.0], np.cumsum(moved)])
    return int(np.argmax(total[STEPS:] - total[:-STEPS]))


def label(token: str) -> str:
    """A token in a few visible letters."""
    short = token.strip(" ") or token
    short = "".join(_VISIBLE.get(c, c) for c in short)
    return short if len(short) <= _LETTERS else short[: _LETTERS - 1] + "…"


def _curves(ax: Any, part: Segment, shown: slice) -> None:
    for colour, (name, values) in zip(_COLOURS, part.curves.items(), strict=False):
        there = np.flatnonzero(~np.isnan(values[shown]))
        ax.plot(there, values[shown][there], "o-", ms=2.5, lw=1.3, color=colour, label=name)
    if part.scale == "probability":
        ax.set_ylim(-0.03, 1.03)
    ax.grid(axis="y", alpha=0.25)
    ax.set_ylabel(part.scale, fontsize=8)
    legend = ax.legend(frameon=False, fontsize=8, ncols=6, loc="lower left", bbox_to_anchor=(0, 1))
    for text in legend.get_texts():
        text.set_parse_math(False)


def _attention(ax: Any, looked: Attention, shown: slice) -> None:
    weights = looked.weights[shown]
    ax.set_title("what is looked at", fontsize=8, loc="left")
    if looked.grid is None:
        ax.imshow(weights.T, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        places = [label(p) for p in looked.places]
        named = range(0, len(places), 1 + len(places) // _PLACES)
        ax.set_yticks(named, [places[i] for i in named], parse_math=False)
        return
    with Image.open(io.BytesIO(looked.picture)) as image:
        picture = np.asarray(image.convert("RGB").resize((96, 96)))
    ax.set(yticks=[], ylim=(1, 0))
    for step, weight in enumerate(weights):
        grid = Image.fromarray(weight.reshape(looked.grid) / max(weight.max(), 1e-9))
        light = np.asarray(grid.resize(picture.shape[1::-1], Image.Resampling.BICUBIC))
        lit = picture * (0.2 + 0.8 * light.clip(0, 1)[..., None])
        ax.imshow(lit.astype("uint8"), extent=(step - 0.48, step + 0.48, 1, 0), aspect="auto")


def _means(ax: Any, layer: LayerTrace, means: dict[str, np.ndarray], shown: slice) -> None:
    """Gates from 0 to 1, sizes up to their largest, which is told."""
    rows, names = [], []
    for name, mean in means.items():
        gate, most = name.endswith("_gate"), float(mean.max())
        rows.append(mean if gate else mean / (most or 1.0))
        names.append(name.replace("_", " ") + ("" if gate else f" ≤ {most:.2g}"))
    ax.imshow(
        np.stack(rows)[:, shown], cmap="Blues", vmin=0, vmax=1, aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.set_title(f"{layer.title}: means over units, of states their size", fontsize=8, loc="left")


def _units(ax: Any, layer: LayerTrace, shown: slice) -> None:
    units = layer.order()[:UNITS]
    state = layer.values["hidden_state"][shown, units].T
    most = float(np.abs(state).max()) or 1.0
    ax.imshow(state, cmap="PuOr", vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
    ax.set_yticks(range(len(units)), [f"unit {u}" for u in units])
    ax.set_title(
        f"{layer.title}: units that switch most, orange −{most:.2g} to purple {most:.2g}",
        fontsize=8, loc="left",
    )  # fmt: skip
