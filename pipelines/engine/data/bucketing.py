"""Rows of unequal length as batches with little padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.engine.config.schema import BucketTrainConfig
from pipelines.engine.data.ragged import PADDING, Ragged

#: Rows that are read from disk at a time.
_PIECE = 1024
#: So many times as many batches as if all were full are worth less padding.
_MORE = 1.3


@dataclass(frozen=True)
class Buckets:
    """Batches of like length, each padded to the upper edge of its bucket.

    A fixed edge, not the longest row of the batch, so that there are only so many shapes and a
    backend that compiles for each shape does so that often. Where a row has several sequences,
    the rows of a batch are alike in the length of each, and each is padded to an edge of its own.

    Attributes:
        edges: longest row of each bucket, rising.
        batch_size: rows in a batch; the last one of a bucket may have fewer.
        batch_tokens: if given, a batch has instead as many rows as fit into so many steps (of the
            longest sequence), padding included: short rows come many at a time, and each batch
            costs the same.
    """

    edges: tuple[int, ...]
    batch_size: int
    batch_tokens: int | None = None

    @classmethod
    def fit(
        cls,
        lengths: np.ndarray,
        *,
        buckets: int,
        batch_size: int,
        batch_tokens: int | None = None,
    ) -> Buckets:
        """Edges at even quantiles, so that buckets are equally full.

        Each bucket may leave a batch that is not full. Where those would be many, because the
        rows are few or have several sequences, there are fewer buckets.

        Args:
            lengths: ``<int>[rows]``, or ``<int>[rows, sequences]`` (see `lengths_of`), of which
                the longest of each row counts.
            buckets: at most so many.
        """
        longest = lengths.reshape(len(lengths), -1).max(axis=1)
        for count in range(buckets, 0, -1):
            quantiles = np.quantile(longest, np.arange(1, count + 1) / count, method="higher")
            edges = tuple(sorted({max(1, int(q)) for q in quantiles}))
            fitted = cls(edges, batch_size, batch_tokens)
            full = np.sum(1.0 / np.asarray(fitted.rows)[np.searchsorted(edges, longest)])
            if fitted.steps(lengths) <= _MORE * full + 1:
                break
        return fitted

    @classmethod
    def from_config(cls, config: BucketTrainConfig, lengths: np.ndarray) -> Buckets:
        """As a config has them; ``lengths`` as for `fit`."""
        return cls.fit(
            lengths,
            buckets=config.buckets,
            batch_size=config.batch_size,
            batch_tokens=config.batch_tokens,
        )

    @property
    def rows(self) -> list[int]:
        """Rows in a batch, by the bucket of its longest sequence."""
        if self.batch_tokens is None:
            return [self.batch_size] * len(self.edges)
        return [max(1, self.batch_tokens // edge) for edge in self.edges]

    def batches(self, rows: Any, targets: Any, order: np.ndarray) -> tf.data.Dataset:
        """``(ids <int32>[batch, time], targets [batch])``, rows taken in ``order``.

        A row may have several sequences: ``rows`` is then a dictionary of them, and ``targets``
        may be sequences too.

        Args:
            rows: a `Ragged`, or several by name.
            targets: a `Ragged` as well, or one number a row.
            order: which rows.

        Raises:
            ValueError: a sequence is longer than the last edge.
        """
        parts = (rows, targets)
        kinds = tf.nest.map_structure(_kind, parts)
        edges, sizes = tf.constant(self.edges, tf.int64), tf.constant(self.rows, tf.int64)
        lengths, base = lengths_of(rows, targets), len(self.edges)

        def buckets_of(key: tf.Tensor) -> list[tf.Tensor]:
            """The bucket of each sequence of a row, of which ``key`` is made."""
            return [key // base**i % base for i in range(lengths.shape[1])]

        def key_of(*row: Any) -> tf.Tensor:
            sequences = [part for part in tf.nest.flatten(row) if part.shape.rank]
            found = tf.searchsorted(edges, [tf.size(s, tf.int64) for s in sequences])
            key = [base**i for i in range(len(sequences))] * tf.cast(found, tf.int64)
            return tf.reduce_sum(key)

        def size_of(key: tf.Tensor) -> tf.Tensor:
            return tf.gather(sizes, tf.reduce_max(buckets_of(key)))

        def batch(key: tf.Tensor, window: tf.data.Dataset) -> tf.data.Dataset:
            widths = iter([tf.gather(edges, bucket)[None] for bucket in buckets_of(key)])
            return window.padded_batch(
                size_of(key),
                padded_shapes=tf.nest.map_structure(
                    lambda k: next(widths) if k.shape.rank else tf.zeros([0], tf.int64), kinds
                ),
                padding_values=tf.nest.map_structure(
                    lambda k: tf.constant(PADDING, k.dtype), kinds
                ),
            )

        if any(part.on_disk for part in tf.nest.flatten(parts) if isinstance(part, Ragged)):
            data = _from_disk(parts, kinds, order)
        else:
            tensors = tf.nest.map_structure(_tensor, parts)
            # Rows are gathered one by one as they are asked for: an epoch copies nothing up front.
            data = tf.data.Dataset.from_tensor_slices(tf.constant(order, tf.int64)).map(
                lambda row: tf.nest.map_structure(lambda t: t[row], tensors), num_parallel_calls=1
            )
        data = data.group_by_window(key_of, batch, window_size_func=size_of)
        steps = self.steps(lengths[order])
        data = data.apply(tf.data.experimental.assert_cardinality(steps))
        return data.prefetch(4)

    def steps(self, lengths: np.ndarray) -> int:
        """How many batches ``batches`` gives, whatever the order; ``lengths`` as for `fit`."""
        groups, counts = np.unique(self._places(lengths), axis=0, return_counts=True)
        return int(np.sum(-(-counts // np.asarray(self.rows)[groups.max(axis=1)])))

    def padded(self, lengths: np.ndarray) -> int:
        """How many steps a pass computes, padding included; ``lengths`` as for `fit`."""
        return int(np.sum(np.asarray(self.edges)[self._places(lengths)]))

    def _places(self, lengths: np.ndarray) -> np.ndarray:
        """``<int>[rows, sequences]``: the bucket of each sequence."""
        if lengths.max(initial=0) > self.edges[-1]:
            raise ValueError(f"a row has {lengths.max()} steps, the last bucket {self.edges[-1]}")
        return np.searchsorted(self.edges, lengths.reshape(len(lengths), -1))


def lengths_of(*parts: Any) -> np.ndarray:
    """``<int64>[rows, sequences]``: steps of each sequence of each row."""
    ragged = [part for part in tf.nest.flatten(parts) if isinstance(part, Ragged)]
    return np.stack([part.lengths for part in ragged], axis=1)


def _kind(part: Ragged | np.ndarray) -> tf.TensorSpec:
    """What a row of ``part`` is."""
    if isinstance(part, Ragged):
        return tf.TensorSpec([None], part.values.dtype)
    return tf.TensorSpec([], part.dtype)


def _from_disk(parts: Any, kinds: Any, order: np.ndarray) -> tf.data.Dataset:
    """The rows of ``parts`` in ``order``, of which a piece is in memory at a time."""
    flat = tf.nest.flatten(parts)

    def read(which: np.ndarray) -> list[np.ndarray]:
        """The values of these rows, and of sequences the lengths."""
        found = []
        for part in flat:
            if isinstance(part, Ragged):
                found += [np.concatenate([part[row] for row in which]), part.lengths[which]]
            else:
                found.append(part[which])
        return found

    types = []
    for kind in tf.nest.flatten(kinds):
        types += [kind.dtype, tf.int64] if kind.shape.rank else [kind.dtype]

    def rows(which: tf.Tensor) -> Any:
        found = iter(tf.numpy_function(read, [which], types, stateful=False))
        pieces = []
        for kind in tf.nest.flatten(kinds):
            values = tf.ensure_shape(next(found), [None])
            if kind.shape.rank:
                lengths = tf.ensure_shape(next(found), [None])
                values = tf.RaggedTensor.from_row_lengths(values, lengths, validate=False)
            pieces.append(values)
        return tf.nest.pack_sequence_as(kinds, pieces)

    data = tf.data.Dataset.from_tensor_slices(tf.constant(order, tf.int64))
    # What comes out of a ragged piece is a tensor, and is said to be ragged.
    return (
        data.batch(_PIECE)
        .map(rows)
        .unbatch()
        .map(
            lambda *row: tf.nest.map_structure(
                lambda t, kind: tf.ensure_shape(t, kind.shape), row, kinds
            )
        )
    )


def _tensor(part: Ragged | np.ndarray) -> tf.Tensor | tf.RaggedTensor:
    if isinstance(part, Ragged):
        return tf.RaggedTensor.from_row_lengths(part.values, part.lengths)
    return tf.constant(part)


class BucketFeed:
    """The batches of whole sequences that a model is trained and validated on.

    Args:
        train, validation: rows and targets, see `Buckets.batches`.
        buffer: rows that are shuffled at a time, where they are on disk.
    """

    def __init__(
        self,
        config: BucketTrainConfig,
        train: tuple[Any, Any],
        validation: tuple[Any, Any],
        *,
        seed: int,
        buffer: int | None = None,
    ) -> None:
        self._train, self._validation, self._seed = train, validation, seed
        on_disk = any(part.on_disk for part in tf.nest.flatten(train) if isinstance(part, Ragged))
        self._buffer = buffer if on_disk else None
        self._buckets = Buckets.from_config(config, lengths_of(*train))
        self._validation_buckets = Buckets.from_config(config, lengths_of(*validation))
        self.steps = self._buckets.steps(lengths_of(*train))
        read = lengths_of(train[0])
        self.tokens = int(read.sum())
        self.padded_tokens = self._buckets.padded(read)

    def train(self, epoch: int) -> tf.data.Dataset:
        rows, targets = self._train
        order = shuffled(len(targets), seed=self._seed, epoch=epoch, buffer=self._buffer)
        return self._buckets.batches(rows, targets, order)

    def validation(self) -> tf.data.Dataset:
        rows, targets = self._validation
        return self._validation_buckets.batches(rows, targets, np.arange(len(targets)))


def ordered_batches(config: BucketTrainConfig, rows: Any, targets: Any) -> tf.data.Dataset:
    """Batches of all rows, for scores; see `Buckets.batches`."""
    buckets = Buckets.from_config(config, lengths_of(rows, targets))
    return buckets.batches(rows, targets, np.arange(len(targets)))


def shuffled(count: int, *, seed: int, epoch: int, buffer: int | None = None) -> np.ndarray:
    """The order of one epoch: a function of the seed and the epoch, so a resumed run has it too.

    Args:
        buffer: given, that many rows are shuffled at a time, of sixteen places of the disk or so:
            it reads rows that lie side by side, not each from somewhere else.
    """
    rng = np.random.default_rng([seed, epoch])
    if buffer is None or buffer >= count:
        return rng.permutation(count)
    side_by_side = -(-buffer // 16)
    starts = rng.permutation(np.arange(0, count, side_by_side))
    order = np.concatenate([np.arange(s, min(s + side_by_side, count)) for s in starts])
    for start in range(0, count, buffer):
        rng.shuffle(order[start : start + buffer])
    return order
