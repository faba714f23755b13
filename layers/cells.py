"""One time step: the equations of the three cells.

The chapter writes with column vectors, ``U x_t + W h_{t-1} + b``; Keras stores the
transposes and multiplies rows, ``x_t @ kernel + h_{t-1} @ recurrent_kernel + bias``, so that
a batch is one product. Here U, W and b are Keras's arrays: ``U`` is ``kernel``, ``W`` is
``recurrent_kernel``, and the gates lie side by side along their last axis.

Each step function takes ``x_U``, the product ``x_t @ U``: it does not depend on the
recurrence, so it can be had for one step or for all steps at once. A step returns everything
it computed by name; what is carried to the next step is among it.

The cells hold the weights. They are Keras's cells (same arguments, same weights in the same
order, same config) whose `call` is the step function, plus the initial state, which the
chapter lets be zero, random or learned.
"""

from typing import NamedTuple

import keras
from keras import ops

INITIAL_KINDS = ("zeros", "random", "learned")
RANDOM_STATE_STDDEV = 0.05  # small against the (-1, 1) of a hidden state


# -- the equations ---------------------------------------------------------------------------


class SimpleRNNStep(NamedTuple):
    """What one step computes, each [batch, units]."""

    pre_activation: object
    hidden_state: object


class LSTMStep(NamedTuple):
    """What one step computes, each [batch, units]: i, f, o, g, c, h."""

    input_gate: object
    forget_gate: object
    output_gate: object
    candidate: object
    cell_state: object
    hidden_state: object


class GRUStep(NamedTuple):
    """What one step computes, each [batch, units]: z, r, h̃, h."""

    update_gate: object
    reset_gate: object
    candidate: object
    hidden_state: object


def simple_rnn_step(x_U, h, W, b, tanh=ops.tanh, kept=None):
    """h_t = tanh(U x_t + W h_{t-1} + b)."""
    a = x_U + product(h, W, kept) + b
    return SimpleRNNStep(pre_activation=a, hidden_state=tanh(a))


def lstm_step(x_U, h, c, W, b, sigmoid=ops.sigmoid, tanh=ops.tanh, kept=None):
    """c_t = f_t ∘ c_{t-1} + i_t ∘ g_t: forget selectively, write selectively;
    h_t = o_t ∘ tanh(c_t): read selectively."""
    i, f, g, o = ops.split(x_U + product(h, W, kept) + b, 4, axis=-1)
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    c = f * c + i * g
    h = o * tanh(c)
    return LSTMStep(i, f, o, candidate=g, cell_state=c, hidden_state=h)


def gru_step(x_U, h, W, b, b_recurrent, sigmoid=ops.sigmoid, tanh=ops.tanh, kept=None):
    """Reset after the recurrent product: h̃_t = tanh(U x_t + b + r_t ∘ (W h_{t-1} + b'))."""
    z, r, x_h = ops.split(x_U + b, 3, axis=-1)
    h_z, h_r, h_h = ops.split(product(h, W, kept) + b_recurrent, 3, axis=-1)
    z, r = sigmoid(z + h_z), sigmoid(r + h_r)
    h_tilde = tanh(x_h + r * h_h)
    return GRUStep(z, r, h_tilde, hidden_state=z * h + (1 - z) * h_tilde)


def gru_step_reset_before(x_U, h, W, b, sigmoid=ops.sigmoid, tanh=ops.tanh, kept=None):
    """Reset before the recurrent product: h̃_t = tanh(U x_t + W (r_t ∘ h_{t-1}) + b)."""
    units = h.shape[-1]
    kept_zr, kept_h = (None, None) if kept is None else (kept[:2], kept[2:])
    z, r, x_h = ops.split(x_U + b, 3, axis=-1)
    h_z, h_r = ops.split(product(h, W[:, : 2 * units], kept_zr), 2, axis=-1)
    z, r = sigmoid(z + h_z), sigmoid(r + h_r)
    h_tilde = tanh(x_h + product(r * h, W[:, 2 * units :], kept_h))
    return GRUStep(z, r, h_tilde, hidden_state=z * h + (1 - z) * h_tilde)


def product(h, W, kept=None):
    """``h @ W``; with dropout each gate sees ``h`` through its own mask, one of ``kept``."""
    if kept is None:
        return ops.matmul(h, W)
    blocks = ops.split(W, len(kept), axis=-1)
    products = [ops.matmul(h * keep, block) for keep, block in zip(kept, blocks, strict=True)]
    return ops.concatenate(products, axis=-1)


# -- the cells -------------------------------------------------------------------------------


def fused_block(weight, gate, doc):
    """A read-only view of one gate's columns of a fused weight, under the chapter's name."""

    def view(self):
        fused = getattr(self, weight)
        if fused is None:
            return None
        column = self.gate_order.index(gate) * self.units
        return ops.convert_to_tensor(fused)[..., column : column + self.units]

    return property(view, doc=doc)


class Cell:
    """What the three cells share: the initial state, dropout and the call around the step.

    ``initial`` is the state before the first step, the same for every row of a batch:

    - ``"zeros"``: no weights, as in Keras.
    - ``"random"``: a vector drawn once from N(0, 0.05²) with the layer's seed, kept as a
      weight that is not trained. Kept, and not drawn anew at each call, so that training,
      evaluation and a served model compute the same function.
    - ``"learned"``: the same weight, trained; it begins at zero.

    The vectors (`initial_hidden_state`, and `initial_cell_state` for the LSTM) come after
    Keras's weights, so the places of those stay. An ``initial_state`` given in a call wins.
    """

    gate_order: tuple = ()
    state_names: tuple = ("hidden_state",)

    def _init_initial(self, initial):
        if initial not in INITIAL_KINDS:
            raise ValueError(f"initial must be one of {INITIAL_KINDS}, received {initial!r}")
        self.initial = initial
        self.initial_vectors = None

    def build(self, input_shape):
        super().build(input_shape)
        if self.initial == "zeros":
            return
        # After Keras's own weights, so that their places in the list stay.
        learned = self.initial == "learned"
        self.initial_vectors = [
            self.add_weight(
                shape=(self.units,),
                name=f"initial_{name}",
                initializer="zeros"
                if learned
                else keras.initializers.RandomNormal(
                    stddev=RANDOM_STATE_STDDEV,
                    seed=None if self.seed is None else self.seed + place,
                ),
                trainable=learned,
            )
            for place, name in enumerate(self.state_names)
        ]

    def get_initial_state(self, batch_size=None):
        """The state before the first step, a list of [batch, units] in the compute dtype."""
        shape = (batch_size, self.units)
        if self.initial == "zeros":
            return [ops.zeros(shape, dtype=self.compute_dtype) for _ in self.state_names]
        if self.initial_vectors is None:
            raise ValueError(
                f"{self.name}: the {self.initial} initial state exists once the cell is built"
            )
        return [
            ops.broadcast_to(ops.cast(vector, self.compute_dtype), shape)
            for vector in self.initial_vectors
        ]

    def input_product(self, x, U, kept=None):
        """``x @ U`` for a step [batch, inputs] or a sequence [time, batch, inputs].

        ``kept`` is None, one dropout mask for all gates, or a list of one for each gate.
        """
        if isinstance(kept, list):
            return product(x, U, kept)
        return ops.matmul(x if kept is None else x * kept, U)

    def dropout_masks(self, x, h, training):
        """The masks on the input and on the hidden state, drawn once for a whole sequence.

        As in Keras a rate of 1 drops nothing, and with ``implementation=1`` (which recurrent
        dropout implies) each gate has masks of its own.
        """
        dropped_x = training and 0.0 < self.dropout < 1.0
        dropped_h = training and 0.0 < self.recurrent_dropout < 1.0
        kept_x = self.get_dropout_mask(x) if dropped_x else None
        kept_h = self.get_recurrent_dropout_mask(h) if dropped_h else None
        if kept_h is not None and not isinstance(kept_h, list):
            kept_h = [kept_h]
        return kept_x, kept_h

    def call(self, inputs, states, training=False):
        nested = isinstance(states, (list, tuple))
        states = list(states) if nested else [states]
        kept_x, kept_h = self.dropout_masks(inputs, states[0], training)
        taken = self.step(
            self.input_product(inputs, self.input_weights(), kept_x),
            states,
            self.step_weights(),
            kept_h,
        )
        next_states = self.states_of(taken)
        return taken.hidden_state, next_states if nested else next_states[0]

    def states_of(self, taken):
        """What a step hands to the next one."""
        return [getattr(taken, name) for name in self.state_names]

    def input_weights(self):
        """U in the compute dtype."""
        return ops.cast(self.kernel, self.compute_dtype)

    def step_weights(self):
        """(W, b) in the compute dtype; read once, before the loop over time."""
        W = ops.cast(self.recurrent_kernel, self.compute_dtype)
        return W, 0.0 if self.bias is None else ops.cast(self.bias, self.compute_dtype)

    def get_config(self):
        config = super().get_config()
        if self.initial != "zeros":
            config["initial"] = self.initial
        # Keras leaves it out; recurrent dropout forces 1 by itself.
        if getattr(self, "implementation", 2) != 2 and not self.recurrent_dropout:
            config["implementation"] = self.implementation
        return config


@keras.saving.register_keras_serializable(package="unfold")
class SimpleRNNCell(Cell, keras.layers.SimpleRNNCell):
    """One step of `layers.SimpleRNN`; a drop-in for `keras.layers.SimpleRNNCell`."""

    gate_order = ("h",)

    def __init__(self, units, *args, initial="zeros", **kwargs):
        super().__init__(units, *args, **kwargs)
        self._init_initial(initial)

    def step(self, x_U, states, weights, kept=None):
        return simple_rnn_step(x_U, *states, *weights, tanh=self.activation, kept=kept)

    U = fused_block("kernel", "h", "kernel, [inputs, units]")
    W = fused_block("recurrent_kernel", "h", "recurrent_kernel, [units, units]")
    b = fused_block("bias", "h", "bias, [units]")


@keras.saving.register_keras_serializable(package="unfold")
class LSTMCell(Cell, keras.layers.LSTMCell):
    """One step of `layers.LSTM`; a drop-in for `keras.layers.LSTMCell`."""

    gate_order = ("i", "f", "g", "o")
    state_names = ("hidden_state", "cell_state")

    def __init__(self, units, *args, initial="zeros", **kwargs):
        super().__init__(units, *args, **kwargs)
        self._init_initial(initial)

    def step(self, x_U, states, weights, kept=None):
        return lstm_step(
            x_U,
            *states,
            *weights,
            sigmoid=self.recurrent_activation,
            tanh=self.activation,
            kept=kept,
        )


@keras.saving.register_keras_serializable(package="unfold")
class GRUCell(Cell, keras.layers.GRUCell):
    """One step of `layers.GRU`; a drop-in for `keras.layers.GRUCell`."""

    gate_order = ("z", "r", "h")

    def __init__(self, units, *args, initial="zeros", **kwargs):
        super().__init__(units, *args, **kwargs)
        self._init_initial(initial)

    def step_weights(self):
        W, b = super().step_weights()
        if not self.reset_after:
            return W, b
        return (W, 0.0, 0.0) if self.bias is None else (W, b[0], b[1])

    def step(self, x_U, states, weights, kept=None):
        equations = gru_step if self.reset_after else gru_step_reset_before
        return equations(
            x_U,
            *states,
            *weights,
            sigmoid=self.recurrent_activation,
            tanh=self.activation,
            kept=kept,
        )

    @property
    def _input_bias(self):
        return self.bias if self.bias is None or not self.reset_after else self.bias[0]

    @property
    def _recurrent_bias(self):
        if not self.reset_after:
            raise AttributeError("with reset_after=False there is one bias and it is b_z, b_r, b_h")
        return None if self.bias is None else self.bias[1]


_WEIGHTS = {
    "U": ("kernel", "[inputs, units]"),
    "W": ("recurrent_kernel", "[units, units]"),
    "b": ("bias", "[units]"),
}
_GRU_BIASES = {"b": ("_input_bias", "[units]"), "b_recurrent": ("_recurrent_bias", "[units]")}


def _add_views(cell, gates, weights):
    """LSTMCell.U_i and its like: the chapter's name for one gate's block of a fused weight."""
    for letter, (weight, shape) in weights.items():
        for gate in gates:
            doc = f"The {gate} block of {weight.strip('_')}, {shape}."
            setattr(cell, f"{letter}_{gate}", fused_block(weight, gate, doc))


_add_views(LSTMCell, LSTMCell.gate_order, _WEIGHTS)
for _letter in _WEIGHTS:  # deprecated: Keras's letter for the candidate
    setattr(LSTMCell, f"{_letter}_c", getattr(LSTMCell, f"{_letter}_g"))
_add_views(GRUCell, GRUCell.gate_order, _WEIGHTS | _GRU_BIASES)
