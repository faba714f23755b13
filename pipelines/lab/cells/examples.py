"""Worked examples: the equations of each cell with numbers, one unit and one input per step."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from layers import GRU, LSTM, SimpleRNN

#: The inputs x_1, x_2, x_3 of all examples.
INPUTS = (1.0, -2.0, 0.5)
#: The weights by cell: one number per gate, in Keras's order of the gates.
WEIGHTS: dict[str, dict[str, list[float]]] = {
    "rnn": {"U": [0.8], "W": [0.5], "b": [0.1]},
    "lstm": {"U": [1.0, 0.5, 0.8, 0.6], "W": [0.4, -0.3, 0.5, 0.2], "b": [0.0, 1.0, 0.1, 0.0]},
    "gru": {
        "U": [0.5, 1.0, 0.8], "W": [-0.4, 0.6, 0.5], "b": [0.5, 0.0, 0.1],
        "b_recurrent": [0.0, 0.0, 0.2],
    },
}  # fmt: skip


class WorkedExample(NamedTuple):
    """A forward pass and its working.

    Attributes:
        values: gates and states by name, one number per step.
        lines: for each step, the equations with the numbers inserted.
    """

    values: dict[str, list[float]]
    lines: list[list[str]]


def example_layer(name: str) -> Any:
    """The layer of an example, with its weights."""
    layers: dict[str, Any] = {"rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}
    layer = layers[name](1, return_sequences=True)
    layer.build((None, None, 1))
    weights = WEIGHTS[name]
    bias = [weights[key] for key in ("b", "b_recurrent") if key in weights]
    arrays = [[weights["U"]], [weights["W"]], bias if len(bias) > 1 else bias[0]]
    layer.set_weights([np.array(a, "float32") for a in arrays])
    return layer


def format_number(value: float) -> str:
    """Format a number with up to four decimals and a typographic minus sign."""
    text = f"{value:.4f}"
    if value == round(value, 4):
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "−")


def format_term(value: float) -> str:
    """Format a number as a term of a formula: a negative one in parentheses."""
    text = format_number(value)
    return f"({text})" if value < 0 else text


def _sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def _gate(
    name: str, t: int, function: str, u: float, x: float, w: float, h: float, b: float
) -> tuple[float, str]:
    """Compute f(u x + w h + b): the value of a gate and its line of working."""
    a = u * x + w * h + b
    value = _sigmoid(a) if function == "σ" else math.tanh(a)
    formula = " + ".join(
        [
            f"{format_term(u)} · {format_term(x)}",
            f"{format_term(w)} · {format_term(h)}",
            format_term(b),
        ]
    )
    line = f"{name}_{t} = {function}({formula}) = {function}({format_number(a)})"
    return value, f"{line} = {format_number(value)}"


def rnn_example() -> WorkedExample:
    """h_t = tanh(u x_t + w h_{t-1} + b)."""
    (u,), (w,), (b,) = (WEIGHTS["rnn"][k] for k in ("U", "W", "b"))
    h, values, lines = 0.0, list[float](), list[list[str]]()
    for t, x in enumerate(INPUTS, 1):
        h, line = _gate("h", t, "tanh", u, x, w, h, b)
        values.append(h)
        lines.append([line])
    return WorkedExample({"hidden_state": values}, lines)


def lstm_example() -> WorkedExample:
    """c_t = f_t c_{t-1} + i_t g_t and h_t = o_t tanh(c_t)."""
    U, W, B = (WEIGHTS["lstm"][k] for k in ("U", "W", "b"))
    names = ("input_gate", "forget_gate", "candidate", "output_gate")
    values: dict[str, list[float]] = {n: [] for n in (*names, "cell_state", "hidden_state")}
    h = c = 0.0
    lines = []
    for t, x in enumerate(INPUTS, 1):
        step_lines, gates = [], {}
        for name, letter, function, u, w, b in zip(
            names, ("i", "f", "g", "o"), ("σ", "σ", "tanh", "σ"), U, W, B, strict=True
        ):
            gates[name], line = _gate(letter, t, function, u, x, w, h, b)
            step_lines.append(line)
        i, f, g, o = (gates[n] for n in names)
        previous, c = c, f * c + i * g
        step_lines.append(
            f"c_{t} = f_{t} · c_{t - 1} + i_{t} · g_{t} = "
            f"{format_term(f)} · {format_term(previous)} + {format_term(i)} · {format_term(g)} = "
            f"{format_number(c)}"
        )
        h = o * math.tanh(c)
        step_lines.append(
            f"h_{t} = o_{t} · tanh(c_{t}) = {format_term(o)} · {format_term(math.tanh(c))} = "
            f"{format_number(h)}"
        )
        lines.append(step_lines)
        for name, value in {**gates, "cell_state": c, "hidden_state": h}.items():
            values[name].append(value)
    return WorkedExample(values, lines)


def gru_example() -> WorkedExample:
    """h_t = z_t h_{t-1} + (1 − z_t) h̃_t, with the reset gate after the product W h_{t-1}."""
    U, W, B, B2 = (WEIGHTS["gru"][k] for k in ("U", "W", "b", "b_recurrent"))
    names = ("update_gate", "reset_gate", "candidate", "hidden_state")
    values: dict[str, list[float]] = {n: [] for n in names}
    h, lines = 0.0, []
    for t, x in enumerate(INPUTS, 1):
        z, z_line = _gate("z", t, "σ", U[0], x, W[0], h, B[0] + B2[0])
        r, r_line = _gate("r", t, "σ", U[1], x, W[1], h, B[1] + B2[1])
        a = U[2] * x + B[2] + r * (W[2] * h + B2[2])
        candidate = math.tanh(a)
        candidate_line = (
            f"h̃_{t} = tanh({format_term(U[2])} · {format_term(x)} + {format_term(B[2])} + "
            f"{format_term(r)} · ({format_term(W[2])} · {format_term(h)} + {format_term(B2[2])})) "
            f"= tanh({format_number(a)}) = {format_number(candidate)}"
        )
        previous, h = h, z * h + (1 - z) * candidate
        h_line = (
            f"h_{t} = z_{t} · h_{t - 1} + (1 − z_{t}) · h̃_{t} = "
            f"{format_term(z)} · {format_term(previous)} + "
            f"{format_term(1 - z)} · {format_term(candidate)} = {format_number(h)}"
        )
        lines.append([z_line, r_line, candidate_line, h_line])
        for name, value in zip(names, (z, r, candidate, h), strict=True):
            values[name].append(value)
    return WorkedExample(values, lines)


def bidirectional_example() -> WorkedExample:
    """The cell of `rnn_example` in both directions, with the same weights."""
    (u,), (w,), (b,) = (WEIGHTS["rnn"][k] for k in ("U", "W", "b"))
    values: dict[str, list[float]] = {}
    lines: dict[str, list[str]] = {}
    for direction, symbol, sign in (("forward", "→h", 1), ("backward", "←h", -1)):
        h, states, working = 0.0, list[float](), list[str]()
        for t, x in list(enumerate(INPUTS, 1))[::sign]:
            h, line = _gate(symbol, t, "tanh", u, x, w, h, b)
            states.append(h)
            working.append(line)
        values[direction], lines[direction] = states[::sign], working[::sign]
    pairs = zip(lines["forward"], lines["backward"], strict=True)
    return WorkedExample(values, [list(pair) for pair in pairs])
