"""The distributions that a model puts out: Gaussian, Student-t, or quantiles as they are.

A head gives so many numbers for each step, of which `shape` makes parameters. Everything is in
units of its own: the change from the last value is ``base + unit · z``, and these are of z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops
from scipy import stats

#: Degrees of freedom of the Student-t: above 2, so that there is a variance, and up to where it
#: is as good as Gaussian.
LEAST_FREEDOM, MOST_FREEDOM = 2.1, 60.0
#: Where the quantiles of the Student-t are tabulated, evenly in 1/ν; a straight line between
#: two neighbours is off by less than 1e-3.
_GRID = 256
_SMALL = 1e-4


def size(head: str, quantiles: Sequence[float]) -> int:
    """Numbers that a head gives for each step."""
    return {"gaussian": 2, "student_t": 3, "quantiles": len(quantiles)}[head]


def start(head: str, quantiles: Sequence[float]) -> np.ndarray:
    """What a head gives before it has learned anything: z has about a deviation of one."""
    if head == "gaussian":
        return np.zeros(2, np.float32)
    if head == "student_t":
        # ν = 8, and the scale that gives a variance of one.
        return np.array([0.0, 0.5 * math.log(6 / 8), _unsoft(8 - LEAST_FREEDOM)], np.float32)
    levels = np.asarray(quantiles)
    middle = list(quantiles).index(0.5)
    steps = np.diff(stats.norm.ppf(levels))
    return np.insert([_unsoft(s) for s in steps], middle, 0.0).astype(np.float32)


def shape(raw: Any, head: str, quantiles: Sequence[float]) -> Any:
    """What a head gave as parameters: location and scale and freedom, or rising quantiles.

    Quantiles never cross: from the middle one, each further one adds a softplus.

    Args:
        raw: ``<float>[…, size]``.
    """
    if head == "quantiles":
        middle = list(quantiles).index(0.5)
        steps = ops.softplus(raw)
        below = ops.flip(ops.cumsum(ops.flip(steps[..., :middle], -1), axis=-1), -1)
        above = ops.cumsum(steps[..., middle + 1 :], axis=-1)
        centre = raw[..., middle : middle + 1]
        return ops.concatenate([centre - below, centre, centre + above], axis=-1)
    location, scale = raw[..., :1], ops.exp(ops.clip(raw[..., 1:2], -8.0, 8.0))
    if head == "gaussian":
        return ops.concatenate([location, scale], axis=-1)
    freedom = ops.minimum(LEAST_FREEDOM + ops.softplus(raw[..., 2:]), MOST_FREEDOM)
    return ops.concatenate([location, scale, freedom], axis=-1)


def middle(parameters: Any, head: str, quantiles: Sequence[float]) -> Any:
    """The median ``<float>[…]``."""
    which = list(quantiles).index(0.5) if head == "quantiles" else 0
    return parameters[..., which]


def losses(z: Any, parameters: Any, head: str, quantiles: Sequence[float]) -> Any:
    """−log p(z); of quantiles, twice the mean pinball loss, which nears the CRPS. ``<float>[…]``::

    gaussian    ½ log 2π + log σ + ½ ((z − μ)/σ)²
    student_t   log Γ(ν/2) − log Γ((ν+1)/2) + ½ log πν + log σ + (ν+1)/2 log(1 + ((z − μ)/σ)²/ν)
    quantiles   2/Q Σ_q max(q (z − z_q), (q − 1)(z − z_q))
    """
    if head == "quantiles":
        levels = ops.convert_to_tensor(np.asarray(quantiles, np.float32))
        above = z[..., None] - parameters
        return 2.0 * ops.mean(ops.maximum(levels * above, (levels - 1.0) * above), axis=-1)
    location, scale = parameters[..., 0], parameters[..., 1]
    square = ops.square((z - location) / scale)
    if head == "gaussian":
        return 0.5 * math.log(2 * math.pi) + ops.log(scale) + 0.5 * square
    freedom = parameters[..., 2]
    return (
        log_gamma(freedom / 2)
        - log_gamma((freedom + 1) / 2)
        + 0.5 * ops.log(math.pi * freedom)
        + ops.log(scale)
        + (freedom + 1) / 2 * ops.log1p(square / freedom)
    )


def log_gamma(x: Any) -> Any:
    """log Γ(x) of x ≥ 1, to 1e-6: Stirling's series at x + 4 (Keras has no operation for it)."""
    y = x + 4.0
    series = (y - 0.5) * ops.log(y) - y + 0.5 * math.log(2 * math.pi)
    series = series + 1.0 / (12.0 * y) - 1.0 / (360.0 * y * y * y)
    return series - ops.log(x * (x + 1.0) * (x + 2.0) * (x + 3.0))


def quantiles_of(parameters: Any, head: str, levels: Sequence[float]) -> Any:
    """``parameters <float>[…, n]`` → the quantiles at ``levels <float>[…, levels]``."""
    if head == "quantiles":
        return parameters
    location, scale = parameters[..., :1], parameters[..., 1:2]
    if head == "gaussian":
        at = np.asarray(stats.norm.ppf(levels), np.float32)
        return location + scale * ops.convert_to_tensor(at)
    table = ops.convert_to_tensor(_student_table(tuple(levels)))
    place = (1.0 / parameters[..., 2]) * (LEAST_FREEDOM * (_GRID - 1))
    lower = ops.clip(ops.floor(place), 0, _GRID - 2)
    share = (place - lower)[..., None]
    lower = ops.cast(lower, "int32")
    below, above = ops.take(table, lower, axis=0), ops.take(table, lower + 1, axis=0)
    return location + scale * (below + share * (above - below))


def _student_table(levels: tuple[float, ...]) -> np.ndarray:
    """``<float32>[grid, levels]``, the first row that of ν = ∞."""
    inverse = np.linspace(0, 1 / LEAST_FREEDOM, _GRID)
    rows = [stats.norm.ppf(levels)] + [stats.t.ppf(levels, 1 / i) for i in inverse[1:]]
    return np.asarray(rows, np.float32)


def draw(uniforms: Any, parameters: Any, head: str, quantiles: Sequence[float]) -> Any:
    """Draws from the distributions, of pairs of even random numbers ``<float>[…, 2]`` in (0, 1).

    Gaussian by Box and Muller, Student-t by Bailey's likeness of it (1994)::

        z = √(ν (u^(−2/ν) − 1)) cos 2πv

    Of quantiles, by a straight line between two neighbours, and on beyond the last ones.
    """
    u, v = ops.clip(uniforms[..., 0], 1e-7, 1.0), uniforms[..., 1]
    if head != "quantiles":
        turn = ops.cos(2 * math.pi * v)
        location, scale = parameters[..., 0], parameters[..., 1]
        if head == "gaussian":
            return location + scale * ops.sqrt(-2.0 * ops.log(u)) * turn
        freedom = parameters[..., 2]
        far = freedom * (ops.exp(-2.0 / freedom * ops.log(u)) - 1.0)
        return location + scale * ops.sqrt(ops.maximum(far, 0.0)) * turn
    levels = np.asarray(quantiles, np.float32)
    which = ops.sum(ops.cast(u[..., None] >= ops.convert_to_tensor(levels[1:-1]), "int32"), axis=-1)
    chosen = ops.one_hot(which, len(levels) - 1, dtype=parameters.dtype)
    from_ = ops.sum(chosen * parameters[..., :-1], axis=-1)
    to = ops.sum(chosen * parameters[..., 1:], axis=-1)
    first = ops.take(ops.convert_to_tensor(levels[:-1]), which)
    width = ops.take(ops.convert_to_tensor(np.diff(levels)), which)
    return from_ + (to - from_) * (u - first) / width


def _unsoft(value: float) -> float:
    """x with softplus(x) = value."""
    return math.log(math.expm1(max(value, _SMALL)))
