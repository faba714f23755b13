"""The experiments, in the order of the chapter."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from layers import GRU, LSTM, Bidirectional, SimpleRNN
from layers.gradient_flow import gradient_flow
from pipelines.engine.core import plotting
from pipelines.engine.core.tables import Table
from pipelines.engine.training.diagnostics import decay
from pipelines.lab import problems
from pipelines.lab.section import Section, Size

CELLS: dict[str, Any] = {"rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}
COLOURS = {
    "rnn": plotting.GREY, "tanh": plotting.GREY, "sigmoid": "#7a4fa0", "relu": "#9c2f2f",
    "lstm": plotting.BLUE, "lstm, long memory": "#12365f",
    "gru": plotting.ORANGE, "gru, long memory": "#8a4510",
}  # fmt: skip


def learn(
    hidden: Any,
    problem: Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray]],
    *,
    steps: int,
    length: int,
    outputs: int,
    seed: int,
    rate: float = 5e-3,
) -> tuple[keras.Model, float]:
    """Train a network on new rows at every step.

    Args:
        hidden: inputs → what the output layer V reads, as a function of Keras tensors. A layer
            draws its first weights where it is made.
        outputs: classes; 1 is a number, with the squared error as its loss.

    Returns:
        The model, and on 1,000 new rows the share of right answers, or the mean squared error.
    """
    rng = np.random.default_rng(seed)
    features = problem(rng, 1, length)[0].shape[-1]
    inputs = keras.Input((length, features))
    model = keras.Model(inputs, keras.layers.Dense(outputs, name="V")(hidden(inputs)))
    number = outputs == 1
    loss = (
        keras.losses.MeanSquaredError()
        if number
        else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0), loss=loss)
    x, y = problem(rng, 64 * steps, length)
    model.fit(x, y, batch_size=64, shuffle=False, verbose=0)
    x, y = problem(rng, 1000, length)
    answer = model.predict(x, batch_size=250, verbose=0)
    if number:
        return model, float(np.mean((answer - y) ** 2))
    return model, float(np.mean(answer.argmax(axis=-1) == y))


def memory(size: Size) -> Section:
    def feed_forward(x: Any) -> Any:
        return keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(16, activation="tanh")(x))

    accuracy = {}
    steps = size.of(400, 150)
    for name, hidden in {
        "feed-forward": feed_forward,
        "recurrent": lambda x: SimpleRNN(16)(x),
    }.items():
        keras.utils.set_random_seed(size.seed)
        _, accuracy[name] = learn(
            hidden, problems.order, steps=steps, length=10, outputs=2, seed=size.seed
        )
    holds = accuracy["feed-forward"] < 0.6 and accuracy["recurrent"] > 0.9
    return Section(
        title="A network without memory does not see the order",
        claim="A feed-forward network treats every input alone; a recurrent one keeps a state.",
        equation="h_t = tanh(U x_t + b)    against    h_t = tanh(U x_t + W h_{t-1} + b)",
        how=f"Did symbol A come before B? Rows of 10 symbols, 16 units, {steps} steps of "
        "training. The feed-forward network sees every symbol and takes the mean over them.",
        holds=holds,
        verdict=f"Without memory {accuracy['feed-forward']:.1%} of new rows are answered "
        f"rightly (guessing: 50 %), with it {accuracy['recurrent']:.1%}.",
        numbers={f"accuracy/{name}": value for name, value in accuracy.items()},
        table=Table(["network", "right"], [[n, f"{a:.1%}"] for n, a in accuracy.items()]),
    )


def by_hand(size: Size) -> Section:
    """A forward pass in NumPy, two steps with two units, beside the layer."""
    U = np.array([[0.5, -0.3]])
    W = np.array([[0.1, 0.4], [-0.2, 0.3]])
    b = np.array([0.0, 0.1])
    V = np.array([[1.0, -1.0], [0.5, 0.5]])
    xs, hs, rows = [1.0, -2.0, 0.5], [np.zeros(2)], []
    for t, x in enumerate(xs, 1):
        hs.append(np.tanh(x * U[0] + hs[-1] @ W + b))
        exp = np.exp(hs[-1] @ V)
        rows.append([t, x, *(f"{v:.6f}" for v in (*hs[-1], *(exp / exp.sum())))])
    layer = SimpleRNN(2, return_sequences=True)
    layer.build((None, None, 1))
    layer.set_weights([U, W, b])
    found = ops.convert_to_numpy(layer(np.array(xs, "float32")[None, :, None]))[0]
    error = float(np.abs(found - np.array(hs[1:])).max())
    return Section(
        title="The forward pass by hand",
        claim="The layer is the equations, and nothing else.",
        equation="h_t = tanh(U x_t + W h_{t-1} + b)        ŷ_t = softmax(V h_t)",
        how="Two units, one input a step: U = [0.5, −0.3], W = [[0.1, 0.4], [−0.2, 0.3]] (as "
        "Keras stores it: h_{t-1} is multiplied from the left), b = [0, 0.1], "
        "V = [[1, −1], [0.5, 0.5]]; calculated in NumPy, and by layers.SimpleRNN.",
        holds=error < 1e-6,
        verdict=f"The largest difference is {error:.1e}.",
        numbers={"difference": error},
        table=Table(["t", "x_t", "h_t[1]", "h_t[2]", "ŷ_t[1]", "ŷ_t[2]"], rows),
    )


def unfolding(size: Size) -> Section:
    rows, worst = [], 0.0
    x = np.random.default_rng(size.seed).normal(size=(4, 30, 3)).astype("float32")
    for name, kind in CELLS.items():
        keras.utils.set_random_seed(size.seed)
        layer = kind(8, return_sequences=True)
        whole = ops.convert_to_numpy(layer(x))
        states = layer.cell.get_initial_state(4)
        for t in range(30):
            _, states = layer.cell(x[:, t], states)
            difference = np.abs(ops.convert_to_numpy(states[0]) - whole[:, t]).max()
            worst = max(worst, float(difference))
        rows.append([name, f"{layer.count_params():,}", f"{worst:.1e}"])
    return Section(
        title="Unfolding over time",
        claim="The network is one cell, applied at every step with the same U, W and b.",
        equation="h_t = f(x_t, h_{t-1}; U, W, b)        t = 1 … T",
        how="A layer over 30 steps, against its own cell called 30 times by hand.",
        holds=worst < 1e-5,
        verdict=f"The largest difference over all cells and steps is {worst:.1e}; the number of "
        "parameters does not depend on the number of steps.",
        numbers={"difference": worst},
        table=Table(["cell", "parameters", "largest difference"], rows),
    )


def backpropagation(size: Size) -> Section:
    rows, numbers = [], {}
    rng = np.random.default_rng(size.seed)
    x, upstream = rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 6, 3))
    for name, kind in CELLS.items():
        keras.utils.set_random_seed(size.seed)
        layer = kind(3, return_sequences=True, dtype="float64")
        layer.build((None, None, 3))
        weights = [v.value for v in layer.trainable_variables]

        def loss(layer: Any = layer) -> Any:
            return tf.reduce_sum(layer(x, training=True) * upstream)

        def gradient(loss: Any = loss, weights: Any = weights) -> Any:
            with tf.GradientTape() as tape:
                value = loss()
            return tape.gradient(value, weights)

        automatic = [g.numpy() for g in gradient()]
        ours = [g.numpy() for g in tf.function(gradient)()]
        numeric = [_differences(loss, w) for w in weights]
        for against, found in (("automatic", automatic), ("finite differences", numeric)):
            error = max(
                float(np.abs(a - b).max() / np.abs(b).max())
                for a, b in zip(ours, found, strict=True)
            )
            numbers[f"error/{name}/{against}"] = error
        route = layer.route(training=True).name
        pair = [numbers[f"error/{name}/{k}"] for k in ("automatic", "finite differences")]
        rows.append([name, route, *(f"{e:.1e}" for e in pair)])
    worst = max(numbers.values())
    return Section(
        title="Backpropagation through time by hand",
        claim="∂L/∂W is a sum over all steps, each with the gradient that came back to it.",
        equation="∂L/∂h_{t-1} = Wᵀ (∂L/∂h_t ∘ (1 − h_t²)) + …        "
        "∂L/∂W = Σ_t (∂L/∂h_t ∘ (1 − h_t²)) h_{t-1}ᵀ",
        how="The gradient that training uses, which layers/bptt.py derives for each cell, against "
        "automatic differentiation of the unfolded loop and against central differences, in "
        "float64: two rows of six steps, three units.",
        holds=worst < 1e-6,
        verdict=f"They agree to {worst:.0e} of the largest entry.",
        numbers=numbers,
        table=Table(["cell", "training takes", "against automatic", "against differences"], rows),
    )


def _differences(loss: Callable[[], Any], weight: Any, step: float = 1e-5) -> np.ndarray:
    """∂L/∂w by central differences, for each entry of a variable."""
    value, found = weight.numpy(), np.zeros(weight.shape)
    for place in np.ndindex(*value.shape):
        sides = []
        for sign in (1, -1):
            moved = value.copy()
            moved[place] += sign * step
            weight.assign(moved)
            sides.append(float(loss()))
        found[place] = (sides[0] - sides[1]) / (2 * step)
    weight.assign(value)
    return found


def _signal(layer: Any, *, length: int, seed: int) -> np.ndarray:
    """‖∂L/∂h_t‖ by distance, for a loss that is a random linear function of the last state."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(8, length, layer.cell.kernel.shape[0]))
    v = rng.normal(size=layer.units)
    return gradient_flow(lambda: ops.sum(layer(x) * v))[layer.name].norms()


def _network(activation: str, scale: float, *, seed: int, dtype: str = "float64") -> Any:
    """A vanilla network of 32 units, W being ``scale`` times a rotation: σ_max = ρ = scale."""
    layer = SimpleRNN(
        32,
        activation=activation,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.3, seed=seed),
        recurrent_initializer=keras.initializers.Orthogonal(gain=scale, seed=seed),
        dtype=dtype,
    )
    layer.build((None, None, 4))
    return layer


#: The largest derivative of each.
_STEEPEST = {"tanh": 1.0, "sigmoid": 0.25, "relu": 1.0}


def vanishing(size: Size) -> Section:
    length = size.of(400, 100)
    figure, (near, far) = plotting.new_figure(10, 4, 2)
    numbers, rows = {}, []
    lines = {
        **{a: (_network(a, 1.0, seed=size.seed), _STEEPEST[a]) for a in _STEEPEST},
        **{f"{n}, long memory": (_gated(n, length, size), None) for n in ("lstm", "gru")},
    }
    for name, (layer, steepest) in lines.items():
        norms = _signal(layer, length=length, seed=size.seed)
        relative = norms / norms[0]
        numbers[f"left_after_50/{name}"] = float(relative[50])
        numbers[f"decay/{name}"] = decay(norms[:51])
        bound = "" if steepest is None else f"{steepest**50:.1g}"
        rows.append([name, f"{relative[50]:.1e}", bound, f"{decay(norms[:51]):.3f}"])
        for ax, end in ((near, 51), (far, length)):
            line = np.maximum(relative[:end], 1e-30)
            ax.semilogy(line, color=COLOURS[name], label=name)
            if steepest is not None and steepest < 1:
                k = np.arange(end)
                bound_line = np.maximum(steepest**k, 1e-30)
                ax.semilogy(k, bound_line, ls=":", color=COLOURS[name], label=f"{name}: the bound")
    near.set(xlabel="steps back", ylabel="‖∂L/∂h_t‖, relative to the last step")
    far.set(xlabel="steps back")
    near.legend(frameon=False, fontsize=8)
    left = {n: numbers[f"left_after_50/{n}"] for n in lines}
    holds = left["tanh"] < 0.1 and left["sigmoid"] < left["tanh"]
    return Section(
        title="The gradient vanishes",
        claim="∂h_T/∂h_t is a product of T − t Jacobians, which shrinks exponentially if "
        "σ_max(W) · max|f'| < 1: for the sigmoid always (max f' = ¼), for tanh where it is not "
        "at its steepest.",
        equation="‖∂h_T/∂h_t‖ ≤ Π_k ‖W‖ · ‖diag f'(a_k)‖ ≤ (σ_max(W) γ)^{T−t}",
        how=f"Networks of 32 units over {length} steps of noise; W is a rotation (σ_max = 1), so "
        "that all that shrinks the signal is f'. The bound is drawn dotted where it says "
        "anything. “Long memory” are gated cells whose biases begin with time constants up to the "
        "length (Tallec & Ollivier 2018): the gradient goes back along what the gates carry on.",
        holds=holds,
        verdict=f"Of the signal of the last step, 50 steps back {left['tanh']:.0e} is left with "
        f"tanh, {left['sigmoid']:.0e} with the sigmoid (its bound: {0.25**50:.0e}), "
        f"{left['relu']:.0e} with ReLU, {left['lstm, long memory']:.2f} with the LSTM and "
        f"{left['gru, long memory']:.2f} with the GRU. The slope of tanh at its steepest is 1, so "
        "the bound says nothing of it: it vanishes because of the steps at which it is flatter.",
        numbers=numbers,
        figures=[figure],
        table=Table(["network", "left after 50 steps", "the bound", "factor a step"], rows),
    )


def _gated(name: str, length: int, size: Size) -> Any:
    """An LSTM or GRU whose gates begin nearly open towards the past: time constants from 1 to
    ``length`` (Tallec & Ollivier 2018)."""
    keras.utils.set_random_seed(size.seed)
    layer = CELLS[name](32, dtype="float64")
    layer.build((None, None, 4))
    remember(layer, length, seed=size.seed)
    return layer


def remember(layer: Any, length: int, *, seed: int) -> None:
    """Set the biases so that units remember for 1 to ``length`` steps: σ(b) = 1 − 1/T."""
    rng = np.random.default_rng(seed)
    bias = ops.convert_to_numpy(layer.cell.bias).copy()
    open_ = np.log(rng.uniform(1, max(length - 1, 2), layer.units))
    flat = bias[0] if bias.ndim == 2 else bias
    gates = layer.cell.gate_order
    at = {gate: slice(i * layer.units, (i + 1) * layer.units) for i, gate in enumerate(gates)}
    if "f" in at:
        flat[at["f"]], flat[at["i"]] = open_, -open_
    else:
        flat[at["z"]] = open_
    layer.cell.bias.assign(bias)


def relu(size: Size) -> Section:
    scales = [0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0]
    left = {}
    for scale in scales:
        norms = _signal(_network("relu", scale, seed=size.seed), length=60, seed=size.seed)
        left[scale] = float(norms[50] / norms[0])
    figure, ax = plotting.new_figure()
    ax.semilogy(scales, [max(v, 1e-30) for v in left.values()], "o-", color=COLOURS["relu"])
    ax.axhline(1, color=plotting.GREY, lw=1, ls="--")
    ax.set(xlabel="σ_max(W)", ylabel="signal left after 50 steps, ReLU")
    kept = [s for s, v in left.items() if 0.1 < v < 10]
    return Section(
        title="ReLU, and the vanishing gradient",
        claim="The derivative of ReLU is 1 where it is active, so the gradient does not vanish.",
        equation="∂h_t/∂h_{t-1} = Wᵀ diag(1[a_t > 0])",
        how="The same network with ReLU, its W scaled; the signal 50 steps back.",
        holds=bool(kept) and min(kept) <= 0.9 and max(kept) >= 1.5,
        verdict="The claim leaves W out. About half of the units are off at a step, and what is "
        f"left after 50 steps goes from {left[scales[0]]:.0e} at σ_max = {scales[0]} to "
        f"{left[scales[-1]]:.0e} at {scales[-1]}; it stays within a factor of ten "
        + (f"at {', '.join(map(str, kept))} only." if kept else "at none of these scales."),
        numbers={f"left_after_50/sigma_{s}": v for s, v in left.items()},
        figures=[figure],
        table=Table(
            ["σ_max(W)", "left after 50 steps"], [[s, f"{v:.1e}"] for s, v in left.items()]
        ),
    )


def exploding(size: Size) -> Section:
    rng = np.random.default_rng(size.seed)
    x = rng.normal(size=(64, 30, 4)).astype("float32")
    y = rng.normal(size=(64, 1)).astype("float32")
    scales, norms, after = [0.5, 1.0, 1.25, 1.5, 2.0], {}, {}
    limit, steps = 1.0, 30
    for scale in scales:
        for clip in (None, limit):
            keras.utils.set_random_seed(size.seed)
            inputs = keras.Input((30, 4))
            hidden = _network("relu", scale, seed=size.seed, dtype="float32")
            output = keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(0.1))
            model = keras.Model(inputs, output(hidden(inputs)))
            variables = [v.value for v in model.trainable_variables]

            def loss(model: Any = model) -> Any:
                return tf.reduce_mean((model(x, training=True) - y) ** 2)

            with tf.GradientTape() as tape:
                value = loss()
            first = float(tf.linalg.global_norm(tape.gradient(value, variables)))
            norms[scale] = first
            model.compile(optimizer=keras.optimizers.SGD(0.01, global_clipnorm=clip), loss="mse")
            model.fit(x, y, epochs=steps, batch_size=64, verbose=0)
            after[scale, clip] = float(loss())
    figure, ax = plotting.new_figure()
    ax.semilogy(scales, [norms[s] for s in scales], "o-", color=COLOURS["relu"], label="‖∂L/∂θ‖")
    ax.axhline(limit, color=plotting.BLUE, ls="--", label="after clipping, at most")
    ax.set(xlabel="σ_max(W)", ylabel="norm of the first gradient")
    ax.legend(frameon=False)
    wild = [s for s in scales if not math.isfinite(after[s, None])]
    tamed = [s for s in wild if math.isfinite(after[s, limit])]
    return Section(
        title="The gradient explodes, and is clipped",
        claim="With a large W the same product grows exponentially, and one step of training "
        "throws the weights away; scaling the gradient down to a largest norm prevents that.",
        equation="g ← g · min(1, c / ‖g‖)",
        how=f"ReLU networks of 32 units over 30 steps, {steps} steps of plain gradient descent "
        f"at rate 0.01, as they are and clipped at c = {limit:g}.",
        holds=bool(wild) and tamed == wild and norms[scales[-1]] > 1e3 * norms[scales[0]],
        verdict=f"From σ_max = {scales[0]} to {scales[-1]} the first gradient grows from "
        f"{norms[scales[0]]:.1e} to {norms[scales[-1]]:.1e}. "
        + (
            f"Without clipping the loss is no number any more at {', '.join(map(str, wild))}; "
            f"with it, at {'none' if tamed == wild else 'some'} of these."
            if wild
            else "The loss stayed a number at all of them."
        )
        + " Clipping keeps the weights; it does not make the network learn.",
        numbers={f"gradient/sigma_{s}": n for s, n in norms.items()},
        figures=[figure],
        table=Table(
            ["σ_max(W)", "first gradient", f"loss after {steps} steps", "clipped"],
            [
                [s, f"{norms[s]:.1e}", f"{after[s, None]:.3g}", f"{after[s, limit]:.3g}"]
                for s in scales
            ],
        ),
    )


#: The contenders of `long_range`: the layer, and whether its gates begin open to the past.
_CONTENDERS: dict[str, tuple[Callable[[int], Any], bool]] = {
    "rnn": (lambda units: SimpleRNN(units), False),
    "relu": (
        lambda units: SimpleRNN(
            units, activation="relu", recurrent_initializer=keras.initializers.Identity()
        ),
        False,
    ),
    "gru": (lambda units: GRU(units), False),
    "lstm": (lambda units: LSTM(units), False),
    "gru, long memory": (lambda units: GRU(units), True),
    "lstm, long memory": (lambda units: LSTM(units), True),
}


def long_range(size: Size) -> Section:
    lengths = [50] if size.fast else [50, 100, 200, 500, 1000]
    steps = size.of(600, 150)
    found: dict[str, dict[int, float]] = {name: {} for name in _CONTENDERS}
    seconds: dict[str, float] = {}
    parameters: dict[str, int] = {}
    for name, (make, opened) in _CONTENDERS.items():
        for length in lengths:
            keras.utils.set_random_seed(size.seed)
            layer = make(32)
            layer.build((None, length, problems.SYMBOLS))
            if opened:
                remember(layer, length, seed=size.seed)
            started = time.perf_counter()
            _, found[name][length] = learn(
                layer, problems.recall, steps=steps, length=length, outputs=2, seed=size.seed
            )
            seconds[name] = time.perf_counter() - started
            parameters[name] = layer.count_params()
            if found[name][length] < 0.6:
                break  # what is not learned at a length is not learned at a greater one
    figure, ax = plotting.new_figure()
    for name, line in found.items():
        ax.semilogx(list(line), list(line.values()), "o-", color=COLOURS[name], label=name)
    ax.axhline(0.5, color=plotting.GREY, lw=1, ls="--")
    ax.set(xlabel="steps between the symbol and the question", ylabel="right answers")
    ax.set_xticks(lengths, [str(n) for n in lengths])
    ax.minorticks_off()
    ax.legend(frameon=False)
    reach = {
        name: max((n for n, share in line.items() if share > 0.9), default=0)
        for name, line in found.items()
    }
    best = max(reach[name] for name in reach if name not in ("rnn", "relu"))
    rows = [
        [
            name, f"{parameters[name]:,}",
            *(f"{line[n]:.0%}" if n in line else "" for n in lengths), f"{seconds[name]:.1f}",
        ]
        for name, line in found.items()
    ]  # fmt: skip
    return Section(
        title="Memory over a long time",
        claim="Gated cells carry information over hundreds of steps where a vanilla network "
        "cannot.",
        equation="c_t = f_t ∘ c_{t-1} + i_t ∘ g_t        ∂c_t/∂c_{t-1} = diag(f_t) + …",
        how=f"Which of two symbols came first, asked after T others; 32 units, {steps} steps of "
        "training with Adam at one rate, one seed. A length that is not learned ends the row. "
        "“Long memory” are cells whose biases begin with time constants up to T; “relu” "
        "is the vanilla network with ReLU and W = I at the start (Le et al. "
        "2015).",
        holds=best > reach["rnn"] and best > 0,
        verdict="Learned with more than 90 % right, up to T = "
        + ", ".join(f"{n or 'none'} ({name})" for name, n in reach.items())
        + ". Where gates begin decides: with the usual biases an LSTM forgets a quarter of its "
        "state at each step, a GRU half.",
        numbers={
            **{f"accuracy/{n}/{t}": a for n, line in found.items() for t, a in line.items()},
            **{f"reach/{name}": float(n) for name, n in reach.items()},
        },
        figures=[figure],
        table=Table(
            ["network", "parameters", *(f"T = {n}" for n in lengths), "seconds, the last"], rows
        ),
    )


#: sigmoid(±this) is 1 or 0 to the last bit that counts, and has no gradient: the gate stays.
_FIXED = 30.0


def gates(size: Size) -> Section:
    length, steps = 30, size.of(1200, 300)
    error: dict[str, float] = {}
    kinds = {
        "all gates": {},
        "forget gate open: never forgets": {"f": _FIXED},
        "forget gate shut: forgets all": {"f": -_FIXED},
        "input gate open: writes all": {"i": _FIXED},
        "output gate open: shows all": {"o": _FIXED},
    }
    for name, fixed in kinds.items():
        keras.utils.set_random_seed(size.seed)
        layer = LSTM(32)
        layer.build((None, length, 2))
        remember(layer, length, seed=size.seed)
        bias = ops.convert_to_numpy(layer.cell.bias).copy()
        for gate, value in fixed.items():
            at = layer.cell.gate_order.index(gate) * layer.units
            bias[at : at + layer.units] = value
        layer.cell.bias.assign(bias)
        _, error[name] = learn(
            layer, problems.adding, steps=steps, length=length, outputs=1, seed=size.seed,
            rate=1e-2,
        )  # fmt: skip
    whole = error["all gates"]
    shut = error["forget gate shut: forgets all"]
    worse = [name for name, e in error.items() if e > 2 * whole]
    return Section(
        title="Each gate switched off in turn",
        claim="Selective write, selective forget and selective read each have their part.",
        equation="c_t = f_t ∘ c_{t-1} + i_t ∘ g_t        h_t = o_t ∘ tanh(c_t)",
        how=f"The adding problem over {length} steps (two of the numbers are marked; answering "
        f"their mean has an error of {1 / 6:.3f}), 32 units, {steps} steps of training; a gate "
        "is held at 1 or 0 by its bias; the others begin with time constants up to the length.",
        holds=set(kinds) - {"all gates"} <= set(worse),
        verdict=f"With all gates the squared error is {whole:.4f}; with the forget gate "
        f"shut, where h_{{t-1}} is all that is left of the past, {shut:.4f}. More than twice as "
        f"bad: {', '.join(worse) or 'none'}. What is not in that list this problem does not need.",
        numbers={f"error/{name}": e for name, e in error.items()},
        table=Table(["LSTM", "squared error"], [[n, f"{e:.4f}"] for n, e in error.items()]),
    )


def lstm_and_gru(size: Size) -> Section:
    length, steps, rows = 30, size.of(1200, 300), []
    numbers: dict[str, float] = {}
    for name in ("lstm", "gru"):
        keras.utils.set_random_seed(size.seed)
        layer = CELLS[name](32)
        layer.build((None, length, 2))
        remember(layer, length, seed=size.seed)
        started = time.perf_counter()
        _, error = learn(
            layer, problems.adding, steps=steps, length=length, outputs=1, seed=size.seed,
            rate=1e-2,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        numbers |= {f"parameters/{name}": float(layer.count_params()), f"error/{name}": error}
        rows.append([name, f"{layer.count_params():,}", f"{seconds:.1f}", f"{error:.4f}"])
    share = numbers["parameters/gru"] / numbers["parameters/lstm"]
    alike = max(numbers["error/lstm"], numbers["error/gru"]) < 0.02
    return Section(
        title="LSTM and GRU",
        claim="The GRU does with three quarters of the parameters what the LSTM does.",
        equation="h_t = z_t ∘ h_{t-1} + (1 − z_t) ∘ h̃_t",
        how=f"The adding problem again, {length} steps, 32 units, {steps} steps of training; the "
        "biases of both begin with time constants up to the length.",
        holds=alike and share < 0.8,
        verdict=f"The GRU has {share:.0%} of the parameters; the squared errors are "
        f"{numbers['error/lstm']:.4f} (LSTM) and {numbers['error/gru']:.4f} (GRU), of "
        f"{1 / 6:.3f} for knowing nothing.",
        numbers=numbers,
        table=Table(["cell", "parameters", "seconds, set-up included", "squared error"], rows),
    )


def both_directions(size: Size) -> Section:
    accuracy = {}
    steps = size.of(300, 100)
    for name, hidden in {
        "one direction": lambda x: LSTM(16, return_sequences=True)(x),
        "bidirectional": lambda x: Bidirectional(LSTM(16, return_sequences=True))(x),
    }.items():
        keras.utils.set_random_seed(size.seed)
        _, accuracy[name] = learn(
            hidden, problems.next_symbol, steps=steps, length=12, outputs=problems.SYMBOLS,
            seed=size.seed, rate=1e-2,
        )  # fmt: skip
    # It can guess eleven times, and has seen the first symbol, which comes after the last.
    most = (11 / problems.SYMBOLS + 1) / 12
    return Section(
        title="Both directions",
        claim="Where the answer at a step depends on what comes later, one direction cannot know.",
        equation="→h_t = f(x_t, →h_{t-1})    ←h_t = f'(x_t, ←h_{t+1})    y_t = V [→h_t ; ←h_t]",
        how="At every step the next symbol is asked for (the symbols are drawn independently; at "
        f"the last of 12 steps, the first); 16 units, {steps} steps of training.",
        holds=accuracy["one direction"] < most + 0.02 and accuracy["bidirectional"] > 0.9,
        verdict=f"One direction has {accuracy['one direction']:.1%}, where {most:.1%} is all that "
        f"can be had without the future; both have {accuracy['bidirectional']:.1%}.",
        numbers={f"accuracy/{name}": a for name, a in accuracy.items()},
        table=Table(["network", "right"], [[n, f"{a:.1%}"] for n, a in accuracy.items()]),
    )


def truncation(size: Size) -> Section:
    length = size.of(100, 60)
    cuts = [*(k for k in (1, 2, 5, 10, 20, 50) if k < length), length]
    rng = np.random.default_rng(size.seed)
    x = rng.normal(size=(16, length, 4)).astype("float32")
    y = rng.normal(size=(16, length, 1)).astype("float32")
    V = rng.normal(scale=0.3, size=(32, 1)).astype("float32")
    angle: dict[str, dict[int, float]] = {}
    for name, kind in CELLS.items():
        found = {}
        for k in (None, *cuts):
            keras.utils.set_random_seed(size.seed)
            layer = kind(32, return_sequences=True, truncate=k)
            layer.build((None, None, 4))
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((layer(x) @ V - y) ** 2)
            found[k] = tape.gradient(loss, layer.cell.recurrent_kernel.value).numpy().ravel()
        full = found[None]
        angle[name] = {
            k: float(found[k] @ full / (np.linalg.norm(found[k]) * np.linalg.norm(full)))
            for k in cuts
            if np.linalg.norm(found[k])
        }
    figure, ax = plotting.new_figure()
    for name, line in angle.items():
        ax.semilogx(list(line), list(line.values()), "o-", color=COLOURS[name], label=name)
    ax.set(xlabel="steps the gradient may go back, k", ylabel="cosine with the full ∂L/∂W")
    ax.legend(frameon=False)
    short, long = cuts[1], cuts[-1]
    holds = all(line[long] > 0.999 > line[short] for line in angle.values())
    return Section(
        title="Truncated backpropagation through time",
        claim="Cut after k steps the gradient costs less and is biased; the bias falls with k.",
        equation="∂L/∂W ≈ Σ_t Σ_{j>t−k} (∂L/∂h_t)(∂h_t/∂h_j)(∂h_j/∂W)",
        how=f"The gradient of one batch of {length} steps with a loss at each, full and cut every "
        "k steps, at the first weights, for W: the cosine of the angle between the two.",
        holds=holds,
        verdict="; ".join(
            f"{name}: {line[short]:.2f} at k = {short}, {line[10]:.2f} at 10"
            for name, line in angle.items()
        )
        + f". At k = {long} nothing is cut.",
        numbers={f"cosine/{n}/{k}": c for n, line in angle.items() for k, c in line.items()},
        figures=[figure],
    )


def architectures(size: Size) -> Section:
    """The four ways to connect inputs and outputs over time, by the shapes that go in and out."""
    x = np.zeros((1, 5, 3), "float32")
    whole, last = LSTM(4, return_sequences=True), LSTM(4)
    shapes = {
        "one-to-one": ("each output is the next input", "generation, forecasting"),
        "one-to-many": ("a picture sets the first state", "captioning"),
        "many-to-one": (f"{x.shape[1:]} → {tuple(last(x).shape[1:])}", "sentiment"),
        "many-to-many": (f"{x.shape[1:]} → {tuple(whole(x).shape[1:])}", "translation"),
    }
    return Section(
        title="The four architectures",
        claim="One cell serves them all; they differ in where inputs come in and outputs go out.",
        equation="ŷ_T = softmax(V h_T)        ŷ_t = softmax(V h_t)        x_{t+1} = ŷ_t",
        how="The shapes of five steps of three features through LSTM layers of four units.",
        holds=tuple(last(x).shape) == (1, 4) and tuple(whole(x).shape) == (1, 5, 4),
        verdict="The same layer gives its last state or all of them.",
        numbers={},
        table=Table(
            ["architecture", "what goes in and out", "the pipeline"],
            [[name, *rest] for name, rest in shapes.items()],
        ),
    )


EXPERIMENTS: dict[str, Callable[[Size], Section]] = {
    function.__name__: function
    for function in (
        memory,
        by_hand,
        unfolding,
        backpropagation,
        vanishing,
        relu,
        exploding,
        long_range,
        gates,
        lstm_and_gru,
        both_directions,
        truncation,
        architectures,
    )
}
