"""Backpropagation through time, derived by hand, for a block of steps.

Automatic differentiation of the unfolded loop keeps every intermediate of every step and adds to
each weight's gradient once per step. The chapter's derivation needs less. With z_t the argument
of σ and tanh in step t:

- U x_t + b, the part of z_t that does not depend on the recurrence, is one product of all steps;
- the factors of the gradient (the derivatives of the gates) depend only on the values computed
  forwards, so they are computed for all steps at once;
- only the gradient of the states passes from step to step, ∂L/∂h_{t-1} = Wᵀ ∂L/∂z_t;
- given ∂L/∂z_t of all steps, ∂L/∂U = Σ x_tᵀ ∂L/∂z_t, ∂L/∂W = Σ h_{t-1}ᵀ ∂L/∂z_t and
  ∂L/∂x_t = Uᵀ ∂L/∂z_t are one product each.

Source: Werbos (1990); for the LSTM, without its truncation, Hochreiter & Schmidhuber (1997),
appendix A.1.

The derivatives of one step are in `layers.derivatives`. A backend supplies ``scan``, its loop
over the first axis, and ``join``, its concatenation along the last: see `layers.bptt_tensorflow`
and `layers.bptt_jax`.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from layers.backends import Tensor
from layers.derivatives import Equations, Join, Tensors, sum_over_steps

#: ``(step, states, xs, reverse=False) -> last states, recorded``
Scan = Callable[..., tuple[list[Tensor], list[Tensor]]]


def at_each_step(x: Tensor, weights: Tensor) -> Tensor:
    """Return ``x @ weights`` of all steps and rows as one product.

    Args:
        x: <float>[time, batch, m].
        weights: <float>[m, n].
    """
    flat = ops.matmul(ops.reshape(x, (-1, x.shape[-1])), weights)
    return ops.reshape(flat, (*ops.shape(x)[:2], weights.shape[-1]))


def forward(
    equations: type[Equations],
    scan: Scan,
    x: Tensor,
    states: Tensors,
    U: Tensor,
    W: Tensor,
    b: Tensor,
    b_recurrent: Tensor,
    mask: Tensor | None,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Run a block of steps forwards.

    Args:
        equations: a class of `layers.derivatives`.
        scan: the backend's loop.
        x: <float>[time, batch, inputs].
        states: the states before the block, each [batch, units].
        U, W, b, b_recurrent: the weights.
        mask: bool [time, batch, 1], True where a step is real; None if all are.

    Returns:
        The states after the block; the states after each step; and the other values that
        `backward` needs of each step, all <float>[time, batch, units].
    """
    if mask is not None:
        # Zero, not only ignored: 0 times a padding of inf or NaN is NaN in U's gradient.
        x = ops.where(mask, x, ops.zeros_like(x))
    x_U = at_each_step(x, U) + b

    def step(states: list[Tensor], xs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        after, saved = equations.forward(xs[0], states, W, b_recurrent)
        if mask is not None:
            after = [ops.where(xs[1], a, s) for a, s in zip(after, states, strict=True)]
        return after, [*after, *saved]

    last, steps = scan(step, states, [x_U] if mask is None else [x_U, mask])
    return last, steps[: len(states)], steps[len(states) :]


def backward(
    equations: type[Equations],
    scan: Scan,
    join: Join,
    x: Tensor,
    states: Tensors,
    after: Tensors,
    saved: Tensors,
    U: Tensor,
    W_transposed: Tensor,
    mask: Tensor | None,
    cuts: Tensor | None,
    d_hidden: Tensor | None,
    d_last: Tensors,
) -> tuple[Any, ...]:
    """Run the same block backwards.

    Args:
        equations, scan, x, states, U, mask: as for `forward`.
        join: the backend's concatenation along the last axis.
        after, saved: the results of `forward`.
        W_transposed: Wᵀ, transposed once for all steps of all blocks: at every step, that would
            take as long as the gates.
        cuts: bool [time, batch or 1, 1], True where no gradient passes to the step before;
            None for nowhere.
        d_hidden: ∂L/∂h_t of each step, <float>[time, batch, units]; None for zero.
        d_last: ∂L/∂ the states after the block.

    Returns:
        ∂L/∂x <float>[time, batch, inputs], ∂L/∂ the states before the block, and ∂L/∂ U, W, b
        and b_recurrent (the last in the shape of b).
    """
    before = [
        ops.concatenate([first[None], s[:-1]], axis=0)
        for first, s in zip(states, after, strict=True)
    ]
    optional = {
        "factors": equations.factors(before, after, saved),
        "d_hidden": d_hidden,
        "mask": None if mask is None else ops.cast(mask, d_last[0].dtype),
        "cut": cuts,
    }
    names = [name for name, value in optional.items() if value is not None]

    step = _backward_step(equations, join, W_transposed, names)
    d_first, dz = scan(step, d_last, [optional[name] for name in names], reverse=True)
    if mask is not None:
        x = ops.where(mask, x, ops.zeros_like(x))
    dz_x, dW, d_recurrent = equations.products(dz, before[0], saved)
    db = ops.sum(dz_x, axis=(0, 1))
    dx = at_each_step(dz_x, ops.transpose(U))
    d_recurrent = ops.zeros_like(db) if d_recurrent is None else d_recurrent
    return dx, d_first, sum_over_steps(x, dz_x), dW, db, d_recurrent


def _backward_step(
    equations: type[Equations], join: Join, W_transposed: Tensor, names: list[str]
) -> Callable[[list[Tensor], list[Any]], tuple[list[Tensor], list[Tensor]]]:
    """Return ``(∂L/∂ states after, xs) -> (∂L/∂ states before, ∂L/∂z_t)``.

    Args:
        names: what the entries of ``xs`` are: "factors" and, where given, "d_hidden", "mask" and
            "cut".
    """

    def step(d_after: list[Tensor], xs: list[Any]) -> tuple[list[Tensor], list[Tensor]]:
        now = dict(zip(names, xs, strict=True))
        if "d_hidden" in now:
            d_after = [d_after[0] + now["d_hidden"], *d_after[1:]]
        # A padded step contributes nothing, and the gradient passes it unchanged.
        real = [d * now["mask"] for d in d_after] if "mask" in now else d_after
        d_before, dz = equations.backward(now["factors"], real, W_transposed, join)
        if "mask" in now:
            d_before = [new + (d - r) for new, d, r in zip(d_before, d_after, real, strict=True)]
        if "cut" in now:
            d_before = [ops.where(now["cut"], ops.zeros_like(d), d) for d in d_before]
        return d_before, dz

    return step
