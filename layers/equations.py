"""The equations of one time step of the three cells.

The chapter writes column vectors, ``U x_t + W h_{t-1} + b``. Keras stores the transposes and
multiplies rows, ``x_t @ kernel + h_{t-1} @ recurrent_kernel + bias``, so that a batch is one
product. Here U, W and b are Keras's arrays: ``U`` is ``kernel``, ``W`` is ``recurrent_kernel``,
and the gates lie side by side along the last axis.

Each step function takes ``x_U``, the product ``x_t @ U``: it does not depend on the recurrence,
so it can be computed step by step or for all steps at once. A step returns everything it
computed by name, the next state included.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from keras import ops

from layers.backends import Tensor

Activation = Callable[[Tensor], Tensor]
DropoutMasks = Sequence[Tensor] | None


class SimpleRNNStep(NamedTuple):
    """The values of one step, each <float>[batch, units]."""

    pre_activation: Tensor
    hidden_state: Tensor


class LSTMStep(NamedTuple):
    """The values of one step, each <float>[batch, units]: i_t, f_t, o_t, g_t, c_t, h_t."""

    input_gate: Tensor
    forget_gate: Tensor
    output_gate: Tensor
    candidate: Tensor
    cell_state: Tensor
    hidden_state: Tensor


class GRUStep(NamedTuple):
    """The values of one step, each <float>[batch, units]: z_t, r_t, h̃_t, h_t."""

    update_gate: Tensor
    reset_gate: Tensor
    candidate: Tensor
    hidden_state: Tensor


def simple_rnn_step(
    x_U: Tensor,
    h: Tensor,
    W: Tensor,
    b: Tensor,
    tanh: Activation = ops.tanh,
    dropout: DropoutMasks = None,
) -> SimpleRNNStep:
    """Compute h_t = tanh(U x_t + W h_{t-1} + b).

    Args:
        x_U: <float>[batch, units], the product U x_t.
        h: <float>[batch, units], the hidden state h_{t-1}.
        W: <float>[units, units].
        b: <float>[units].
        tanh: the activation.
        dropout: masks on ``h``, see `product`.
    """
    a = x_U + product(h, W, dropout) + b
    return SimpleRNNStep(pre_activation=a, hidden_state=tanh(a))


def lstm_step(
    x_U: Tensor,
    h: Tensor,
    c: Tensor,
    W: Tensor,
    b: Tensor,
    sigmoid: Activation = ops.sigmoid,
    tanh: Activation = ops.tanh,
    dropout: DropoutMasks = None,
) -> LSTMStep:
    """Compute the three gates, the candidate and both states of an LSTM.

    ::

        i_t, f_t, o_t = σ(U x_t + W h_{t-1} + b)        with U_i, W_i, b_i; U_f, …; U_o, …
        g_t = tanh(U_g x_t + W_g h_{t-1} + b_g)
        c_t = f_t ∘ c_{t-1} + i_t ∘ g_t                 selective forget, selective write
        h_t = o_t ∘ tanh(c_t)                           selective read

    Args:
        x_U: <float>[batch, 4 units], the products U x_t of i, f, g and o.
        h, c: <float>[batch, units], the states h_{t-1} and c_{t-1}.
        W: <float>[units, 4 units].
        b: <float>[4 units].
        sigmoid, tanh: the activations of the gates, and of the candidate and the cell state.
        dropout: masks on ``h``, see `product`.
    """
    i, f, g, o = ops.split(x_U + product(h, W, dropout) + b, 4, axis=-1)
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    c = f * c + i * g
    h = o * tanh(c)
    return LSTMStep(i, f, o, candidate=g, cell_state=c, hidden_state=h)


def gru_step(
    x_U: Tensor,
    h: Tensor,
    W: Tensor,
    b: Tensor,
    b_recurrent: Tensor,
    sigmoid: Activation = ops.sigmoid,
    tanh: Activation = ops.tanh,
    dropout: DropoutMasks = None,
) -> GRUStep:
    """Compute a GRU whose reset gate acts after the recurrent product.

    ::

        z_t, r_t = σ(U x_t + b + W h_{t-1} + b')        with U_z, W_z, …; U_r, W_r, …
        h̃_t = tanh(U_h x_t + b_h + r_t ∘ (W_h h_{t-1} + b'_h))
        h_t = z_t ∘ h_{t-1} + (1 - z_t) ∘ h̃_t

    Args:
        x_U: <float>[batch, 3 units], the products U x_t of z, r and h.
        h: <float>[batch, units], the hidden state h_{t-1}.
        W: <float>[units, 3 units].
        b, b_recurrent: <float>[3 units], b and b'.
        sigmoid, tanh: the activations of the gates and of the candidate.
        dropout: masks on ``h``, see `product`.
    """
    z, r, x_h = ops.split(x_U + b, 3, axis=-1)
    h_z, h_r, h_h = ops.split(product(h, W, dropout) + b_recurrent, 3, axis=-1)
    z, r = sigmoid(z + h_z), sigmoid(r + h_r)
    h_tilde = tanh(x_h + r * h_h)
    return GRUStep(z, r, h_tilde, hidden_state=z * h + (1 - z) * h_tilde)


def gru_step_reset_before(
    x_U: Tensor,
    h: Tensor,
    W: Tensor,
    b: Tensor,
    sigmoid: Activation = ops.sigmoid,
    tanh: Activation = ops.tanh,
    dropout: DropoutMasks = None,
) -> GRUStep:
    """Compute a GRU whose reset gate acts before the recurrent product.

    Arguments and result as for `gru_step`, with a single bias::

        h̃_t = tanh(U_h x_t + W_h (r_t ∘ h_{t-1}) + b_h)
    """
    units = h.shape[-1]
    dropout_zr, dropout_h = (None, None) if dropout is None else (dropout[:2], dropout[2:])
    z, r, x_h = ops.split(x_U + b, 3, axis=-1)
    h_z, h_r = ops.split(product(h, W[:, : 2 * units], dropout_zr), 2, axis=-1)
    z, r = sigmoid(z + h_z), sigmoid(r + h_r)
    h_tilde = tanh(x_h + product(r * h, W[:, 2 * units :], dropout_h))
    return GRUStep(z, r, h_tilde, hidden_state=z * h + (1 - z) * h_tilde)


def product(h: Tensor, W: Tensor, dropout: DropoutMasks = None) -> Tensor:
    """Return ``h @ W``; with dropout, each block of W multiplies ``h`` under a mask of its own.

    Args:
        h: <float>[batch, n].
        W: <float>[n, m].
        dropout: masks <float>[batch, n], one for each gate or a single one for all; None for
            no dropout.
    """
    if dropout is None:
        return ops.matmul(h, W)
    blocks = ops.split(W, len(dropout), axis=-1)
    products = [ops.matmul(h * mask, block) for mask, block in zip(dropout, blocks, strict=True)]
    return ops.concatenate(products, axis=-1)
