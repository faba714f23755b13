"""A page for each cell: its equations, a drawing, and an example worked out by hand.

``python -m pipelines.lab.cells`` writes them to ``docs/cells/``.
"""

from __future__ import annotations

import inspect
import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layers import GRU, LSTM, Bidirectional, SimpleRNN
from pipelines.engine.core.files import write_text
from pipelines.lab.svg import GATE, INK, SOFT, STATE, Drawing, above, below, left, right, rim

FOLDER = Path(__file__).parents[2] / "docs" / "cells"

#: What the examples read, one number a step.
INPUTS = (1.0, -2.0, 0.5)
#: One unit and one input: each block of weights is a number, in Keras's order of the gates.
WEIGHTS: dict[str, dict[str, list[float]]] = {
    "rnn": {"U": [0.8], "W": [0.5], "b": [0.1]},
    "lstm": {"U": [1.0, 0.5, 0.8, 0.6], "W": [0.4, -0.3, 0.5, 0.2], "b": [0.0, 1.0, 0.1, 0.0]},
    "gru": {
        "U": [0.5, 1.0, 0.8], "W": [-0.4, 0.6, 0.5], "b": [0.5, 0.0, 0.1],
        "b_recurrent": [0.0, 0.0, 0.2],
    },
}  # fmt: skip


class Working(NamedTuple):
    """An example: what was computed, and how it is written down.

    Attributes:
        values: by name the number of each step.
        lines: of each step, the equations with the numbers put in.
    """

    values: dict[str, list[float]]
    lines: list[list[str]]


def layer_of(name: str) -> Any:
    """The layer of an example, with its weights."""
    layer = {"rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}[name](1, return_sequences=True)
    layer.build((None, None, 1))
    given = WEIGHTS[name]
    bias = [given[key] for key in ("b", "b_recurrent") if key in given]
    whole = [[given["U"]], [given["W"]], bias if len(bias) > 1 else bias[0]]
    layer.set_weights([np.array(w, "float32") for w in whole])
    return layer


# -- the arithmetic --------------------------------------------------------------------------


def _sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def _n(value: float) -> str:
    """A number as it stands in a sum: with brackets where it is negative."""
    short = f"{value:.4f}".rstrip("0").rstrip(".") if value == round(value, 4) else f"{value:.4f}"
    short = short.replace("-", "−")
    return f"({short})" if value < 0 else short


def _bare(value: float) -> str:
    return _n(value).strip("()")


def _gate(
    name: str, t: int, function: str, u: float, x: float, w: float, h: float, b: float
) -> tuple[float, str]:
    """One gate: its value, and the line that says how."""
    a = u * x + w * h + b
    value = _sigmoid(a) if function == "σ" else math.tanh(a)
    line = (
        f"{name}_{t} = {function}({_n(u)} · {_n(x)} + {_n(w)} · {_n(h)} + {_n(b)}) "
        f"= {function}({_bare(a)}) = {_bare(value)}"
    )
    return value, line


def rnn() -> Working:
    (u,), (w,), (b,) = (WEIGHTS["rnn"][k] for k in ("U", "W", "b"))
    h, values, lines = 0.0, list[float](), list[list[str]]()
    for t, x in enumerate(INPUTS, 1):
        h, line = _gate("h", t, "tanh", u, x, w, h, b)
        values.append(h)
        lines.append([line])
    return Working({"hidden_state": values}, lines)


def lstm() -> Working:
    U, W, B = (WEIGHTS["lstm"][k] for k in ("U", "W", "b"))
    names = ("input_gate", "forget_gate", "candidate", "output_gate")
    values: dict[str, list[float]] = {n: [] for n in (*names, "cell_state", "hidden_state")}
    h = c = 0.0
    lines = []
    for t, x in enumerate(INPUTS, 1):
        said, gates = [], {}
        for name, letter, function, u, w, b in zip(
            names, ("i", "f", "g", "o"), ("σ", "σ", "tanh", "σ"), U, W, B, strict=True
        ):
            gates[name], line = _gate(letter, t, function, u, x, w, h, b)
            said.append(line)
        i, f, new, o = (gates[n] for n in names)
        before, c = c, f * c + i * new
        said.append(
            f"c_{t} = f_{t} · c_{t - 1} + i_{t} · g_{t} = {_n(f)} · {_n(before)} + {_n(i)} · "
            f"{_n(new)} = {_bare(c)}"
        )
        h = o * math.tanh(c)
        said.append(f"h_{t} = o_{t} · tanh(c_{t}) = {_n(o)} · {_n(math.tanh(c))} = {_bare(h)}")
        lines.append(said)
        for name, value in {**gates, "cell_state": c, "hidden_state": h}.items():
            values[name].append(value)
    return Working(values, lines)


def gru() -> Working:
    U, W, B, B2 = (WEIGHTS["gru"][k] for k in ("U", "W", "b", "b_recurrent"))
    values: dict[str, list[float]] = {
        n: [] for n in ("update_gate", "reset_gate", "candidate", "hidden_state")
    }
    h, lines = 0.0, []
    for t, x in enumerate(INPUTS, 1):
        z, of_z = _gate("z", t, "σ", U[0], x, W[0], h, B[0] + B2[0])
        r, of_r = _gate("r", t, "σ", U[1], x, W[1], h, B[1] + B2[1])
        inner = W[2] * h + B2[2]
        a = U[2] * x + B[2] + r * inner
        new = math.tanh(a)
        of_new = (
            f"h̃_{t} = tanh({_n(U[2])} · {_n(x)} + {_n(B[2])} + {_n(r)} · ({_n(W[2])} · {_n(h)} + "
            f"{_n(B2[2])})) = tanh({_bare(a)}) = {_bare(new)}"
        )
        before, h = h, z * h + (1 - z) * new
        of_h = (
            f"h_{t} = z_{t} · h_{t - 1} + (1 − z_{t}) · h̃_{t} = {_n(z)} · {_n(before)} + "
            f"{_n(1 - z)} · {_n(new)} = {_bare(h)}"
        )
        lines.append([of_z, of_r, of_new, of_h])
        for name, value in zip(values, (z, r, new, h), strict=True):
            values[name].append(value)
    return Working(values, lines)


def bidirectional() -> Working:
    """The cell of `rnn` in both directions, with the same weights."""
    (u,), (w,), (b,) = (WEIGHTS["rnn"][k] for k in ("U", "W", "b"))
    ways: dict[str, list[float]] = {}
    said: dict[str, list[str]] = {}
    for way, sign in (("forward", 1), ("backward", -1)):
        h, found, lines = 0.0, list[float](), list[str]()
        for t, x in list(enumerate(INPUTS, 1))[::sign]:
            h, line = _gate("→h" if sign > 0 else "←h", t, "tanh", u, x, w, h, b)
            found.append(h)
            lines.append(line)
        ways[way], said[way] = found[::sign], lines[::sign]
    return Working(ways, [[f, b] for f, b in zip(said["forward"], said["backward"], strict=True)])


# -- the drawings ----------------------------------------------------------------------------


def draw_rnn() -> Drawing:
    it = Drawing(620, 330, "One step of a recurrent layer")
    w, plus, tanh, u, v = (150, 160), (260, 160), (360, 160), (260, 250), (470, 90)
    it.line([(40, 160), left(w)], STATE)
    it.line([right(w), rim(plus, "left")], STATE)
    it.line([(260, 310), below(u)])
    it.line([above(u), rim(plus, "below")])
    it.line([rim(plus, "right"), left(tanh)])
    it.line([right(tanh), (590, 160)], STATE)
    it.line([(470, 160), below(v)])
    it.dot((470, 160), STATE)
    it.line([above(v), (470, 36)])
    for at, name in ((w, "W"), (u, "U"), (v, "V")):
        it.box(at, name, SOFT)
    it.box(tanh, "tanh")
    it.circle(plus, "+")
    it.text((60, 140), "h_t−1", STATE)
    it.text((575, 140), "h_t", STATE)
    it.text((285, 310), "x_t")
    it.text((470, 22), "y_t")
    it.text((290, 128), "+ b", SOFT, size=13)
    return it


def draw_lstm() -> Drawing:
    it = Drawing(780, 440, "One step of an LSTM")
    top, bottom = 80, 350
    f, i, new, o = (200, 260), (310, 260), (420, 260), (530, 260)
    forget, write, add, read, squash = (200, top), (420, 165), (420, top), (640, 260), (640, 165)
    it.line([(40, top), rim(forget, "left")], STATE)
    it.line([rim(forget, "right"), rim(add, "left")], STATE)
    it.line([rim(add, "right"), (750, top)], STATE)
    it.line([(40, bottom), (110, bottom)], STATE, arrow=False)
    it.line([(110, bottom), (530, bottom), below(o)])
    it.line([(110, 425), (110, bottom)], arrow=False)
    it.dot((110, bottom))
    for gate in (f, i, new):
        it.line([(gate[0], bottom), below(gate)])
        it.dot((gate[0], bottom))
    it.line([above(f), rim(forget, "below")], GATE)
    it.line([above(i), (i[0], write[1]), rim(write, "left")], GATE)
    it.line([above(new), rim(write, "below")], GATE)
    it.line([rim(write, "above"), rim(add, "below")], GATE)
    it.line([right(o), rim(read, "left")], GATE)
    it.dot((640, top), STATE)
    it.line([(640, top), above(squash)], STATE)
    it.line([below(squash), rim(read, "above")], STATE)
    it.line([rim(read, "below"), (640, bottom), (750, bottom)], STATE)
    for at, name in ((f, "σ"), (i, "σ"), (new, "tanh"), (o, "σ")):
        it.box(at, name)
    it.box(squash, "tanh", SOFT)
    for at, sign in ((forget, "×"), (write, "×"), (read, "×"), (add, "+")):
        it.circle(at, sign)
    it.text((60, top - 20), "c_t−1", STATE)
    it.text((735, top - 20), "c_t", STATE)
    it.text((60, bottom - 18), "h_t−1", STATE)
    it.text((735, bottom - 18), "h_t", STATE)
    it.text((132, 425), "x_t")
    for at, name in ((f, "f_t"), (i, "i_t"), (new, "g_t"), (o, "o_t")):
        it.text((at[0] + 14, at[1] - 34), name, GATE, anchor="start")
    for x, word in ((200, "forget"), (365, "write"), (640, "read")):
        it.text((x, 30), word, SOFT, size=14)
    return it


def draw_gru() -> Drawing:
    it = Drawing(780, 440, "One step of a GRU")
    top, bottom = 80, 350
    z, r, reset, new = (200, 260), (340, 260), (430, 260), (540, 260)
    keep, less, replace, add = (200, top), (370, 165), (540, 165), (540, top)
    it.line([(40, top), rim(keep, "left")], STATE)
    it.line([rim(keep, "right"), rim(add, "left")], STATE)
    it.line([rim(add, "right"), (750, top)], STATE)
    it.dot((90, top), STATE)
    it.line([(90, top), (90, bottom), (430, bottom), rim(reset, "below")], STATE)
    it.line([(130, 425), (130, 385), (540, 385), below(new)])
    for x, gate in ((190, z), (330, r)):
        it.line([(x, bottom), (x, below(gate)[1])], STATE)
        it.dot((x, bottom), STATE)
        it.line([(x + 20, 385), (x + 20, below(gate)[1])])
        it.dot((x + 20, 385))
    it.line([above(z), rim(keep, "below")], GATE)
    it.dot((200, 165), GATE)
    it.line([(200, 165), rim(less, "left")], GATE)
    it.line([rim(less, "right"), rim(replace, "left")], GATE)
    it.line([right(r), rim(reset, "left")], GATE)
    it.line([rim(reset, "right"), left(new)], GATE)
    it.line([above(new), rim(replace, "below")], GATE)
    it.line([rim(replace, "above"), rim(add, "below")], GATE)
    for at, name in ((z, "σ"), (r, "σ"), (new, "tanh")):
        it.box(at, name)
    for at, sign in ((keep, "×"), (reset, "×"), (replace, "×"), (add, "+")):
        it.circle(at, sign)
    it.circle(less, "1−")
    it.text((60, top - 20), "h_t−1", STATE)
    it.text((735, top - 20), "h_t", STATE)
    it.text((152, 425), "x_t")
    it.text((214, 226), "z_t", GATE, anchor="start")
    it.text((354, 226), "r_t", GATE, anchor="start")
    it.text((554, 226), "h̃_t", GATE, anchor="start")
    it.text((444, 320), "W_h h_t−1 + b′", STATE, size=13, anchor="start")
    it.text((200, 30), "keep", SOFT, size=14)
    it.text((540, 30), "replace", SOFT, size=14)
    return it


def draw_bidirectional() -> Drawing:
    it = Drawing(700, 400, "A sequence read in both directions")
    steps = [140 + 140 * t for t in range(4)]
    forward, backward, join = 270, 170, 85
    for t, x in enumerate(steps, 1):
        it.line([(x - 18, 370), (x - 18, forward + 18)])
        around = [(x - 18, 345), (x + 38, 345), (x + 38, 212), (x + 18, 212)]
        it.line([*around, (x + 18, backward + 18)])
        it.dot((x - 18, 345))
        around = [(x - 18, forward - 18), (x - 18, 228), (x - 38, 228), (x - 38, 127)]
        it.line([*around, (x - 18, 127), (x - 18, join + 18)], STATE)
        it.line([(x + 18, backward - 18), (x + 18, join + 18)], GATE)
        it.line([(x, join - 18), (x, 40)])
        it.text((x - 18, 384), f"x_{t}")
        it.text((x, 24), f"y_{t}")
    for x in [*steps, steps[-1] + 140]:
        it.line([(x - 113, forward), (x - 27, forward)], STATE, arrow=x <= steps[-1])
        it.line([(x - 27, backward), (x - 113, backward)], GATE, arrow=x > steps[0])
    for x in steps:
        it.box((x, forward), "f", STATE)
        it.box((x, backward), "f′", GATE)
        it.box((x, join), "[ ; ]", INK)
    it.text((30, forward - 16), "→h", STATE)
    it.text((670, backward - 16), "←h", GATE)
    return it


# -- the pages -------------------------------------------------------------------------------


class Cell(NamedTuple):
    """What a page says of a cell beside what is computed."""

    title: str
    kind: Any
    paper: str
    draw: Callable[[], Drawing]
    work: Callable[[], Working]
    seen: str
    example: str
    see: str


CELLS = {
    "rnn": Cell(
        "The vanilla recurrent cell",
        SimpleRNN,
        "Elman (1990)",
        draw_rnn,
        rnn,
        "Orange is what has a function, grey a matrix, blue the state that goes from step to step. "
        "The output y_t is not part of the layer: it is a `Dense` on what the layer returns.",
        "One unit, one input a step, h_0 = 0:",
        "All that the cell remembers goes through tanh and W at every step. That is why it "
        "forgets, and why its gradient vanishes or explodes: `make lab` measures both.",
    ),
    "lstm": Cell(
        "Long short-term memory",
        LSTM,
        "Hochreiter & Schmidhuber (1997), forget gate: Gers et al. (2000)",
        draw_lstm,
        lstm,
        "Blue is what goes from step to step, orange the gates and the candidate. Each orange box "
        "reads x_t and h_t−1 through weights of its own; × and + act unit by unit. The cell state "
        "runs along the top: nothing but the forget gate stands in its way.",
        "One unit, one input a step, h_0 = c_0 = 0:",
        "The bias of the forget gate is 1, as Keras begins with: σ(1) = 0.73, so a cell that has "
        "learned nothing keeps most of what it has. At step 2 the input nearly closes the input "
        "gate: c_2 is what the forget gate leaves of c_1, and little more.",
    ),
    "gru": Cell(
        "The gated recurrent unit",
        GRU,
        "Cho et al. (2014)",
        draw_gru,
        gru,
        "Blue is what goes from step to step, orange the gates and the candidate; each orange box "
        "reads x_t (black), and h_t−1. The update gate decides for each unit how much of the old "
        "state stays, and the candidate fills the rest. Drawn with `reset_after=True`, the "
        "default.",
        "One unit, one input a step, h_0 = 0, `reset_after=True`; the two biases of z and of r are "
        "added up:",
        "One gate does the work of the LSTM's input and forget gates: what is not kept is written.",
    ),
    "bidirectional": Cell(
        "Reading in both directions",
        Bidirectional,
        "Schuster & Paliwal (1997)",
        draw_bidirectional,
        bidirectional,
        "Blue reads from the beginning, orange from the end, each with weights of its own. What "
        "both say of a step is joined, so that y_t knows of all of the sequence.",
        "The cell of [rnn.md](rnn.md) forwards, and one with the same weights backwards:",
        "Read the right column from below: ←h_1 has seen all of the input. A forecast cannot use "
        "it, because there is no reading from the future; a review that is there as a whole can.",
    ),
}  # fmt: skip

_LETTERS = {
    "input_gate": "i_t", "forget_gate": "f_t", "output_gate": "o_t", "cell_state": "c_t",
    "update_gate": "z_t", "reset_gate": "r_t", "hidden_state": "h_t",
    "forward": "→h_t", "backward": "←h_t",
}  # fmt: skip


def equations(kind: Any) -> str:
    """The blocks of a layer's docstring that are its equations."""
    text = inspect.getdoc(kind) or ""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", text)
    return "\n\n".join(inspect.cleandoc("\n" + block).rstrip() for block in blocks)


def page(name: str) -> str:
    """The page of a cell, as Markdown."""
    cell = CELLS[name]
    working = cell.work()
    weights = WEIGHTS["rnn" if name == "bidirectional" else name]
    gates = {"rnn": [""], "bidirectional": [""], "lstm": "ifgo", "gru": "zrh"}[name]
    given = [
        ", ".join(
            f"{letter.replace('b_recurrent', 'b′')}{'_' + gate if gate else ''} = {_bare(number)}"
            for gate, number in zip(gates, numbers, strict=True)
        )
        for letter, numbers in weights.items()
    ]
    candidate = "g_t" if name == "lstm" else "h̃_t"
    columns = [{**_LETTERS, "candidate": candidate}[n] for n in working.values]
    table = [
        f"| t | x_t | {' | '.join(columns)} |",
        "|" + "---|" * (2 + len(columns)),
        *(
            f"| {t} | {_bare(x)} | "
            + " | ".join(_minus(f"{v[t - 1]:.4f}") for v in working.values.values())
            + " |"
            for t, x in enumerate(INPUTS, 1)
        ),
    ]
    steps = working.lines if name == "bidirectional" else working.lines[:2]
    worked = "\n\n".join("\n".join(lines) for lines in steps)
    parts = [
        f"# {cell.title}",
        f"`layers.{cell.kind.__name__}`; {cell.paper}. "
        "Written by `python -m pipelines.lab.cells`; a test holds the numbers against the layer.",
        "## Equations",
        f"```\n{equations(cell.kind)}\n```",
        f"![{cell.title}]({name}.svg)",
        cell.seen,
        "## By hand",
        cell.example,
        "```\n" + "\n".join(given) + "\n```",
        f"```\n{worked}\n```",
        "All steps, as the layer gives them:",
        "\n".join(table),
        cell.see,
    ]
    if name != "bidirectional":
        parts += [f"```python\n{_code(name)}\n```", _count(cell.kind)]
    parts.append(
        'On a text of your own, with a trained model: `make explain-sentiment INPUT="…"` '
        "([explain.md](../explain.md))."
    )
    return "\n\n".join(map(_wrapped, parts)) + "\n"


def _wrapped(part: str) -> str:
    if part.startswith(("```", "|", "#", "!")):
        return part
    return textwrap.fill(part, 100, break_long_words=False, break_on_hyphens=False)


def _minus(number: str) -> str:
    return number.replace("-", "−")


def _code(name: str) -> str:
    kind, given = CELLS[name].kind.__name__, WEIGHTS[name]
    bias = given["b"] if "b_recurrent" not in given else [given["b"], given["b_recurrent"]]
    return "\n".join(
        [
            "import numpy as np",
            f"from layers import {kind}",
            "",
            f"layer = {kind}(1, return_sequences=True)",
            "layer.build((None, None, 1))",
            f"weights = [[{given['U']}], [{given['W']}], {bias}]",
            "layer.set_weights([np.array(w) for w in weights])",
            f'x = np.array({list(INPUTS)}, "float32")[None, :, None]',
            "layer.trace(x)  # every gate, candidate and state, by name",
        ]
    )


def _count(kind: Any) -> str:
    layer = kind(64)
    layer.build((None, None, 100))
    shapes = ", ".join(f"{w.name} {'×'.join(map(str, w.shape))}" for w in layer.trainable_weights)
    return f"With 100 inputs and 64 units: {layer.count_params():,} parameters ({shapes})."


def files() -> dict[str, str]:
    """All pages and drawings, by file name."""
    found = {}
    for name, cell in CELLS.items():
        found[f"{name}.md"] = page(name)
        found[f"{name}.svg"] = cell.draw().svg()
    return found


if __name__ == "__main__":
    for name, text in files().items():
        write_text(FOLDER / name, text)
