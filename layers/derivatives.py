"""The derivatives of one step of each cell, as the chapter has them.

z_t is the argument of σ and tanh in step t, z_t = U x_t + b + W h_{t-1}, and σ'(z) is written
with σ(z) itself. `layers.bptt` puts the steps together.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from keras import ops

from layers.backends import Tensor
from layers.equations import gru_step_reset_before, lstm_step, simple_rnn_step

Tensors = Sequence[Tensor]
Join = Callable[[list[Tensor]], Tensor]


def tanh_slope(tanh: Tensor) -> Tensor:
    """Return tanh'(a) = 1 - tanh(a)², given tanh(a)."""
    return 1 - tanh * tanh


def sigmoid_slope(sigma: Tensor) -> Tensor:
    """Return σ'(a) = σ(a) (1 - σ(a)), given σ(a)."""
    return sigma * (1 - sigma)


class Equations(Protocol):
    """The steps of one cell, forwards and backwards."""

    @staticmethod
    def forward(
        x_U: Tensor, states: Tensors, W: Tensor, b_recurrent: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Compute one step.

        Args:
            x_U: <float>[batch, gates], U x_t + b.
            states: the states before the step, each <float>[batch, units].
            W, b_recurrent: <float>[units, gates] and [gates].

        Returns:
            The states after the step, and the values that `factors` and `products` need, each
            <float>[batch, units].
        """
        ...

    @staticmethod
    def factors(before: Tensors, after: Tensors, saved: Tensors) -> list[Tensor]:
        """Return what `backward` multiplies the gradients with, for all steps at once.

        Args:
            before, after: the states before and after every step, each [time, batch, units].
            saved: the other values of `forward`, likewise.

        Returns:
            Arrays <float>[time, batch, units].
        """
        ...

    @staticmethod
    def backward(
        factors: Tensors, d_states: Tensors, W_transposed: Tensor, join: Join
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Pass the gradient through one step.

        Args:
            factors: those of the step.
            d_states: ∂L/∂ the states after the step, each <float>[batch, units].
            W_transposed: Wᵀ.
            join: the backend's concatenation.

        Returns:
            ∂L/∂ the states before the step, and ∂L/∂z_t in the parts that `products` takes.
        """
        ...

    @staticmethod
    def products(
        dz: Tensors, h_before: Tensor, saved: Tensors
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return ∂L/∂z_t as x_t enters it, ∂L/∂W, and ∂L/∂b' (None without a recurrent bias).

        Args:
            dz: the second result of `backward`, of all steps.
            h_before: h_{t-1}, <float>[time, batch, units].
            saved: as for `factors`.
        """
        ...


class SimpleRNN:
    """h_t = tanh(z_t), z_t = U x_t + b + W h_{t-1}.

    ::

        ∂L/∂z_t = ∂L/∂h_t ∘ tanh'(z_t)
    """

    @staticmethod
    def forward(
        x_U: Tensor, states: Tensors, W: Tensor, b_recurrent: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        (h,) = states
        return [simple_rnn_step(x_U, h, W, 0.0).hidden_state], []

    @staticmethod
    def factors(before: Tensors, after: Tensors, saved: Tensors) -> list[Tensor]:
        return [tanh_slope(after[0])]

    @staticmethod
    def backward(
        factors: Tensors, d_states: Tensors, W_transposed: Tensor, join: Join
    ) -> tuple[list[Tensor], list[Tensor]]:
        dz = d_states[0] * factors[0]
        return [ops.matmul(dz, W_transposed)], [dz]

    @staticmethod
    def products(
        dz: Tensors, h_before: Tensor, saved: Tensors
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        return dz[0], sum_over_steps(h_before, dz[0]), None


class LSTM:
    """c_t = f_t ∘ c_{t-1} + i_t ∘ g_t, h_t = o_t ∘ tanh(c_t).

    ::

        ∂L/∂c_t += ∂L/∂h_t ∘ o_t ∘ tanh'(c_t)
        ∂L/∂z_i = ∂L/∂c_t ∘ g_t ∘ σ'(z_i)         ∂L/∂z_f = ∂L/∂c_t ∘ c_{t-1} ∘ σ'(z_f)
        ∂L/∂z_g = ∂L/∂c_t ∘ i_t ∘ tanh'(z_g)      ∂L/∂z_o = ∂L/∂h_t ∘ tanh(c_t) ∘ σ'(z_o)
        ∂L/∂c_{t-1} = ∂L/∂c_t ∘ f_t
    """

    @staticmethod
    def forward(
        x_U: Tensor, states: Tensors, W: Tensor, b_recurrent: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        h, c = states
        i, f, o, g, c, h = lstm_step(x_U, h, c, W, 0.0)
        return [h, c], [i, f, o, g]

    @staticmethod
    def factors(before: Tensors, after: Tensors, saved: Tensors) -> list[Tensor]:
        i, f, o, g = saved
        tanh_c = ops.tanh(after[1])
        return [
            g * sigmoid_slope(i),
            before[1] * sigmoid_slope(f),
            i * tanh_slope(g),
            tanh_c * sigmoid_slope(o),
            o * tanh_slope(tanh_c),
            f,
        ]

    @staticmethod
    def backward(
        factors: Tensors, d_states: Tensors, W_transposed: Tensor, join: Join
    ) -> tuple[list[Tensor], list[Tensor]]:
        c_to_i, c_to_f, c_to_g, h_to_o, h_to_c, f = factors
        dh, dc = d_states
        dc = dc + dh * h_to_c
        dz = join([dc * c_to_i, dc * c_to_f, dc * c_to_g, dh * h_to_o])
        return [ops.matmul(dz, W_transposed), dc * f], [dz]

    @staticmethod
    def products(
        dz: Tensors, h_before: Tensor, saved: Tensors
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        return dz[0], sum_over_steps(h_before, dz[0]), None


class GRU:
    """h_t = z_t ∘ h_{t-1} + (1 - z_t) ∘ h̃_t, h̃_t = tanh(U_h x_t + b_h + r_t ∘ v_t),
    v_t = W_h h_{t-1} + b'_h (``reset_after=True``).

    ::

        ∂L/∂z_z = ∂L/∂h_t ∘ (h_{t-1} - h̃_t) ∘ σ'(z_z)
        ∂L/∂z_h = ∂L/∂h_t ∘ (1 - z_t) ∘ tanh'(z_h)
        ∂L/∂z_r = ∂L/∂z_h ∘ v_t ∘ σ'(z_r)        ∂L/∂v_t = ∂L/∂z_h ∘ r_t
    """

    @staticmethod
    def forward(
        x_U: Tensor, states: Tensors, W: Tensor, b_recurrent: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        (h,) = states
        x_z, x_r, x_h = ops.split(x_U, 3, axis=-1)
        h_z, h_r, v = ops.split(ops.matmul(h, W) + b_recurrent, 3, axis=-1)
        z, r = ops.sigmoid(x_z + h_z), ops.sigmoid(x_r + h_r)
        h_tilde = ops.tanh(x_h + r * v)
        return [z * h + (1 - z) * h_tilde], [z, r, h_tilde, v]

    @staticmethod
    def factors(before: Tensors, after: Tensors, saved: Tensors) -> list[Tensor]:
        z, r, h_tilde, v = saved
        return [
            (before[0] - h_tilde) * sigmoid_slope(z),
            (1 - z) * tanh_slope(h_tilde),
            v * sigmoid_slope(r),
            r,
            z,
        ]

    @staticmethod
    def backward(
        factors: Tensors, d_states: Tensors, W_transposed: Tensor, join: Join
    ) -> tuple[list[Tensor], list[Tensor]]:
        h_to_z, h_to_candidate, candidate_to_r, r, z = factors
        (dh,) = d_states
        dz_h = dh * h_to_candidate
        # As W h_{t-1} enters z_t: the candidate's part has passed the reset gate.
        dv = join([dh * h_to_z, dz_h * candidate_to_r, dz_h * r])
        return [dh * z + ops.matmul(dv, W_transposed)], [dv, dz_h]

    @staticmethod
    def products(
        dz: Tensors, h_before: Tensor, saved: Tensors
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        dv, dz_h = dz
        dz_x = ops.concatenate([dv[..., : 2 * dz_h.shape[-1]], dz_h], axis=-1)
        return dz_x, sum_over_steps(h_before, dv), ops.sum(dv, axis=(0, 1))


class GRUResetBefore:
    """h̃_t = tanh(U_h x_t + b_h + W_h (r_t ∘ h_{t-1})), with two products per step.

    As `GRU` but for::

        ∂L/∂(r_t ∘ h_{t-1}) = W_hᵀ ∂L/∂z_h
        ∂L/∂z_r = ∂L/∂(r_t ∘ h_{t-1}) ∘ h_{t-1} ∘ σ'(z_r)
    """

    @staticmethod
    def forward(
        x_U: Tensor, states: Tensors, W: Tensor, b_recurrent: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        (h,) = states
        z, r, h_tilde, h = gru_step_reset_before(x_U, h, W, 0.0)
        return [h], [z, r, h_tilde]

    @staticmethod
    def factors(before: Tensors, after: Tensors, saved: Tensors) -> list[Tensor]:
        z, r, h_tilde = saved
        return [
            (before[0] - h_tilde) * sigmoid_slope(z),
            (1 - z) * tanh_slope(h_tilde),
            before[0] * sigmoid_slope(r),
            r,
            z,
        ]

    @staticmethod
    def backward(
        factors: Tensors, d_states: Tensors, W_transposed: Tensor, join: Join
    ) -> tuple[list[Tensor], list[Tensor]]:
        h_to_z, h_to_candidate, reset_to_r, r, z = factors
        (dh,) = d_states
        units = dh.shape[-1]
        W_zr, W_h = W_transposed[: 2 * units], W_transposed[2 * units :]
        dz_h = dh * h_to_candidate
        d_reset = ops.matmul(dz_h, W_h)
        dz_zr = join([dh * h_to_z, d_reset * reset_to_r])
        return [dh * z + d_reset * r + ops.matmul(dz_zr, W_zr)], [dz_zr, dz_h]

    @staticmethod
    def products(
        dz: Tensors, h_before: Tensor, saved: Tensors
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        dz_zr, dz_h = dz
        r = saved[1]
        dW = [sum_over_steps(h_before, dz_zr), sum_over_steps(r * h_before, dz_h)]
        return ops.concatenate([dz_zr, dz_h], axis=-1), ops.concatenate(dW, axis=-1), None


def sum_over_steps(a: Tensor, b: Tensor) -> Tensor:
    """Return Σ_t a_tᵀ b_t over steps and rows as one product, <float>[m, n].

    Args:
        a, b: <float>[time, batch, m] and [time, batch, n].
    """
    a, b = (ops.reshape(s, (-1, s.shape[-1])) for s in (a, b))
    return ops.matmul(ops.transpose(a), b)
