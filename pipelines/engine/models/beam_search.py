"""Beam search: the most probable texts of a model, as one compiled graph.

The model takes part through one function, so that a fake one can test what is here::

    step(ids <int32>[rows], states) -> (logits <float>[rows, vocabulary], states,
                                        annotations <float>[rows, size])

The graph is the same one that is exported. Every row is independent of the others in its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from pipelines.engine.config.decoding import MAX_BEAM_WIDTH, MAX_LENGTH, DecodingConfig
from pipelines.engine.data.ragged import PADDING

#: log p of what is impossible.
IMPOSSIBLE = -1e9

AnnotatedStep = Callable[[tf.Tensor, list[tf.Tensor]], tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]]


class BeamSearchResult(NamedTuple):
    """The hypotheses of each row, the best first.

    Attributes:
        ids: ``<int32>[batch, beam, time]``, padded with 0.
        scores: ``<float>[batch, beam]``, log p / length^α; `IMPOSSIBLE` where there is no
            hypothesis.
        annotations: ``<float>[batch, beam, time, size]``, what the steps returned with each id; 0
            at padding.
    """

    ids: tf.Tensor
    scores: tf.Tensor
    annotations: tf.Tensor


class _Beam(NamedTuple):
    """Hypotheses of a search, ``[batch, beam]`` each unless said otherwise.

    Attributes:
        ids: The last id of each.
        scores: log p.
        running, ended: Whether it can be continued; whether it has its end mark.
        lengths: Its ids, end mark included.
        texts: ``[batch, beam, time]``, its ids.
        annotations: ``[batch, beam, time, size]``.
        states: ``[batch · beam, …]`` each.
    """

    ids: tf.Tensor
    scores: tf.Tensor
    running: tf.Tensor
    ended: tf.Tensor
    lengths: tf.Tensor
    texts: tf.Tensor
    annotations: tf.Tensor
    states: list[tf.Tensor]


def repeat_rows(tensors: Sequence[tf.Tensor], beam: tf.Tensor) -> list[tf.Tensor]:
    """Repeat each row once for each of its hypotheses, side by side."""
    return [tf.repeat(tensor, beam, axis=0) for tensor in tensors]


def search(
    step: AnnotatedStep,
    states: Sequence[tf.Tensor],
    *,
    end: int,
    beam_width: tf.Tensor,
    min_length: tf.Tensor,
    max_length: tf.Tensor,
    length_penalty: float,
    annotation_size: tf.Tensor | int = 0,
) -> BeamSearchResult:
    """Search for the most probable texts.

    Of all hypotheses one token longer, the most probable are continued. One that has ended keeps
    its place, so that the others have one place less (as in Bahdanau et al. 2015); the search is
    over when all places have ended. Those are ranked by log p / length^α, the end mark included in
    both. A beam of 1 is greedy; one as wide as there are texts finds the best of all.

    Args:
        step: Called with ``batch · beam`` rows, the hypotheses of a row side by side, beam being
            the largest of ``beam_width``; see `repeat_rows` for what else it reads.
        states: ``[batch, …]`` each, those before the first token.
        end: The id that ends a text, and stands before its first token.
        beam_width: ``<int32>[batch]``, at least 1.
        min_length, max_length: ``<int32>[batch]``, tokens without the end mark; the smaller first.
        length_penalty: α.
        annotation_size: The width of the annotations.
    """
    beam = tf.maximum(tf.reduce_max(beam_width), 1)
    searching = _Search(
        step, end, beam, beam_width, min_length, max_length, tf.cast(annotation_size, tf.int32)
    )
    start = searching.start(states)
    matrix = tf.TensorShape([None, None])
    shapes = _Beam(
        ids=matrix,
        scores=matrix,
        running=matrix,
        ended=matrix,
        lengths=matrix,
        texts=tf.TensorShape([None] * 3),
        annotations=tf.TensorShape([None] * 4),
        states=[tf.TensorShape([None]).concatenate(state.shape[1:]) for state in states],
    )
    longest = tf.reduce_max(max_length)
    _, found = tf.while_loop(
        lambda t, hypotheses: (t <= longest) & tf.reduce_any(hypotheses.running),
        lambda t, hypotheses: (t + 1, searching.extend(t, hypotheses)),
        (0, start),
        shape_invariants=(tf.TensorShape([]), shapes),
        parallel_iterations=1,
    )
    lengths = tf.cast(tf.maximum(found.lengths, 1), found.scores.dtype)
    scores = tf.where(found.ended, found.scores / lengths**length_penalty, IMPOSSIBLE)
    best = tf.math.top_k(scores, beam)
    ids, annotations = (
        tf.gather(tensor, best.indices, axis=1, batch_dims=1)
        for tensor in (found.texts, found.annotations)
    )
    return BeamSearchResult(ids, best.values, annotations)


@dataclass(frozen=True)
class _Search:
    """The parts of a search that do not change; see `search`."""

    step: AnnotatedStep
    end: int
    beam: tf.Tensor
    beam_width: tf.Tensor
    min_length: tf.Tensor
    max_length: tf.Tensor
    annotation_size: tf.Tensor

    @property
    def places(self) -> tf.Tensor:
        """``<int32>[1, beam]``."""
        return tf.range(self.beam)[None]

    @property
    def usable(self) -> tf.Tensor:
        """``<bool>[batch, beam]``, the places that the beam width of a row allows."""
        return self.places < self.beam_width[:, None]

    def start(self, states: Sequence[tf.Tensor]) -> _Beam:
        """One empty hypothesis for each row."""
        rows = tf.shape(self.beam_width)[0]
        running = self.usable & (self.places == 0)
        return _Beam(
            ids=tf.fill([rows, self.beam], self.end),
            scores=tf.where(running, 0.0, IMPOSSIBLE),
            running=running,
            ended=tf.zeros_like(running),
            lengths=tf.zeros([rows, self.beam], tf.int32),
            texts=tf.zeros([rows, self.beam, 0], tf.int32),
            annotations=tf.zeros([rows, self.beam, 0, self.annotation_size]),
            states=repeat_rows(states, self.beam),
        )

    def extend(self, t: tf.Tensor, old: _Beam) -> _Beam:
        """The best hypotheses after one more token."""
        rows, beam = tf.shape(self.beam_width)[0], self.beam
        logits, states, annotations = self.step(tf.reshape(old.ids, [rows * beam]), old.states)
        size = tf.shape(logits)[1]
        longer = tf.where(old.running, old.scores, IMPOSSIBLE)[:, :, None]
        longer += self._log_probabilities(t, logits)
        best = tf.math.top_k(tf.reshape(longer, [rows, beam * size]), beam)
        # Behind the hypotheses that have ended, which stay, the best longer ones.
        ended_first = tf.where(old.ended, -IMPOSSIBLE, 2 * IMPOSSIBLE)
        chosen = tf.math.top_k(tf.concat([ended_first, best.values], axis=1), beam).indices
        stays = chosen < beam

        def choose(staying: Any, extended: Any) -> Any:
            both = tf.concat([staying, extended], axis=1)
            return tf.gather(both, chosen, axis=1, batch_dims=1)

        parent = choose(tf.broadcast_to(self.places, [rows, beam]), best.indices // size)
        ids = choose(tf.fill([rows, beam], PADDING), best.indices % size)
        scores = choose(old.scores, best.values)
        exists = self.usable & (stays | (scores > IMPOSSIBLE / 2))
        ended = exists & (stays | (ids == self.end))
        running = exists & ~ended
        ids = tf.where(running, ids, PADDING)

        def inherit(tensor: tf.Tensor) -> tf.Tensor:
            return tf.gather(tensor, parent, axis=1, batch_dims=1)

        texts = tf.concat([inherit(old.texts), ids[:, :, None]], axis=2)
        # The annotations belong to the hypothesis that is continued.
        annotations = tf.reshape(annotations, [rows, beam, 1, self.annotation_size])
        annotations = inherit(tf.concat([old.annotations, annotations], axis=2))
        parent_rows = tf.reshape(tf.range(rows)[:, None] * beam + parent, [-1])
        return _Beam(
            ids=ids,
            scores=scores,
            running=running,
            ended=ended,
            lengths=inherit(old.lengths) + tf.cast(~stays, tf.int32),
            texts=texts,
            annotations=tf.where((texts != PADDING)[..., None], annotations, 0.0),
            states=[tf.gather(state, parent_rows) for state in states],
        )

    def _log_probabilities(self, t: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """``<float>[batch, beam, vocabulary]``, `IMPOSSIBLE` where lengths forbid a token."""
        size = tf.shape(logits)[1]
        is_end = tf.range(size)[None] == self.end
        allowed = tf.where(is_end, t >= self.min_length[:, None], t < self.max_length[:, None])
        log_p = tf.reshape(tf.nn.log_softmax(logits), [-1, self.beam, size])
        return tf.where(allowed[:, None], log_p, IMPOSSIBLE)


def generate(
    model: Callable[[tf.Tensor, list[tf.Tensor], list[tf.Tensor]], Any],
    states: Sequence[tf.Tensor],
    attended: Sequence[tf.Tensor],
    config: DecodingConfig,
    *,
    end: int,
    first: int,
    has_input: tf.Tensor,
    beam_width: tf.Tensor,
    max_length: tf.Tensor,
) -> BeamSearchResult:
    """Search for the most probable texts of a decoder, as a request to a server asks for them.

    Args:
        model: ``(ids <int32>[n, 1], states, attended)`` → ``(logits [n, 1, vocabulary], states,
            alignment [n, 1, steps])``, see `seq2seq.decoder_step`. The alignments are the
            annotations of the result.
        states: ``[batch, …]`` each, those before the first token.
        attended: What attention reads of each row; empty without attention.
        config: The shortest length and the length penalty.
        end: The id that ends a text.
        first: Lower ids are never generated.
        has_input: ``<bool>[batch]``; a row without input has an empty text.
        beam_width, max_length: ``<int32>``, one for each row or one for all. They may come from
            anybody, so values out of bounds are clipped.
    """
    rows = tf.shape(has_input)
    width = tf.clip_by_value(tf.broadcast_to(beam_width, rows), 1, MAX_BEAM_WIDTH)
    longest = tf.clip_by_value(tf.broadcast_to(max_length, rows), 0, MAX_LENGTH)
    longest = tf.where(has_input, longest, 0)
    attended = repeat_rows(attended, tf.maximum(tf.reduce_max(width), 1))

    def step(ids: tf.Tensor, states: list[tf.Tensor]) -> Any:
        logits, states, alignment = model(ids[:, None], states, attended)
        if alignment is None:
            alignment = tf.zeros([tf.shape(ids)[0], 1, 0])
        allowed = tf.range(tf.shape(logits)[2]) >= first
        logits = tf.where(allowed, logits[:, 0], IMPOSSIBLE)
        return logits, states, tf.cast(alignment[:, 0], tf.float32)

    return search(
        step,
        states,
        end=end,
        beam_width=width,
        min_length=tf.minimum(config.min_length, longest),
        max_length=longest,
        length_penalty=config.length_penalty,
        annotation_size=tf.shape(attended[-1])[1] if attended else 0,
    )
