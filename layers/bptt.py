"""Backpropagation through time, derived by hand, for a block of steps.

Differentiating the unfolded loop by machine keeps every intermediate of every step and adds to
each weight's gradient once a step. The chapter's derivation shows what there is to save:

- what enters a step from outside, U x_t + b, is one product for all steps;
- what a step's gradient is multiplied with (the derivatives of its gates) depends on the way
  forwards only, so it is had for all steps at once;
- between steps only the gradient of the state travels, ∂L/∂h_{t-1} = Wᵀ ∂L/∂z_t;
- with ∂L/∂z_t of all steps known, ∂L/∂U = Σ x_tᵀ ∂L/∂z_t, ∂L/∂W = Σ h_{t-1}ᵀ ∂L/∂z_t and
  ∂L/∂x_t = Uᵀ ∂L/∂z_t are one product each.

z_t is what the gates' σ and tanh are taken of. Source: Werbos (1990), and Hochreiter &
Schmidhuber (1997), appendix A.1, for the LSTM without its truncation.

A backend brings two things: ``scan``, its loop over the first axis, and ``join``, which puts
arrays side by side. See `layers.bptt_tensorflow` and `layers.bptt_jax`.
"""

from keras import ops

from layers.cells import gru_step_reset_before, lstm_step, simple_rnn_step


def tanh_slope(tanh):
    """tanh'(a), by tanh(a)."""
    return 1 - tanh * tanh


def sigmoid_slope(sigma):
    """σ'(a), by σ(a)."""
    return sigma * (1 - sigma)


class SimpleRNN:
    """h_t = tanh(z_t), z_t = U x_t + b + W h_{t-1}.

    ::

        ∂L/∂z_t = ∂L/∂h_t ∘ tanh'(z_t)
    """

    @staticmethod
    def forward(x_U, states, W, b_recurrent):
        return [simple_rnn_step(x_U, *states, W, 0.0).hidden_state], []

    @staticmethod
    def factors(before, after, kept):
        return [tanh_slope(after[0])]

    @staticmethod
    def backward(factors, d_states, W_turned, join):
        dz = d_states[0] * factors[0]
        return [ops.matmul(dz, W_turned)], [dz]

    @staticmethod
    def products(dz, h_before, kept):
        return dz[0], over_steps(h_before, dz[0]), None


class LSTM:
    """c_t = f_t ∘ c_{t-1} + i_t ∘ g_t, h_t = o_t ∘ tanh(c_t).

    ::

        ∂L/∂c_t += ∂L/∂h_t ∘ o_t ∘ tanh'(c_t)
        ∂L/∂z_i = ∂L/∂c_t ∘ g_t ∘ σ'(z_i)         ∂L/∂z_f = ∂L/∂c_t ∘ c_{t-1} ∘ σ'(z_f)
        ∂L/∂z_g = ∂L/∂c_t ∘ i_t ∘ tanh'(z_g)      ∂L/∂z_o = ∂L/∂h_t ∘ tanh(c_t) ∘ σ'(z_o)
        ∂L/∂c_{t-1} = ∂L/∂c_t ∘ f_t
    """

    @staticmethod
    def forward(x_U, states, W, b_recurrent):
        i, f, o, g, c, h = lstm_step(x_U, *states, W, 0.0)
        return [h, c], [i, f, o, g]

    @staticmethod
    def factors(before, after, kept):
        i, f, o, g = kept
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
    def backward(factors, d_states, W_turned, join):
        to_i, to_f, to_g, to_o, h_to_c, f = factors
        dh, dc = d_states
        dc = dc + dh * h_to_c
        dz = join([dc * to_i, dc * to_f, dc * to_g, dh * to_o])
        return [ops.matmul(dz, W_turned), dc * f], [dz]

    @staticmethod
    def products(dz, h_before, kept):
        return dz[0], over_steps(h_before, dz[0]), None


class GRU:
    """h_t = z_t ∘ h_{t-1} + (1 - z_t) ∘ h̃_t, h̃_t = tanh(U_h x_t + b_h + r_t ∘ v_t),
    v_t = W_h h_{t-1} + b'_h (``reset_after=True``).

    ::

        ∂L/∂z_z = ∂L/∂h_t ∘ (h_{t-1} - h̃_t) ∘ σ'(z_z)
        ∂L/∂z_h = ∂L/∂h_t ∘ (1 - z_t) ∘ tanh'(z_h)
        ∂L/∂z_r = ∂L/∂z_h ∘ v_t ∘ σ'(z_r)        ∂L/∂v_t = ∂L/∂z_h ∘ r_t
    """

    @staticmethod
    def forward(x_U, states, W, b_recurrent):
        (h,) = states
        x_z, x_r, x_h = ops.split(x_U, 3, axis=-1)
        h_z, h_r, v = ops.split(ops.matmul(h, W) + b_recurrent, 3, axis=-1)
        z, r = ops.sigmoid(x_z + h_z), ops.sigmoid(x_r + h_r)
        h_tilde = ops.tanh(x_h + r * v)
        return [z * h + (1 - z) * h_tilde], [z, r, h_tilde, v]

    @staticmethod
    def factors(before, after, kept):
        z, r, h_tilde, v = kept
        return [
            (before[0] - h_tilde) * sigmoid_slope(z),
            (1 - z) * tanh_slope(h_tilde),
            v * sigmoid_slope(r),
            r,
            z,
        ]

    @staticmethod
    def backward(factors, d_states, W_turned, join):
        to_z, to_h, h_to_r, r, z = factors
        (dh,) = d_states
        dz_h = dh * to_h
        # What W sees: the candidate's part has passed the reset gate.
        dv = join([dh * to_z, dz_h * h_to_r, dz_h * r])
        return [dh * z + ops.matmul(dv, W_turned)], [dv, dz_h]

    @staticmethod
    def products(dz, h_before, kept):
        dv, dz_h = dz
        dz_x = ops.concatenate([dv[..., : 2 * dz_h.shape[-1]], dz_h], axis=-1)
        return dz_x, over_steps(h_before, dv), ops.sum(dv, axis=(0, 1))


class GRUResetBefore:
    """h̃_t = tanh(U_h x_t + b_h + W_h (r_t ∘ h_{t-1})): the chapter's order, two products a step.

    ::

        ∂L/∂(r_t ∘ h_{t-1}) = W_hᵀ ∂L/∂z_h
    """

    @staticmethod
    def forward(x_U, states, W, b_recurrent):
        z, r, h_tilde, h = gru_step_reset_before(x_U, *states, W, 0.0)
        return [h], [z, r, h_tilde]

    @staticmethod
    def factors(before, after, kept):
        z, r, h_tilde = kept
        return [
            (before[0] - h_tilde) * sigmoid_slope(z),
            (1 - z) * tanh_slope(h_tilde),
            before[0] * sigmoid_slope(r),
            r,
            z,
        ]

    @staticmethod
    def backward(factors, d_states, W_turned, join):
        to_z, to_h, to_r, r, z = factors
        (dh,) = d_states
        units = dh.shape[-1]
        W_zr, W_h = W_turned[: 2 * units], W_turned[2 * units :]
        dz_h = dh * to_h
        d_reset = ops.matmul(dz_h, W_h)
        dz_zr = join([dh * to_z, d_reset * to_r])
        return [dh * z + d_reset * r + ops.matmul(dz_zr, W_zr)], [dz_zr, dz_h]

    @staticmethod
    def products(dz, h_before, kept):
        dz_zr, dz_h = dz
        r = kept[1]
        dW = [over_steps(h_before, dz_zr), over_steps(r * h_before, dz_h)]
        return ops.concatenate([dz_zr, dz_h], axis=-1), ops.concatenate(dW, axis=-1), None


def at_each_step(x, weights):
    """``x @ weights`` for all steps and rows as one product, [time, batch, m] to [..., n]."""
    flat = ops.matmul(ops.reshape(x, (-1, x.shape[-1])), weights)
    return ops.reshape(flat, (*ops.shape(x)[:2], weights.shape[-1]))


def over_steps(a, b):
    """Σ_t a_tᵀ b_t over steps and rows, one product: [time, batch, m], [time, batch, n]."""
    a, b = (ops.reshape(s, (-1, s.shape[-1])) for s in (a, b))
    return ops.matmul(ops.transpose(a), b)


def forward(equations, scan, x, states, U, W, b, b_recurrent, mask):
    """A block of steps forwards.

    Args:
        equations: one of the classes above.
        x: [time, batch, inputs]; ``mask`` bool [time, batch, 1] or None.
        states: the states before the block, each [batch, units].

    Returns:
        The states after the block, the states after each step, and what else `backward` wants
        of each step, all [time, batch, units].
    """
    if mask is not None:
        # Not only ignored: 0 times a padding of inf or NaN would be NaN in U's gradient.
        x = ops.where(mask, x, ops.zeros_like(x))
    x_U = at_each_step(x, U) + b

    def step(states, now):
        after, kept = equations.forward(now[0], states, W, b_recurrent)
        if mask is not None:
            after = [ops.where(now[1], a, s) for a, s in zip(after, states, strict=True)]
        return after, [*after, *kept]

    last, steps = scan(step, states, [x_U] if mask is None else [x_U, mask])
    return last, steps[: len(states)], steps[len(states) :]


def backward(
    equations, scan, join, x, states, after, kept, U, W_turned, mask, cuts, d_hidden, d_last
):
    """The same block backwards.

    Args:
        states, after, kept: what `forward` was given and what it returned.
        W_turned: Wᵀ, turned once for all steps of all blocks: turned at every step it costs as
            much as the gates.
        cuts: bool [time, batch or 1, 1], where no gradient leaves the step towards the one
            before; None for nowhere.
        d_hidden: ∂L/∂h_t of each step, [time, batch, units]; None for zero.
        d_last: the gradients of the states after the block.

    Returns:
        ∂L/∂x [time, batch, inputs], the gradients of the states before the block, and those of
        U, W, b and b_recurrent (of b's shape).
    """
    before = [
        ops.concatenate([first[None], s[:-1]], axis=0)
        for first, s in zip(states, after, strict=True)
    ]
    per_step = {
        "factors": equations.factors(before, after, kept),
        "d_hidden": d_hidden,
        "mask": None if mask is None else ops.cast(mask, d_last[0].dtype),
        "cut": cuts,
    }
    names = [name for name, value in per_step.items() if value is not None]

    def step(d_states, now):
        now = dict(zip(names, now, strict=True))
        if "d_hidden" in now:
            d_states = [d_states[0] + now["d_hidden"], *d_states[1:]]
        # Of a step that is padding nothing is learnt, and the gradient passes it by.
        taken = [d * now["mask"] for d in d_states] if "mask" in now else d_states
        d_before, dz = equations.backward(now["factors"], taken, W_turned, join)
        if "mask" in now:
            d_before = [new + (d - t) for new, d, t in zip(d_before, d_states, taken, strict=True)]
        if "cut" in now:
            d_before = [ops.where(now["cut"], ops.zeros_like(d), d) for d in d_before]
        return d_before, dz

    d_first, dz = scan(step, d_last, [per_step[name] for name in names], reverse=True)
    if mask is not None:
        x = ops.where(mask, x, ops.zeros_like(x))
    dz_x, dW, d_recurrent = equations.products(dz, before[0], kept)
    db = ops.sum(dz_x, axis=(0, 1))
    dx = at_each_step(dz_x, ops.transpose(U))
    d_recurrent = ops.zeros_like(db) if d_recurrent is None else d_recurrent
    return dx, d_first, over_steps(x, dz_x), dW, db, d_recurrent
