"""Sampling: each output is drawn from the model's distribution and is the next input.

The model takes part through one function, so that a fake one can test what is here::

    step(ids <int32>[batch], states) -> (logits <float>[batch, vocabulary], states)

It is one compiled graph, the same one that is exported. Every row is independent of the others in
its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from pipelines.engine.data.ragged import PADDING

Step = Callable[[tf.Tensor, list[tf.Tensor]], tuple[tf.Tensor, list[tf.Tensor]]]


def uniform(seeds: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Draw ``<float>[batch, count]`` from [0, 1), each row from its own seed ``<int32>[batch]``."""

    def draw(seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform([count], tf.stack([seed, 0]))

    def draw_rows() -> tf.Tensor:
        return tf.map_fn(
            draw,
            tf.concat([seeds, [0]], axis=0),  # one more, because a map over nothing has no shape
            fn_output_signature=tf.TensorSpec([None], tf.float32),
        )[:-1]

    return tf.cond(tf.size(seeds) == 1, lambda: draw(tf.gather(seeds, 0))[None], draw_rows)


def sample_token(
    logits: tf.Tensor,
    uniforms: tf.Tensor,
    temperature: tf.Tensor,
    *,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> tf.Tensor:
    """Draw an id for each row from softmax(logits / temperature).

    Args:
        logits: ``<float>[batch, vocabulary]``.
        uniforms: ``<float>[batch]`` in [0, 1), which decide the draw: the ids lie side by side on
            [0, 1), the most probable first, each as wide as its probability.
        temperature: ``<float>[batch]``; at 0 the most probable id, the first of equals.
        top_k: Draw from this many most probable ids.
        top_p: Draw from the fewest most probable ids that have this probability together
            (nucleus sampling, Holtzman et al. 2020).

    Returns:
        ``<int32>[batch]``.
    """
    ranked, order = tf.math.top_k(logits, tf.shape(logits)[1])
    greedy = temperature <= 0
    scale = tf.where(greedy, 1.0, temperature)[:, None]
    # Less the largest first: divided by a small temperature it would overflow.
    probabilities = tf.nn.softmax((ranked - ranked[:, :1]) / scale)
    kept = tf.cumsum(probabilities, axis=1, exclusive=True) < top_p
    if top_k is not None:
        kept &= tf.range(tf.shape(logits)[1])[None] < top_k
    probabilities = tf.where(kept, probabilities, 0.0)
    ends = tf.cumsum(probabilities, axis=1)
    rank = tf.reduce_sum(tf.cast(ends <= uniforms[:, None] * ends[:, -1:], tf.int32), axis=1)
    # Rounding may leave a draw behind the last one kept.
    last = tf.reduce_sum(tf.cast(probabilities > 0, tf.int32), axis=1) - 1
    rank = tf.where(greedy, 0, tf.minimum(rank, last))
    return tf.gather(order, rank, axis=1, batch_dims=1)


class SampledTokens(NamedTuple):
    """Result of `sample`.

    Attributes:
        ids: ``<int32>[batch, time]``, padded with 0.
        logits, states: Those of the id after the last one, as ``step`` returned them.
    """

    ids: tf.Tensor
    logits: tf.Tensor
    states: list[tf.Tensor]


class _Loop(NamedTuple):
    """State of the sampling loop.

    Attributes:
        running: ``<bool>[batch]``, rows that have not ended.
        logits: ``<float>[batch, vocabulary]``.
        states: The states of ``step``.
    """

    running: tf.Tensor
    logits: tf.Tensor
    states: list[tf.Tensor]


def sample(
    step: Step,
    logits: tf.Tensor,
    states: Sequence[tf.Tensor],
    *,
    end: int,
    max_length: tf.Tensor,
    temperature: tf.Tensor,
    seed: tf.Tensor,
    drawn: tf.Tensor | int = 0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> SampledTokens:
    """Continue texts: each output is the next input.

    A row that has ended is fed padding, which must leave its states unchanged.

    Args:
        step: The model.
        logits: ``<float>[batch, vocabulary]``, the scores of the first id.
        states: The states before the first id.
        end: The id that ends a row; not part of the result.
        max_length: ``<int32>[batch]``, the largest number of ids.
        temperature, seed: ``<float>[batch]`` and ``<int32>[batch]``.
        drawn: ``<int32>[batch]``, how many ids were drawn from each seed before.
        top_k, top_p: See `sample_token`.
    """
    longest = tf.maximum(tf.reduce_max(max_length), 0)
    drawn = tf.broadcast_to(drawn, tf.shape(seed))
    uniforms = uniform(seed, longest + tf.maximum(tf.reduce_max(drawn), 0))
    position = drawn[:, None] + tf.range(longest)[None]
    uniforms = tf.transpose(tf.gather(uniforms, position, axis=1, batch_dims=1))

    def advance(t: Any, loop: _Loop) -> tuple[_Loop, tf.Tensor]:
        uniform_t = tf.gather(uniforms, t)
        ids = sample_token(loop.logits, uniform_t, temperature, top_k=top_k, top_p=top_p)
        running = loop.running & (ids != end) & (t < max_length)
        ids = tf.where(running, ids, PADDING)
        following, states = step(ids, loop.states)
        following = tf.where(running[:, None], following, loop.logits)
        return _Loop(running, following, states), ids

    start = _Loop(max_length > 0, logits, list(states))

    def no_token() -> Any:
        return tf.zeros([tf.size(seed), 0], tf.int32), start.logits, start.states

    def one_token() -> Any:
        loop, ids = advance(0, start)
        return ids[:, None], loop.logits, loop.states

    def many_tokens() -> Any:
        return _sample_in_a_loop(advance, start, longest)

    # A client that asks for one token at a time is spared the loop, which takes longer than that.
    branches = [no_token, one_token, many_tokens]
    return SampledTokens(*tf.switch_case(tf.minimum(longest, 2), branches))


def _sample_in_a_loop(
    advance: Callable[[Any, _Loop], tuple[_Loop, tf.Tensor]], start: _Loop, longest: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """Call ``advance`` until all rows have ended; return ids, logits and states."""
    # The number of rows could not be told from no column: the first one is dropped again.
    columns = tf.TensorArray(tf.int32, size=1, dynamic_size=True, element_shape=[None])
    columns = columns.write(0, tf.zeros_like(start.running, tf.int32))

    def is_running(t: Any, loop: _Loop, _: Any) -> Any:
        return (t < longest) & tf.reduce_any(loop.running)

    def body(t: Any, loop: _Loop, columns: Any) -> Any:
        loop, ids = advance(t, loop)
        return t + 1, loop, columns.write(t + 1, ids)

    # The number of rows may be known here and not to the step, or the other way round.
    rows = tf.TensorShape([None])
    shapes = _Loop(
        rows,
        rows.concatenate(start.logits.shape[1:]),
        [rows.concatenate(state.shape[1:]) for state in start.states],
    )
    _, loop, columns = tf.while_loop(
        is_running,
        body,
        (0, start, columns),
        shape_invariants=(tf.TensorShape([]), shapes, tf.TensorShape(None)),
        parallel_iterations=1,
    )
    return tf.transpose(columns.stack())[:, 1:], loop.logits, loop.states
