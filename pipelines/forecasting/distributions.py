"""The distributions that a model can predict: Gaussian, Student-t, or given quantiles.

A head outputs `parameter_count` numbers for each step, which `to_parameters` converts to the
parameters of a distribution. They describe z, where the change from the last value is
``base + unit · z``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops
from scipy import stats

#: Bounds of the degrees of freedom of the Student-t: above 2, where its variance is finite, and up
#: to 60, where it is practically Gaussian.
MIN_FREEDOM, MAX_FREEDOM = 2.1, 60.0
#: Number of values of 1/ν, evenly spaced, at which the quantiles of the Student-t are tabulated.
#: The error of linear interpolation is below 1e-3.
_GRID = 256
_MIN_SOFTPLUS = 1e-4


def parameter_count(head: str, quantiles: Sequence[float]) -> int:
    """Return the number of outputs of a head for each step.

    Args:
        head: ``gaussian``, ``student_t`` or ``quantiles``.
        quantiles: Rising levels with 0.5 among them, for ``quantiles``.
    """
    return {"gaussian": 2, "student_t": 3, "quantiles": len(quantiles)}[head]


def initial_output(head: str, quantiles: Sequence[float]) -> np.ndarray:
    """Return the initial output of a head, ``<float32>[parameter_count]``.

    With it, z has a standard deviation of about one.
    """
    if head == "gaussian":
        return np.zeros(2, np.float32)
    if head == "student_t":
        # ν = 8, and the scale that gives a variance of one.
        return np.array(
            [0.0, 0.5 * math.log(6 / 8), _inverse_softplus(8 - MIN_FREEDOM)], np.float32
        )
    levels = np.asarray(quantiles)
    middle = list(quantiles).index(0.5)
    steps = np.diff(stats.norm.ppf(levels))
    return np.insert([_inverse_softplus(s) for s in steps], middle, 0.0).astype(np.float32)


def to_parameters(raw: Any, head: str, quantiles: Sequence[float]) -> Any:
    """Convert the output of a head to the parameters of a distribution.

    Quantiles cannot cross: each is the one nearer to the median plus or minus a softplus.

    Args:
        raw: The output of a head, ``<float32>[…, parameter_count]``.
        head: ``gaussian``, ``student_t`` or ``quantiles``.
        quantiles: The levels of the quantiles.

    Returns:
        ``<float32>[…, parameter_count]``: location and scale; location, scale and degrees of
        freedom; or rising quantiles.
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
    freedom = ops.minimum(MIN_FREEDOM + ops.softplus(raw[..., 2:]), MAX_FREEDOM)
    return ops.concatenate([location, scale, freedom], axis=-1)


def median(parameters: Any, head: str, quantiles: Sequence[float]) -> Any:
    """Return the median ``<float32>[…]`` of parameters ``<float32>[…, parameter_count]``."""
    column = list(quantiles).index(0.5) if head == "quantiles" else 0
    return parameters[..., column]


def losses(z: Any, parameters: Any, head: str, quantiles: Sequence[float]) -> Any:
    """Compute −log p(z), or for quantiles twice the mean pinball loss, which approximates the CRPS.

    ::

    gaussian    ½ log 2π + log σ + ½ ((z − μ)/σ)²
    student_t   log Γ(ν/2) − log Γ((ν+1)/2) + ½ log πν + log σ + (ν+1)/2 log(1 + ((z − μ)/σ)²/ν)
    quantiles   2/Q Σ_q max(q (z − z_q), (q − 1)(z − z_q))

    Args:
        z: ``<float32>[…]``.
        parameters: ``<float32>[…, parameter_count]``.
        head: ``gaussian``, ``student_t`` or ``quantiles``.
        quantiles: The levels of the quantiles.

    Returns:
        ``<float32>[…]``.
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
    """Compute log Γ(x) for x ≥ 1, with an error below 1e-6.

    Keras has no such operation. This is Stirling's series at x + 4.
    """
    y = x + 4.0
    series = (y - 0.5) * ops.log(y) - y + 0.5 * math.log(2 * math.pi)
    series = series + 1.0 / (12.0 * y) - 1.0 / (360.0 * y * y * y)
    return series - ops.log(x * (x + 1.0) * (x + 2.0) * (x + 3.0))


def quantiles_of(parameters: Any, head: str, levels: Sequence[float]) -> Any:
    """Compute the quantiles of distributions.

    Args:
        parameters: ``<float32>[…, parameter_count]``.
        head: ``gaussian``, ``student_t`` or ``quantiles``.
        levels: Levels between 0 and 1; for ``quantiles``, exactly those of the head.

    Returns:
        ``<float32>[…, levels]``.
    """
    if head == "quantiles":
        return parameters
    location, scale = parameters[..., :1], parameters[..., 1:2]
    if head == "gaussian":
        z = np.asarray(stats.norm.ppf(levels), np.float32)
        return location + scale * ops.convert_to_tensor(z)
    table = ops.convert_to_tensor(_student_table(tuple(levels)))
    position = (1.0 / parameters[..., 2]) * (MIN_FREEDOM * (_GRID - 1))
    lower = ops.clip(ops.floor(position), 0, _GRID - 2)
    fraction = (position - lower)[..., None]
    lower = ops.cast(lower, "int32")
    below, above = ops.take(table, lower, axis=0), ops.take(table, lower + 1, axis=0)
    return location + scale * (below + fraction * (above - below))


@functools.cache
def _student_table(levels: tuple[float, ...]) -> np.ndarray:
    """Return quantiles by 1/ν, ``<float32>[grid, levels]``; the first row is ν = ∞."""
    inverse = np.linspace(0, 1 / MIN_FREEDOM, _GRID)
    rows = [stats.norm.ppf(levels)] + [stats.t.ppf(levels, 1 / i) for i in inverse[1:]]
    return np.asarray(rows, np.float32)


def sample(uniforms: Any, parameters: Any, head: str, quantiles: Sequence[float]) -> Any:
    """Sample from distributions.

    Gaussians are sampled by the method of Box and Muller, Student-t by that of Bailey (1994)::

        z = √(ν (u^(−2/ν) − 1)) cos 2πv

    and quantiles by linear interpolation, with linear extrapolation beyond the outermost ones.

    Args:
        uniforms: Independent uniform numbers u, v in (0, 1), ``<float32>[…, 2]``.
        parameters: ``<float32>[…, parameter_count]``.
        head: ``gaussian``, ``student_t`` or ``quantiles``.
        quantiles: The levels of the quantiles.

    Returns:
        ``<float32>[…]``.
    """
    u, v = ops.clip(uniforms[..., 0], 1e-7, 1.0), uniforms[..., 1]
    if head != "quantiles":
        cosine = ops.cos(2 * math.pi * v)
        location, scale = parameters[..., 0], parameters[..., 1]
        if head == "gaussian":
            return location + scale * ops.sqrt(-2.0 * ops.log(u)) * cosine
        freedom = parameters[..., 2]
        square = freedom * (ops.exp(-2.0 / freedom * ops.log(u)) - 1.0)
        return location + scale * ops.sqrt(ops.maximum(square, 0.0)) * cosine
    levels = np.asarray(quantiles, np.float32)
    interval = ops.sum(
        ops.cast(u[..., None] >= ops.convert_to_tensor(levels[1:-1]), "int32"), axis=-1
    )
    chosen = ops.one_hot(interval, len(levels) - 1, dtype=parameters.dtype)
    lower = ops.sum(chosen * parameters[..., :-1], axis=-1)
    upper = ops.sum(chosen * parameters[..., 1:], axis=-1)
    first = ops.take(ops.convert_to_tensor(levels[:-1]), interval)
    width = ops.take(ops.convert_to_tensor(np.diff(levels)), interval)
    return lower + (upper - lower) * (u - first) / width


def _inverse_softplus(value: float) -> float:
    """Return x with softplus(x) = value."""
    return math.log(math.expm1(max(value, _MIN_SOFTPLUS)))
