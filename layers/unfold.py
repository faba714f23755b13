"""Unfold a cell over time, and cut backpropagation through time.

A recurrent layer applies one cell at every step, with the same weights::

    s_t = f(x_t, s_{t-1}),        t = 1, ..., T

`unfold` is that loop; differentiating it is backpropagation through time (Werbos 1990).
`unfold_cell` is the loop around a layer's own cell.
"""

import itertools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from layers._compat import KERAS_RNN
from layers.backends import Tensor
from layers.recorder import perturbed

_keras_rnn = KERAS_RNN.load()

Step = Callable[[Tensor, list[Tensor]], list[Tensor]]

TALL = 256  # inputs; 15-20 % of a training step at 256 inputs and 512 units, a loss below 128


def unfold(
    step: Step,
    xs: Tensor,
    states: list[Tensor],
    mask: Tensor | None = None,
    cuts: Tensor | None = None,
    unroll: bool = False,
    record: Callable[[list[Tensor]], Tensor] | None = None,
) -> tuple[Tensor | None, list[Tensor]]:
    """Apply ``step`` to the entries of ``xs``, from the first to the last.

    Args:
        step: ``(x_t, states) -> next states``.
        xs: [time, batch, ...], the inputs of all steps.
        states: the states before the first step, each [batch, units].
        mask: bool [time, batch, 1]; where False, the states stay as they are.
        cuts: bool [time, batch or 1, 1]; where True, no gradient passes from the step to the
            steps before it.
        unroll: write the steps out one after the other instead of in a loop; a single step
            always is.
        record: ``states -> tensor``, what to keep of every step; None keeps nothing.

    Returns:
        What was recorded, [time, batch, ...] (None if nothing), and the last states.
    """
    time = xs.shape[0]
    if time == 0:
        return (None if record is None else record(states)[None][:0]), states
    counted = mask is not None or cuts is not None

    def body(x_t: Tensor, loop_states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        t, before = (loop_states[-1], loop_states[:-1]) if counted else (None, loop_states)
        if cuts is not None:
            before = [ops.where(cuts[t], ops.stop_gradient(s), s) for s in before]
        after = step(x_t, before)
        if mask is not None:
            after = [ops.where(mask[t], new, old) for new, old in zip(after, before, strict=True)]
        recorded = after[0] if record is None else record(after)
        return recorded, [*after, t + 1] if t is not None else after

    _, recorded, states = _keras_rnn(
        body,
        xs,
        [*states, ops.convert_to_tensor(0, dtype="int32")] if counted else list(states),
        unroll=unroll or time == 1,
        # A list, because Keras takes a bare tensor for one length per row.
        input_length=[ops.shape(xs)[0]] if time is None else time,
        time_major=True,
        return_all_outputs=record is not None,
    )
    states = list(states[:-1] if counted else states)
    return (None if record is None else recorded), states


class Sequences(NamedTuple):
    """The input of one call of a layer, in the order of processing.

    Attributes:
        x: <float>[batch, time, inputs].
        states: the states before the first step, each <float>[batch, units].
        mask: bool [batch, time], True where a step is real; None if all are.
        x_dropout, h_dropout: the masks of `layers.cells.Cell.dropout_masks`, or None.
    """

    x: Tensor
    states: list[Tensor]
    mask: Tensor | None = None
    x_dropout: Tensor = None
    h_dropout: list[Tensor] | None = None


def unfold_cell(
    layer: Any,
    sequences: Sequences,
    record: Callable[[list[Tensor]], Tensor] | None,
    perturbations: Tensor | None = None,
) -> tuple[Tensor | None, list[Tensor]]:
    """Unfold the cell of ``layer`` over its input.

    Args:
        layer: a `layers.base.RecurrentLayer`.
        record: as for `unfold`.
        perturbations: <float>[batch, time, units of all states], added to the states after each
            step, see `layers.recorder`.

    Returns:
        What was recorded, [batch, time, ...] (None if nothing), and the last states.
    """
    x, states, mask, x_dropout, h_dropout = sequences
    timesteps = x.shape[1]
    x = time_major(x)
    if mask is not None:
        # Transposed as floats: oneDNN under TensorFlow warns about transposing other types.
        mask = time_major(ops.where(mask, 1.0, 0.0)[..., None]) > 0.5
        # Zero, not only ignored: 0 times a padding of inf or NaN is NaN in U's gradient.
        x = zero_unless(mask, x)
    cuts = None
    if layer.truncate is not None and (timesteps is None or layer.truncate < timesteps):
        cuts = truncation_cuts(layer.truncate, ops.shape(x)[0], mask)
    xs, step = _inputs_and_step(layer.cell, x, x_dropout, h_dropout)
    if perturbations is not None:
        step = perturbed(step, [s.shape[-1] for s in states])
        xs = ops.concatenate([xs, time_major(perturbations)], axis=-1)
    recorded, last_states = unfold(
        step, xs, states, mask=mask, cuts=cuts, unroll=layer.unroll, record=record
    )
    return None if recorded is None else time_major(recorded), last_states


def unfold_states(
    layer: Any, sequences: Sequences, perturbations: Tensor | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """As `unfold_cell`; return each state after every step, [batch, time, units], and the last."""

    def record(states: list[Tensor]) -> Tensor:
        return ops.concatenate(states, axis=-1)

    after, last_states = unfold_cell(layer, sequences, record, perturbations)
    assert after is not None
    ends = np.cumsum([0, *(s.shape[-1] for s in sequences.states)])
    return [after[..., a:b] for a, b in itertools.pairwise(ends)], last_states


def _inputs_and_step(
    cell: Any, x: Tensor, x_dropout: Any, h_dropout: list[Tensor] | None
) -> tuple[Tensor, Step]:
    """Return the inputs of all steps, [time, batch, ...], and the step to apply to them."""
    U, weights = cell.input_weights(), cell.step_weights()

    def step(x_U_t: Tensor, states: list[Tensor]) -> list[Tensor]:
        next_states: list[Tensor] = cell.next_states(cell.step(x_U_t, states, weights, h_dropout))
        return next_states

    if multiplies_first(x.shape[-1]):
        return cell.input_product(x, U, x_dropout), step
    return x, lambda x_t, states: step(cell.input_product(x_t, U, x_dropout), states)


def multiplies_first(inputs: int) -> bool:
    """Return whether x @ U is one product of all steps, or one per step inside the loop.

    One product stores [time, batch, gates] and reads it back; one per step adds a matrix of the
    size of U to its gradient at every step. In a TensorFlow graph the first is faster once U is
    tall; under XLA, which JAX runs on, it was always slower.
    """
    return bool(keras.backend.backend() == "tensorflow" and inputs >= TALL)


def truncation_cuts(k: int, timesteps: Tensor, mask: Tensor | None) -> Tensor:
    """Return where truncated BPTT cuts: before a row's steps k, 2k, 3k, ... (counted from 0).

    Only real steps count, so padding does not move the cuts.

    Args:
        mask: bool [time, batch, 1], or None.

    Returns:
        bool [time, batch or 1, 1].
    """
    if mask is None:
        index = ops.arange(timesteps, dtype="int32")[:, None, None]
        return (index > 0) & (index % k == 0)
    real = ops.cast(mask, "int32")
    index = ops.cumsum(real, axis=0) - real
    return (index > 0) & (index % k == 0) & mask


def check_truncate(k: Any) -> int | None:
    """Return ``truncate`` as None or an int.

    Raises:
        ValueError: it is neither None nor a whole number of at least 1.
    """
    if k is None:
        return None
    try:
        steps = operator.index(k)
    except TypeError:
        steps = 0
    if steps < 1 or isinstance(k, bool):
        raise ValueError(f"truncate must be None or a whole number of steps >= 1, received {k!r}")
    return steps


def lengths_to_mask(lengths: Any, timesteps: Tensor) -> Tensor:
    """Return bool [batch, timesteps], True for the first ``lengths`` steps of each row."""
    lengths = ops.convert_to_tensor(lengths)
    if len(lengths.shape) != 1 or "int" not in keras.backend.standardize_dtype(lengths.dtype):
        raise ValueError(
            f"lengths must be whole numbers [batch], received {lengths.dtype} {lengths.shape}"
        )
    return ops.arange(timesteps, dtype="int32")[None] < ops.cast(lengths, "int32")[:, None]


def time_major(sequence: Tensor) -> Tensor:
    """Transpose [batch, time, ...] to [time, batch, ...] or back."""
    return ops.swapaxes(sequence, 0, 1)


def zero_unless(condition: Tensor, tensor: Tensor) -> Tensor:
    """Return ``tensor`` where ``condition`` holds, and zero elsewhere."""
    return ops.where(condition, tensor, ops.zeros_like(tensor))
