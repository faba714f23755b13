"""The cells: the weights of one time step, and the initial state.

They are Keras's cells (same arguments, same weights in the same order, same config) whose `call`
is one of the step functions of `layers.equations`, with an initial state that may be zero,
random or learned.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from layers.backends import Tensor
from layers.equations import (
    Activation,
    DropoutMasks,
    GRUStep,
    LSTMStep,
    SimpleRNNStep,
    gru_step,
    gru_step_reset_before,
    lstm_step,
    product,
    simple_rnn_step,
)

INITIAL_KINDS = ("zeros", "random", "learned")
RANDOM_STATE_STDDEV = 0.05  # small against the (-1, 1) of a hidden state


def gate_view(weight: str, gate: str, doc: str) -> property:
    """Return a read-only property: one gate's block of the attribute ``weight`` of a cell."""

    def view(self: Any) -> Tensor | None:
        all_gates = getattr(self, weight)
        if all_gates is None:
            return None
        column = self.gate_order.index(gate) * self.units
        return ops.convert_to_tensor(all_gates)[..., column : column + self.units]

    return property(view, doc=doc)


class Cell:
    """Base of the three cells: the initial state, dropout, and the call around the step.

    ``initial`` is the state before the first step, the same for every row of a batch:

    - ``"zeros"``: no weights, as in Keras.
    - ``"random"``: a vector drawn once from N(0, 0.05²) with the layer's seed, stored as a
      weight that is not trained. It is stored, and not drawn again at each call, so that
      training, evaluation and a served model compute the same function.
    - ``"learned"``: the same weight, trained; it starts at zero.

    The vectors (`initial_hidden_state`, and `initial_cell_state` for the LSTM) come after
    Keras's weights, whose positions stay. An ``initial_state`` passed to a call takes
    precedence.
    """

    gate_order: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ("hidden_state",)

    # What Keras's cells bring.
    units: int
    name: str
    seed: int | None
    kernel: Any
    recurrent_kernel: Any
    bias: Any
    activation: Activation
    compute_dtype: str
    dropout: float
    recurrent_dropout: float
    implementation: int
    add_weight: Callable[..., Any]
    get_dropout_mask: Callable[[Tensor], Tensor]
    get_recurrent_dropout_mask: Callable[[Tensor], Tensor]

    def _init_initial(self, initial: str) -> None:
        if initial not in INITIAL_KINDS:
            raise ValueError(f"initial must be one of {INITIAL_KINDS}, received {initial!r}")
        self.initial = initial
        self.initial_vectors: list[Any] | None = None

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)  # type: ignore[misc]
        if self.initial == "zeros":
            return
        # After Keras's own weights, so that their positions in the list stay.
        learned = self.initial == "learned"
        self.initial_vectors = [
            self.add_weight(
                shape=(self.units,),
                name=f"initial_{name}",
                initializer="zeros"
                if learned
                else keras.initializers.RandomNormal(
                    stddev=RANDOM_STATE_STDDEV,
                    seed=None if self.seed is None else self.seed + index,
                ),
                trainable=learned,
            )
            for index, name in enumerate(self.state_names)
        ]

    def get_initial_state(self, batch_size: Any = None) -> list[Tensor]:
        """Return the states before the first step, each [batch, units] in the compute dtype."""
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

    def input_product(
        self, x: Tensor, U: Tensor, dropout: Tensor | list[Tensor] | None = None
    ) -> Tensor:
        """Return ``x @ U`` of a step [batch, inputs] or of a sequence [time, batch, inputs].

        Args:
            dropout: None, one mask for all gates, or a list of one for each gate.
        """
        if isinstance(dropout, list):
            return product(x, U, dropout)
        return ops.matmul(x if dropout is None else x * dropout, U)

    def dropout_masks(
        self, x: Tensor, h: Tensor, training: bool
    ) -> tuple[Tensor | list[Tensor] | None, list[Tensor] | None]:
        """Return the masks on the input and on the hidden state, drawn once per sequence.

        As in Keras, a rate of 1 drops nothing, and with ``implementation=1`` (which recurrent
        dropout implies) each gate has masks of its own.
        """
        drops_x = training and 0.0 < self.dropout < 1.0
        drops_h = training and 0.0 < self.recurrent_dropout < 1.0
        x_masks = self.get_dropout_mask(x) if drops_x else None
        h_masks = self.get_recurrent_dropout_mask(h) if drops_h else None
        if h_masks is not None and not isinstance(h_masks, list):
            h_masks = [h_masks]
        return x_masks, h_masks

    def call(self, inputs: Tensor, states: Any, training: bool = False) -> tuple[Tensor, Any]:
        nested = isinstance(states, (list, tuple))
        states = list(states) if nested else [states]
        x_masks, h_masks = self.dropout_masks(inputs, states[0], training)
        values = self.step(
            self.input_product(inputs, self.input_weights(), x_masks),
            states,
            self.step_weights(),
            h_masks,
        )
        next_states = self.next_states(values)
        return values.hidden_state, next_states if nested else next_states[0]

    def step(
        self,
        x_U: Tensor,
        states: list[Tensor],
        weights: tuple[Tensor, ...],
        dropout: DropoutMasks = None,
    ) -> Any:
        """Compute one step, by the equations of the cell.

        Args:
            x_U: the product x_t @ U.
            states: the states before the step.
            weights: `step_weights`.
            dropout: masks on the hidden state, see `product`.

        Returns:
            `SimpleRNNStep`, `LSTMStep` or `GRUStep`.
        """
        raise NotImplementedError

    def next_states(self, values: Any) -> list[Tensor]:
        """Return the states among the values of a step, in the order of `state_names`."""
        return [getattr(values, name) for name in self.state_names]

    def input_weights(self) -> Tensor:
        """Return U in the compute dtype."""
        return ops.cast(self.kernel, self.compute_dtype)

    def step_weights(self) -> tuple[Tensor, ...]:
        """Return (W, b) in the compute dtype; they are read once, before the loop over time."""
        W = ops.cast(self.recurrent_kernel, self.compute_dtype)
        return W, 0.0 if self.bias is None else ops.cast(self.bias, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return Keras's config, and what differs from Keras where it was set."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        if self.initial != "zeros":
            config["initial"] = self.initial
        # Keras leaves it out; recurrent dropout forces 1 by itself.
        if getattr(self, "implementation", 2) != 2 and not self.recurrent_dropout:
            config["implementation"] = self.implementation
        return config


@keras.saving.register_keras_serializable(package="unfold")
class SimpleRNNCell(Cell, keras.layers.SimpleRNNCell):
    """One step of `layers.SimpleRNN`; a drop-in replacement for `keras.layers.SimpleRNNCell`."""

    gate_order = ("h",)

    def __init__(self, units: int, *args: Any, initial: str = "zeros", **kwargs: Any) -> None:
        super().__init__(units, *args, **kwargs)
        self._init_initial(initial)

    def step(
        self,
        x_U: Tensor,
        states: list[Tensor],
        weights: tuple[Tensor, ...],
        dropout: DropoutMasks = None,
    ) -> SimpleRNNStep:
        (h,), (W, b) = states, weights
        return simple_rnn_step(x_U, h, W, b, tanh=self.activation, dropout=dropout)

    U = gate_view("kernel", "h", "kernel, [inputs, units]")
    W = gate_view("recurrent_kernel", "h", "recurrent_kernel, [units, units]")
    b = gate_view("bias", "h", "bias, [units]")


@keras.saving.register_keras_serializable(package="unfold")
class LSTMCell(Cell, keras.layers.LSTMCell):
    """One step of `layers.LSTM`; a drop-in replacement for `keras.layers.LSTMCell`."""

    gate_order = ("i", "f", "g", "o")
    state_names = ("hidden_state", "cell_state")
    recurrent_activation: Activation

    def __init__(self, units: int, *args: Any, initial: str = "zeros", **kwargs: Any) -> None:
        super().__init__(units, *args, **kwargs)
        self._init_initial(initial)

    def step(
        self,
        x_U: Tensor,
        states: list[Tensor],
        weights: tuple[Tensor, ...],
        dropout: DropoutMasks = None,
    ) -> LSTMStep:
        (h, c), (W, b) = states, weights
        return lstm_step(
            x_U,
            h,
            c,
            W,
            b,
            sigmoid=self.recurrent_activation,
            tanh=self.activation,
            dropout=dropout,
        )


@keras.saving.register_keras_serializable(package="unfold")
class GRUCell(Cell, keras.layers.GRUCell):
    """One step of `layers.GRU`; a drop-in replacement for `keras.layers.GRUCell`."""

    gate_order = ("z", "r", "h")
    recurrent_activation: Activation
    reset_after: bool

    def __init__(self, units: int, *args: Any, initial: str = "zeros", **kwargs: Any) -> None:
        super().__init__(units, *args, **kwargs)
        self._init_initial(initial)

    def step_weights(self) -> tuple[Tensor, ...]:
        """Return (W, b), or (W, b, b') with ``reset_after``, in the compute dtype."""
        W, b = super().step_weights()
        if not self.reset_after:
            return W, b
        return (W, 0.0, 0.0) if self.bias is None else (W, b[0], b[1])

    def step(
        self,
        x_U: Tensor,
        states: list[Tensor],
        weights: tuple[Tensor, ...],
        dropout: DropoutMasks = None,
    ) -> GRUStep:
        (h,), (W, *biases) = states, weights
        equations: Any = gru_step if self.reset_after else gru_step_reset_before
        values: GRUStep = equations(
            x_U,
            h,
            W,
            *biases,
            sigmoid=self.recurrent_activation,
            tanh=self.activation,
            dropout=dropout,
        )
        return values

    @property
    def _input_bias(self) -> Any:
        return self.bias if self.bias is None or not self.reset_after else self.bias[0]

    @property
    def _recurrent_bias(self) -> Any:
        if not self.reset_after:
            raise AttributeError("with reset_after=False there is one bias: b_z, b_r and b_h")
        return None if self.bias is None else self.bias[1]


_WEIGHTS = {
    "U": ("kernel", "[inputs, units]"),
    "W": ("recurrent_kernel", "[units, units]"),
    "b": ("bias", "[units]"),
}
_GRU_BIASES = {"b": ("_input_bias", "[units]"), "b_recurrent": ("_recurrent_bias", "[units]")}


def _add_gate_views(cell: type[Cell], weights: dict[str, tuple[str, str]]) -> None:
    """Add ``U_i``, ``U_f``, …: one gate's block of a weight, under the chapter's name."""
    for letter, (weight, shape) in weights.items():
        for gate in cell.gate_order:
            doc = f"The {gate} block of {weight.strip('_')}, {shape}."
            setattr(cell, f"{letter}_{gate}", gate_view(weight, gate, doc))


_add_gate_views(LSTMCell, _WEIGHTS)
_add_gate_views(GRUCell, _WEIGHTS | _GRU_BIASES)
for _letter in _WEIGHTS:  # deprecated: the candidate's earlier letter, which is Keras's
    setattr(LSTMCell, f"{_letter}_c", getattr(LSTMCell, f"{_letter}_g"))
