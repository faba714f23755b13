"""The chapter's three recurrent layers.

They differ only in the equations of one step: see `layers.equations` for those as code,
`layers.unfold` for the loop over time, and `layers.derivatives` and `layers.bptt` for the gradient.

All three take the arguments of the layer of the same name in Keras, in the same order, and
hold the same weights, so weights and configs can be moved both ways. In addition to Keras's:

Args:
    initial: the state before the first step, ``"zeros"``, ``"random"`` or ``"learned"``; see
        `layers.cells.Cell`.
    truncate: None, or k for truncated backpropagation through time: no gradient passes from
        a row's step t to step t - 1 where t is k, 2k, 3k, ..., counted from 0 in the order of
        processing and without padding. Values do not change. A k of at least the sequence's
        length is the same as None.

Call arguments:
    sequences: float [batch, time, inputs].
    mask: bool [batch, time], True where a step is real.
    lengths: int [batch], the number of real steps of each row, instead of a mask. A row of
        length 0 returns its initial state. Unlike a mask, lengths are not passed on to the next
        layer: pass them to each.
    initial_state: [batch, units], or a list of them (LSTM: h and c), instead of ``initial``.
    training: whether dropout is active.

Returns:
    In the compute dtype: the last hidden state [batch, units], or with ``return_sequences``
    that of every step [batch, time, units]; with ``return_state``, followed by the last
    states, each [batch, units]. At a padded step the output is the previous one, or zero with
    ``zero_output_for_mask``; before a row's first real step it is zero.

Raises:
    ValueError: lengths and a mask were both given; lengths are not whole numbers [batch];
        ``truncate`` is not a whole number of at least 1; ``initial`` is not one of the three,
        or ``"learned"`` in a stateful layer; ``unroll`` and an unknown number of steps; the
        number of rows differs from a stateful layer's; the number of initial states is wrong;
        ``use_cudnn=True`` where training cannot take that path.

The chapter writes U, W and b for column vectors, U of [units, inputs]. The views ``U``, ``W``,
``b`` and their blocks by gate are Keras's arrays, the transposes: ``U_i`` is [inputs, units], in
``x_t @ U_i``. They are read-only.
"""

import keras

from layers import derivatives
from layers.base import RecurrentLayer
from layers.cells import GRUCell, LSTMCell, SimpleRNNCell


@keras.saving.register_keras_serializable(package="unfold")
class SimpleRNN(RecurrentLayer):
    """The recurrent layer of Elman (1990)::

        h_t = tanh(U x_t + W h_{t-1} + b)

    Weights, by the chapter's name and Keras's:

    - ``U``, kernel [inputs, units]
    - ``W``, recurrent_kernel [units, units]
    - ``b``, bias [units]

    The chapter's output y_t = O(V h_t + c) is a `keras.layers.Dense` on what this returns.
    `trace` returns ``pre_activation`` (the argument of tanh) and ``hidden_state``. Its
    gradient through time shrinks or grows like powers of W (Werbos 1990): see `LSTM`.

    Arguments, shapes and errors: the module's docstring and `keras.layers.SimpleRNN`.
    """

    cell_class = SimpleRNNCell
    cell_name = "simple_rnn_cell"
    keras_class = keras.layers.SimpleRNN
    keras_cell_class = keras.layers.SimpleRNNCell

    def equations(self) -> type[derivatives.Equations]:
        return derivatives.SimpleRNN


@keras.saving.register_keras_serializable(package="unfold")
class LSTM(RecurrentLayer):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000)::

        i_t = σ(U_i x_t + W_i h_{t-1} + b_i)        input gate: how much to write
        f_t = σ(U_f x_t + W_f h_{t-1} + b_f)        forget gate: how much to keep
        o_t = σ(U_o x_t + W_o h_{t-1} + b_o)        output gate: how much to read
        g_t = tanh(U_g x_t + W_g h_{t-1} + b_g)     candidate: what to write
        c_t = f_t ∘ c_{t-1} + i_t ∘ g_t             selective forget, selective write
        h_t = o_t ∘ tanh(c_t)                       selective read

    σ is ``recurrent_activation``, tanh is ``activation``. Weights, the four blocks side by
    side in Keras's order i, f, g, o (Keras calls the candidate c):

    - ``U_i U_f U_g U_o``, each [inputs, units]: kernel [inputs, 4 units]
    - ``W_i W_f W_g W_o``, each [units, units]: recurrent_kernel [units, 4 units]
    - ``b_i b_f b_g b_o``, each [units]: bias [4 units]

    The state is [h, c]. `trace` returns ``input_gate``, ``forget_gate``, ``output_gate``,
    ``candidate``, ``cell_state`` and ``hidden_state``.

    Arguments, shapes and errors: the module's docstring and `keras.layers.LSTM`.
    """

    cell_class = LSTMCell
    cell_name = "lstm_cell"
    keras_class = keras.layers.LSTM
    keras_cell_class = keras.layers.LSTMCell

    def equations(self) -> type[derivatives.Equations]:
        return derivatives.LSTM


@keras.saving.register_keras_serializable(package="unfold")
class GRU(RecurrentLayer):
    """Gated recurrent unit (Cho et al. 2014)::

        z_t = σ(U_z x_t + W_z h_{t-1} + b_z)                update gate: how much to keep
        r_t = σ(U_r x_t + W_r h_{t-1} + b_r)                reset gate: how much to read
        h̃_t = tanh(U_h x_t + W_h (r_t ∘ h_{t-1}) + b_h)     candidate, reset_after=False
        h_t = z_t ∘ h_{t-1} + (1 - z_t) ∘ h̃_t

    With ``reset_after=True``, Keras's default, the reset gate acts after the product, and the
    recurrent side has its own bias b', which is added in z_t and r_t as well::

        h̃_t = tanh(U_h x_t + b_h + r_t ∘ (W_h h_{t-1} + b'_h))     candidate, reset_after=True

    σ is ``recurrent_activation``, tanh is ``activation``. Weights, the three blocks side by
    side in Keras's order z, r, h:

    - ``U_z U_r U_h``, each [inputs, units]: kernel [inputs, 3 units]
    - ``W_z W_r W_h``, each [units, units]: recurrent_kernel [units, 3 units]
    - ``b_z b_r b_h``, each [units]: bias [3 units], or with ``reset_after`` its row 0
    - ``b_recurrent_z b_recurrent_r b_recurrent_h``, the b': row 1 of bias [2, 3 units]

    `trace` returns ``update_gate``, ``reset_gate``, ``candidate`` and ``hidden_state``.

    Arguments, shapes and errors: the module's docstring and `keras.layers.GRU`.
    """

    cell_class = GRUCell
    cell_name = "gru_cell"
    keras_class = keras.layers.GRU
    keras_cell_class = keras.layers.GRUCell

    def equations(self) -> type[derivatives.Equations]:
        return derivatives.GRU if self.reset_after else derivatives.GRUResetBefore
