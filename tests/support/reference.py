"""The chapter's equations in NumPy, one row of a batch at a time, forwards and backwards.

Column vectors as in the chapter: ``U`` is [units, inputs] and a step computes ``U @ x``.
Weights are a dict by the chapter's names. Nothing here is shared with the code under test.
"""

from collections import defaultdict

import numpy as np

GATES = {"SimpleRNN": "h", "LSTM": "ifgo", "GRU": "zrh", "GRU before": "zrh"}


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def to_chapter(kind, arrays):
    """Convert Keras's [kernel, recurrent_kernel, bias] to the chapter's names and orientation."""
    kernel, recurrent_kernel, bias = (np.asarray(a, "float64") for a in arrays[:3])
    gates, units = GATES[kind], recurrent_kernel.shape[0]
    w = {}
    for place, g in enumerate(gates):
        block = slice(place * units, (place + 1) * units)
        w[f"U_{g}"] = kernel[:, block].T
        w[f"W_{g}"] = recurrent_kernel[:, block].T
        if kind == "GRU":
            w[f"b_{g}"], w[f"b'_{g}"] = bias[:, block]
        else:
            w[f"b_{g}"] = bias[block]
    return w


def from_chapter(kind, w):
    """Invert `to_chapter`."""
    gates = GATES[kind]
    kernel = np.concatenate([w[f"U_{g}"].T for g in gates], axis=-1)
    recurrent_kernel = np.concatenate([w[f"W_{g}"].T for g in gates], axis=-1)
    bias = np.concatenate([w[f"b_{g}"] for g in gates])
    if kind == "GRU":
        bias = np.stack([bias, np.concatenate([w[f"b'_{g}"] for g in gates])])
    return [kernel, recurrent_kernel, bias]


# -- one step forwards: (state, values); backwards, from these values: (d_state, dx, dw) -------


def simple_rnn_forward(w, x, state):
    (h,) = state
    new = np.tanh(w["U_h"] @ x + w["W_h"] @ h + w["b_h"])
    return (new,), {"x": x, "h": h, "hidden_state": new}


def simple_rnn_backward(w, kept, d_state):
    (dh,) = d_state
    da = dh * (1 - kept["hidden_state"] ** 2)
    dw = {"U_h": np.outer(da, kept["x"]), "W_h": np.outer(da, kept["h"]), "b_h": da}
    return (w["W_h"].T @ da,), w["U_h"].T @ da, dw


def lstm_forward(w, x, state):
    h, c = state
    i = sigmoid(w["U_i"] @ x + w["W_i"] @ h + w["b_i"])
    f = sigmoid(w["U_f"] @ x + w["W_f"] @ h + w["b_f"])
    o = sigmoid(w["U_o"] @ x + w["W_o"] @ h + w["b_o"])
    g = np.tanh(w["U_g"] @ x + w["W_g"] @ h + w["b_g"])
    new_c = f * c + i * g
    new_h = o * np.tanh(new_c)
    return (new_h, new_c), {
        "x": x,
        "h": h,
        "c": c,
        "input_gate": i,
        "forget_gate": f,
        "output_gate": o,
        "candidate": g,
        "cell_state": new_c,
        "hidden_state": new_h,
    }


def lstm_backward(w, kept, d_state):
    dh, dc = d_state
    i, f, o = kept["input_gate"], kept["forget_gate"], kept["output_gate"]
    g, read = kept["candidate"], np.tanh(kept["cell_state"])
    dc = dc + dh * o * (1 - read**2)
    da = {
        "i": dc * g * i * (1 - i),
        "f": dc * kept["c"] * f * (1 - f),
        "g": dc * i * (1 - g**2),
        "o": dh * read * o * (1 - o),
    }
    dw = {}
    for gate, d in da.items():
        dw |= {f"U_{gate}": np.outer(d, kept["x"]), f"W_{gate}": np.outer(d, kept["h"])}
        dw[f"b_{gate}"] = d
    dh_before = sum(w[f"W_{gate}"].T @ d for gate, d in da.items())
    dx = sum(w[f"U_{gate}"].T @ d for gate, d in da.items())
    return (dh_before, dc * f), dx, dw


def gru_forward(w, x, state):
    (h,) = state
    z = sigmoid(w["U_z"] @ x + w["b_z"] + w["W_z"] @ h + w["b'_z"])
    r = sigmoid(w["U_r"] @ x + w["b_r"] + w["W_r"] @ h + w["b'_r"])
    recurrent_product = w["W_h"] @ h + w["b'_h"]
    candidate = np.tanh(w["U_h"] @ x + w["b_h"] + r * recurrent_product)
    new = z * h + (1 - z) * candidate
    return (new,), {
        "x": x,
        "h": h,
        "recurrent_product": recurrent_product,
        "update_gate": z,
        "reset_gate": r,
        "candidate": candidate,
        "hidden_state": new,
    }


def gru_backward(w, kept, d_state):
    (dh,) = d_state
    h, z, r = kept["h"], kept["update_gate"], kept["reset_gate"]
    candidate = kept["candidate"]
    dz = dh * (h - candidate) * z * (1 - z)
    da = dh * (1 - z) * (1 - candidate**2)
    dr = da * kept["recurrent_product"] * r * (1 - r)
    inside, recurrent = {"z": dz, "r": dr, "h": da}, {"z": dz, "r": dr, "h": da * r}
    dw = {f"U_{g}": np.outer(d, kept["x"]) for g, d in inside.items()}
    dw |= {f"b_{g}": d for g, d in inside.items()}
    dw |= {f"W_{g}": np.outer(d, h) for g, d in recurrent.items()}
    dw |= {f"b'_{g}": d for g, d in recurrent.items()}
    dh_before = dh * z + sum(w[f"W_{g}"].T @ d for g, d in recurrent.items())
    return (dh_before,), sum(w[f"U_{g}"].T @ d for g, d in inside.items()), dw


def gru_before_forward(w, x, state):
    (h,) = state
    z = sigmoid(w["U_z"] @ x + w["W_z"] @ h + w["b_z"])
    r = sigmoid(w["U_r"] @ x + w["W_r"] @ h + w["b_r"])
    candidate = np.tanh(w["U_h"] @ x + w["W_h"] @ (r * h) + w["b_h"])
    new = z * h + (1 - z) * candidate
    return (new,), {
        "x": x,
        "h": h,
        "update_gate": z,
        "reset_gate": r,
        "candidate": candidate,
        "hidden_state": new,
    }


def gru_before_backward(w, kept, d_state):
    (dh,) = d_state
    h, z, r = kept["h"], kept["update_gate"], kept["reset_gate"]
    candidate = kept["candidate"]
    dz = dh * (h - candidate) * z * (1 - z)
    da = dh * (1 - z) * (1 - candidate**2)
    d_reset = w["W_h"].T @ da
    dr = d_reset * h * r * (1 - r)
    d = {"z": dz, "r": dr, "h": da}
    dw = {f"U_{g}": np.outer(d[g], kept["x"]) for g in d} | {f"b_{g}": d[g] for g in d}
    dw |= {"W_z": np.outer(dz, h), "W_r": np.outer(dr, h), "W_h": np.outer(da, r * h)}
    dh_before = dh * z + d_reset * r + w["W_z"].T @ dz + w["W_r"].T @ dr
    return (dh_before,), sum(w[f"U_{g}"].T @ d[g] for g in d), dw


STEPS = {
    "SimpleRNN": (simple_rnn_forward, simple_rnn_backward),
    "LSTM": (lstm_forward, lstm_backward),
    "GRU": (gru_forward, gru_backward),
    "GRU before": (gru_before_forward, gru_before_backward),
}


# -- a sequence ------------------------------------------------------------------------------


def forward_row(kind, w, xs, state):
    """Run all steps of one row; return the last state and the values of each step."""
    forward, _ = STEPS[kind]
    kept = []
    for x in xs:
        state, of_step = forward(w, x, state)
        kept.append(of_step)
    return state, kept


def bptt_row(kind, w, kept, d_hidden, d_state, k=None):
    """Run backpropagation through time (Werbos 1990), truncated to k steps if k is given.

    Args: ``d_hidden[t]``, the loss's gradient to the hidden state of step t, and ``d_state``,
    its gradient to the last state. Returns the gradients to the state before the first step,
    to the inputs and to the weights.
    """
    _, backward = STEPS[kind]
    dw, dxs = defaultdict(float), []
    for t in reversed(range(len(kept))):
        d_state = (d_state[0] + d_hidden[t], *d_state[1:])
        d_state, dx, dw_t = backward(w, kept[t], d_state)
        dxs.insert(0, dx)
        for name, d in dw_t.items():
            dw[name] = dw[name] + d
        if k is not None and t > 0 and t % k == 0:
            d_state = tuple(np.zeros_like(d) for d in d_state)
    return d_state, dxs, dw


def layer(kind, arrays, x, states, lengths, d_outputs, d_states, k=None, backwards=False):
    """Run a layer with return_sequences and return_state, and compute all its gradients.

    Returns outputs [batch, time, units], last states, and the gradients of
    ``sum(d_outputs * outputs) + sum(d_states * states)`` to x, to the states and the arrays.
    """
    w = to_chapter(kind, arrays)
    total_dw = {name: np.zeros_like(value) for name, value in w.items()}
    outputs, dx = np.zeros_like(d_outputs), np.zeros_like(x)
    last = [np.zeros_like(s) for s in states]
    d_first = [np.zeros_like(s) for s in states]
    for row, n in enumerate(lengths):
        xs, first = x[row, :n], tuple(s[row] for s in states)
        d_row = d_outputs[row]
        if backwards:
            xs = xs[::-1]
            began = x.shape[1] - n  # the padding comes first, with zero as its output
            d_hidden = d_row[began:]
        else:
            began = 0
            d_hidden = d_row[:n].copy()
            if n:
                d_hidden[-1] += d_row[n:].sum(axis=0)  # the padding repeats the last output
        state, kept = forward_row(kind, w, xs, first)
        for t, of_step in enumerate(kept):
            outputs[row, began + t] = of_step["hidden_state"]
        if n and not backwards:
            outputs[row, n:] = outputs[row, n - 1]
        d_before, dxs, dw = bptt_row(kind, w, kept, d_hidden, tuple(d[row] for d in d_states), k)
        for place in range(len(states)):
            last[place][row], d_first[place][row] = state[place], d_before[place]
        if n:
            dx[row, :n] = dxs[::-1] if backwards else dxs
        for name, d in dw.items():
            total_dw[name] += d
    return outputs, last, dx, d_first, from_chapter(kind, total_dw)
