"""From scores of the next token to a text: one compiled graph, the same one that is exported.

A model takes part through one function, so that a fake one can test what is here::

    step(ids <int32>[batch], states) -> (logits <float>[batch, vocabulary], states)

Every row is on its own: what else is in the batch changes nothing in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from pipelines.engine.config.schema import MAX_BEAM_WIDTH, MAX_LENGTH, DecodingConfig
from pipelines.engine.data.ragged import PADDING

#: log p of what cannot be.
NEVER = -1e9

Step = Callable[[tf.Tensor, list[tf.Tensor]], tuple[tf.Tensor, list[tf.Tensor]]]
NotingStep = Callable[[tf.Tensor, list[tf.Tensor]], tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]]


def uniform(seeds: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """``<float>[batch, count]`` in [0, 1), each row drawn from its own seed ``<int32>[batch]``."""

    def draw(seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform([count], tf.stack([seed, 0]))

    def each() -> tf.Tensor:
        return tf.map_fn(
            draw,
            tf.concat([seeds, [0]], axis=0),  # one more, because a map over nothing has no shape
            fn_output_signature=tf.TensorSpec([None], tf.float32),
        )[:-1]

    return tf.cond(tf.size(seeds) == 1, lambda: draw(tf.gather(seeds, 0))[None], each)


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


class Written(NamedTuple):
    """What was written by `sample`.

    Attributes:
        ids: ``<int32>[batch, time]``, 0 behind the end of a row.
        logits, states: of the id after the last one, as ``step`` gave them.
    """

    ids: tf.Tensor
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
) -> Written:
    """Continue texts: each output is the next input.

    A row that has ended is given padding, which has to leave its states as they are.

    Args:
        logits: ``<float>[batch, vocabulary]``, the scores of the first id.
        states: what ``step`` takes with it.
        end: the id that ends a row; it is not part of the result.
        max_length: ``<int32>[batch]``, ids at most.
        temperature, seed: ``<float>[batch]`` and ``<int32>[batch]``.
        drawn: how many ids were drawn from each seed before, ``<int32>[batch]``.
    """
    longest = tf.maximum(tf.reduce_max(max_length), 0)
    drawn = tf.broadcast_to(drawn, tf.shape(seed))
    chances = uniform(seed, longest + tf.maximum(tf.reduce_max(drawn), 0))
    place = drawn[:, None] + tf.range(longest)[None]
    chances = tf.transpose(tf.gather(chances, place, axis=1, batch_dims=1))

    def write(t: Any, running: Any, logits: Any, states: Any) -> Any:
        chance = tf.gather(chances, t)
        ids = choose(logits, chance, temperature, top_k=top_k, top_p=top_p)
        running = running & (ids != end) & (t < max_length)
        ids = tf.where(running, ids, PADDING)
        following, states = step(ids, states)
        return running, tf.where(running[:, None], following, logits), states, ids

    def none() -> Any:
        return tf.zeros([tf.size(seed), 0], tf.int32), logits, list(states)

    def one() -> Any:
        _, after, last, ids = write(0, max_length > 0, logits, list(states))
        return ids[:, None], after, last

    def several() -> Any:
        # Of no column at all the number of rows could not be told: the first is dropped again.
        written = tf.TensorArray(tf.int32, size=1, dynamic_size=True, element_shape=[None])
        written = written.write(0, tf.zeros_like(max_length))

        def goes_on(t: Any, running: Any, *_: Any) -> Any:
            return (t < longest) & tf.reduce_any(running)

        def body(t: Any, running: Any, logits: Any, states: Any, written: Any) -> Any:
            running, logits, states, ids = write(t, running, logits, states)
            return t + 1, running, logits, states, written.write(t + 1, ids)

        # The number of rows may be known here and not to the step, or the other way round.
        rows = tf.TensorShape([None])
        *_, after, last, written = tf.while_loop(
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
        return tf.transpose(written.stack())[:, 1:], after, last

    # A client that takes token by token is spared the loop, which takes longer than the token.
    return Written(*tf.switch_case(tf.minimum(longest, 2), [none, one, several]))


class Found(NamedTuple):
    """What a search found, for each row the best first.

    Attributes:
        ids: ``<int32>[batch, beam, time]``, 0 behind the end.
        scores: ``<float>[batch, beam]``, log p / length^α; `NEVER` where there was nothing to find.
        notes: ``<float>[batch, beam, time, size]``, what the steps noted of each id; 0 behind the
            end.
    """

    ids: tf.Tensor
    scores: tf.Tensor
    notes: tf.Tensor


def repeat(tensors: Sequence[tf.Tensor], beam: tf.Tensor) -> list[tf.Tensor]:
    """Each row as many times in a row as there are hypotheses of it."""
    return [tf.repeat(t, beam, axis=0) for t in tensors]


def search(
    step: NotingStep,
    states: Sequence[tf.Tensor],
    *,
    end: int,
    beam_width: tf.Tensor,
    min_length: tf.Tensor,
    max_length: tf.Tensor,
    length_penalty: float,
    note_size: tf.Tensor | int = 0,
) -> Found:
    """Beam search: of all hypotheses one token longer, the likeliest are gone on with.

    One that has ended keeps its place and is not gone on with, so that the others have one place
    less (as in Bahdanau et al. 2015); the search is over when all places have ended. Those are
    ranked by log p / length^α, the end mark included in both. A beam of 1 is greedy; one as wide
    as there are texts finds the best of all.

    Args:
        step: called with ``batch · beam`` rows, the hypotheses of a row side by side, beam being
            the largest of ``beam_width``; see `repeat` for what it reads beside its arguments.
            What it gives beside logits and states, ``<float>[batch · beam, note_size]``, is kept
            with the next id.
        states: ``[batch, …]`` each, those before the first token.
        end: the id that ends a text, and stands before its first token.
        beam_width: ``<int32>[batch]``, at least 1.
        min_length, max_length: ``<int32>[batch]``, tokens without the end mark; the smaller first.
        length_penalty: α.
    """
    rows, beam = tf.shape(beam_width)[0], tf.maximum(tf.reduce_max(beam_width), 1)
    lanes = tf.range(beam)[None]
    open_lanes = lanes < beam_width[:, None]
    longest = tf.reduce_max(max_length)
    running = open_lanes & (lanes == 0)
    start = (
        0,
        tf.fill([rows, beam], end),
        tf.where(running, 0.0, NEVER),  # log p
        running,
        tf.zeros_like(running),  # ended
        tf.zeros([rows, beam], tf.int32),  # length
        tf.zeros([rows, beam, 0], tf.int32),  # written
        tf.zeros([rows, beam, 0, note_size]),
        repeat(states, beam),
    )

    def goes_on(t: Any, _ids: Any, _score: Any, running: Any, *_: Any) -> Any:
        return (t <= longest) & tf.reduce_any(running)

    def body(t: Any, ids: Any, score: Any, running: Any, ended: Any, *rest: Any) -> Any:
        length, written, notes, states = rest
        logits, states, noted = step(tf.reshape(ids, [rows * beam]), states)
        size = tf.shape(logits)[1]
        allowed = tf.where(
            tf.range(size)[None] == end, t >= min_length[:, None], t < max_length[:, None]
        )
        logs = tf.reshape(tf.nn.log_softmax(logits), [rows, beam, size])
        logs = tf.where(allowed[:, None], logs, NEVER)
        longer = tf.where(running, score, NEVER)[:, :, None] + logs
        best = tf.math.top_k(tf.reshape(longer, [rows, beam * size]), beam)
        # Behind the hypotheses that have ended, which stay, the best longer ones.
        ranked = tf.concat([tf.where(ended, -NEVER, 2 * NEVER), best.values], axis=1)
        chosen = tf.math.top_k(ranked, beam).indices
        kept = chosen < beam

        def of(old: Any, new: Any) -> Any:
            return tf.gather(tf.concat([old, new], axis=1), chosen, axis=1, batch_dims=1)

        lane = of(tf.broadcast_to(lanes, [rows, beam]), best.indices // size)
        ids = of(tf.fill([rows, beam], PADDING), best.indices % size)
        score = of(score, best.values)
        there = open_lanes & (kept | (score > NEVER / 2))
        ended = there & (kept | (ids == end))
        length = tf.gather(length, lane, axis=1, batch_dims=1) + tf.cast(~kept, tf.int32)
        running = there & ~ended
        ids = tf.where(running, ids, PADDING)
        written = tf.gather(written, lane, axis=1, batch_dims=1)
        written = tf.concat([written, ids[:, :, None]], axis=2)
        # What was noted belongs to the hypothesis that is gone on with, where one is.
        noted = tf.reshape(noted, [rows, beam, note_size])
        notes = tf.concat([notes, noted[:, :, None]], axis=2)
        notes = tf.gather(notes, lane, axis=1, batch_dims=1)
        notes = tf.where((written != PADDING)[..., None], notes, 0.0)
        which = tf.reshape(tf.range(rows)[:, None] * beam + lane, [-1])
        states = [tf.gather(s, which) for s in states]
        return t + 1, ids, score, running, ended, length, written, notes, states

    any_size = tf.TensorShape([None, None])
    _, _, score, _, ended, length, written, notes, _ = tf.while_loop(
        goes_on,
        body,
        start,
        shape_invariants=(
            tf.TensorShape([]),
            *[any_size] * 5,
            tf.TensorShape([None, None, None]),
            tf.TensorShape([None, None, None, None]),
            [tf.TensorShape([None]).concatenate(s.shape[1:]) for s in states],
        ),
        parallel_iterations=1,
    )
    score = score / tf.cast(tf.maximum(length, 1), score.dtype) ** length_penalty
    best = tf.math.top_k(tf.where(ended, score, NEVER), beam)
    ids, notes = (tf.gather(a, best.indices, axis=1, batch_dims=1) for a in (written, notes))
    return Found(ids, best.values, notes)


def write(
    model: Callable[[tf.Tensor, list[tf.Tensor], list[tf.Tensor]], Any],
    states: Sequence[tf.Tensor],
    looked_at: Sequence[tf.Tensor],
    config: DecodingConfig,
    *,
    end: int,
    first: int,
    something: tf.Tensor,
    beam_width: tf.Tensor,
    max_length: tf.Tensor,
) -> Found:
    """`search` for the likeliest texts of a `decoders.network`, as a server is asked for them.

    Args:
        model: ``(ids <int32>[n, 1], states, looked_at)`` → ``(logits [n, 1, vocabulary], states,
            alignment [n, 1, steps])``, see `decoders.step`; the alignment is noted.
        states, looked_at: of each row, those before the first token; what attention looks at.
        first: lower ids are never written.
        something: ``<bool>[batch]``, whether there is anything to write about.
        beam_width, max_length: ``<int32>``, one for each row or one for all. They may come from
            anybody: what is out of bounds is brought to the nearest that is in them.
    """
    rows = tf.shape(something)
    width = tf.clip_by_value(tf.broadcast_to(beam_width, rows), 1, MAX_BEAM_WIDTH)
    most = tf.clip_by_value(tf.broadcast_to(max_length, rows), 0, MAX_LENGTH)
    most = tf.where(something, most, 0)
    looked_at = repeat(looked_at, tf.maximum(tf.reduce_max(width), 1))

    def step(ids: tf.Tensor, states: list[tf.Tensor]) -> Any:
        logits, states, weights = model(ids[:, None], states, looked_at)
        noted = tf.zeros([tf.shape(ids)[0], 0]) if weights is None else weights[:, 0]
        written = tf.range(tf.shape(logits)[2]) >= first
        return tf.where(written, logits[:, 0], NEVER), states, tf.cast(noted, tf.float32)

    return search(
        step,
        states,
        end=end,
        beam_width=width,
        min_length=tf.minimum(config.min_length, most),
        max_length=most,
        length_penalty=config.length_penalty,
        note_size=tf.shape(looked_at[-1])[1] if looked_at else 0,
    )
