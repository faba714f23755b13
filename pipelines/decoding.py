"""From scores of the next token to a text: one compiled graph, the same one that is exported.

A model takes part through one function, so that a fake one can test what is here::

    step(ids <int32>[batch], states) -> (logits <float>[batch, vocabulary], states)

Every row is on its own: what else is in the batch changes nothing in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from pipelines.text import PADDING

Step = Callable[[tf.Tensor, list[tf.Tensor]], tuple[tf.Tensor, list[tf.Tensor]]]


def uniform(seeds: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """``<float>[batch, count]`` in [0, 1), each row drawn from its own seed ``<int32>[batch]``."""
    drawn = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([count], tf.stack([seed, 0])),
        tf.concat([seeds, [0]], axis=0),  # one more, because a map over nothing has no shape
        fn_output_signature=tf.TensorSpec([None], tf.float32),
    )
    return drawn[:-1]


def choose(
    logits: tf.Tensor,
    chance: tf.Tensor,
    temperature: tf.Tensor,
    *,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> tf.Tensor:
    """One id for each row ``<int32>[batch]``, drawn from softmax(logits / temperature).

    Args:
        logits: ``<float>[batch, vocabulary]``.
        chance: ``<float>[batch]`` in [0, 1), what decides the draw: the ids lie side by side on
            [0, 1), likeliest first, each as wide as its probability.
        temperature: ``<float>[batch]``; at 0 the likeliest id, the first of equals.
        top_k: draw from so many likeliest.
        top_p: draw from the fewest likeliest that have this much probability together (Holtzman
            et al. 2020).
    """
    ranked, order = tf.math.top_k(logits, tf.shape(logits)[1])
    greedy = temperature <= 0
    scale = tf.where(greedy, 1.0, temperature)[:, None]
    # Less the largest first: divided by a small temperature it would overflow.
    probabilities = tf.nn.softmax((ranked - ranked[:, :1]) / scale)
    before = tf.cumsum(probabilities, axis=1, exclusive=True)
    kept = before < top_p
    if top_k is not None:
        kept &= tf.range(tf.shape(logits)[1])[None] < top_k
    probabilities = tf.where(kept, probabilities, 0.0)
    ends = tf.cumsum(probabilities, axis=1)
    place = tf.reduce_sum(tf.cast(ends <= chance[:, None] * ends[:, -1:], tf.int32), axis=1)
    # Rounding may leave a draw behind the last one kept.
    last = tf.reduce_sum(tf.cast(probabilities > 0, tf.int32), axis=1) - 1
    place = tf.where(greedy, 0, tf.minimum(place, last))
    return tf.gather(order, place, axis=1, batch_dims=1)


def sample(
    step: Step,
    logits: tf.Tensor,
    states: Sequence[tf.Tensor],
    *,
    end: int,
    max_length: tf.Tensor,
    temperature: tf.Tensor,
    seed: tf.Tensor,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> tf.Tensor:
    """Continue texts: each output is the next input.

    Args:
        logits: ``<float>[batch, vocabulary]``, the scores of the first id.
        states: what ``step`` takes with it.
        end: the id that ends a row; it is not part of the result.
        max_length: ``<int32>[batch]``, ids at most.
        temperature, seed: ``<float>[batch]`` and ``<int32>[batch]``.

    Returns:
        ids ``<int32>[batch, time]``, 0 behind the end of a row.
    """
    longest = tf.maximum(tf.reduce_max(max_length), 0)
    chances = tf.transpose(uniform(seed, longest))
    # Of no column at all the number of rows could not be told: the first is dropped again.
    written = tf.TensorArray(tf.int32, size=1, dynamic_size=True, element_shape=[None])
    written = written.write(0, tf.zeros_like(max_length))

    def goes_on(t: Any, running: Any, *_: Any) -> Any:
        return (t < longest) & tf.reduce_any(running)

    def body(t: Any, running: Any, logits: Any, states: Any, written: Any) -> Any:
        ids = choose(logits, chances[t], temperature, top_k=top_k, top_p=top_p)
        running = running & (ids != end) & (t < max_length)
        ids = tf.where(running, ids, PADDING)
        logits, states = step(ids, states)
        return t + 1, running, logits, states, written.write(t + 1, ids)

    # The number of rows may be known here and not to the step, or the other way round.
    rows = tf.TensorShape([None])
    *_, written = tf.while_loop(
        goes_on,
        body,
        (0, max_length > 0, logits, list(states), written),
        shape_invariants=(
            tf.TensorShape([]),
            rows,
            rows.concatenate(logits.shape[1:]),
            [rows.concatenate(s.shape[1:]) for s in states],
            tf.TensorShape(None),
        ),
        parallel_iterations=1,
    )
    return tf.transpose(written.stack())[:, 1:]
