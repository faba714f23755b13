"""Batch rows of unequal length with little padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.engine.config.schema import BucketTrainConfig
from pipelines.engine.data.ragged import PADDING, Ragged

#: Rows read from disk at a time.
_CHUNK_ROWS = 1024
#: Most batches, relative to full ones only, that less padding is worth.
_MAX_BATCH_RATIO = 1.3


@dataclass(frozen=True)
class Buckets:
    """Batches of rows of similar length, each padded to the upper edge of its bucket.

    Padding to a fixed edge instead of the longest row limits the number of shapes, for which a
    backend may have to compile. If a row has several sequences, the rows of a batch are similar in
    the length of each, and each sequence is padded to its own edge.

    Attributes:
        edges: The longest length in each bucket, ascending.
        batch_size: Rows in a batch; the last batch of a bucket may have fewer.
        batch_tokens: If given, a batch has instead as many rows as fit into this many steps of its
            longest sequence, padding included, so that all batches cost about the same.
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
        """Choose edges at even quantiles, so that buckets are equally full.

        Each bucket may end with a batch that is not full. If those would be too many, because
        there are few rows or several sequences, there are fewer buckets.

        Args:
            lengths: ``<int>[rows]``, or ``<int>[rows, sequences]`` (see `lengths_of`), of which
                the longest of each row counts.
            buckets: Maximum number of buckets.
            batch_size: See `Buckets`.
            batch_tokens: See `Buckets`.
        """
        longest = lengths.reshape(len(lengths), -1).max(axis=1)
        for count in range(buckets, 0, -1):
            quantiles = np.quantile(longest, np.arange(1, count + 1) / count, method="higher")
            edges = tuple(sorted({max(1, int(q)) for q in quantiles}))
            fitted = cls(edges, batch_size, batch_tokens)
            full = np.sum(1.0 / np.asarray(fitted.rows)[np.searchsorted(edges, longest)])
            if fitted.steps(lengths) <= _MAX_BATCH_RATIO * full + 1:
                break
        return fitted

    @classmethod
    def from_config(cls, config: BucketTrainConfig, lengths: np.ndarray) -> Buckets:
        """Fit buckets as a config says; ``lengths`` as for `fit`."""
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
        """Return a dataset of batches ``(ids <int32>[batch, time], targets [batch])``.

        Args:
            rows: A `Ragged`, or a dictionary of several if a row has several sequences.
            targets: A `Ragged`, or one number a row.
            order: Indices of the rows, in the order in which they are read.

        Raises:
            ValueError: A sequence is longer than the last edge.
        """
        parts = (rows, targets)
        specs = tf.nest.map_structure(_row_spec, parts)
        edges, sizes = tf.constant(self.edges, tf.int64), tf.constant(self.rows, tf.int64)
        lengths, base = lengths_of(rows, targets), len(self.edges)

        def buckets_of(key: tf.Tensor) -> list[tf.Tensor]:
            """Decode ``key``, a number in base ``len(edges)``, into the bucket of each sequence."""
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
                    lambda k: next(widths) if k.shape.rank else tf.zeros([0], tf.int64), specs
                ),
                padding_values=tf.nest.map_structure(
                    lambda k: tf.constant(PADDING, k.dtype), specs
                ),
            )

        if any(part.on_disk for part in tf.nest.flatten(parts) if isinstance(part, Ragged)):
            data = _from_disk(parts, specs, order)
        else:
            readers = tf.nest.map_structure(_reader, parts)
            # Rows are gathered one by one on demand, so that an epoch copies nothing up front.
            data = tf.data.Dataset.from_tensor_slices(tf.constant(order, tf.int64)).map(
                lambda row: tf.nest.map_structure(lambda read: read(row), readers),
                num_parallel_calls=1,
            )
        data = data.group_by_window(key_of, batch, window_size_func=size_of)
        steps = self.steps(lengths[order])
        data = data.apply(tf.data.experimental.assert_cardinality(steps))
        return data.prefetch(4)

    def steps(self, lengths: np.ndarray) -> int:
        """Return the number of batches, which no order changes; ``lengths`` as for `fit`."""
        groups, counts = np.unique(self._bucket_indices(lengths), axis=0, return_counts=True)
        return int(np.sum(-(-counts // np.asarray(self.rows)[groups.max(axis=1)])))

    def padded(self, lengths: np.ndarray) -> int:
        """Return the steps of one epoch, padding included; ``lengths`` as for `fit`."""
        return int(np.sum(np.asarray(self.edges)[self._bucket_indices(lengths)]))

    def _bucket_indices(self, lengths: np.ndarray) -> np.ndarray:
        """Return the bucket of each sequence, ``<int>[rows, sequences]``."""
        if lengths.max(initial=0) > self.edges[-1]:
            raise ValueError(f"a row has {lengths.max()} steps, the last bucket {self.edges[-1]}")
        return np.searchsorted(self.edges, lengths.reshape(len(lengths), -1))


def lengths_of(*parts: Any) -> np.ndarray:
    """Return the length of each sequence of each row, ``<int64>[rows, sequences]``."""
    ragged = [part for part in tf.nest.flatten(parts) if isinstance(part, Ragged)]
    return np.stack([part.lengths for part in ragged], axis=1)


def _row_spec(part: Ragged | np.ndarray) -> tf.TensorSpec:
    """Return the shape and dtype of one row of ``part``."""
    if isinstance(part, Ragged):
        return tf.TensorSpec([None], part.values.dtype)
    return tf.TensorSpec([], part.dtype)


def _from_disk(parts: Any, specs: Any, order: np.ndarray) -> tf.data.Dataset:
    """Read the rows of ``parts`` in ``order`` from disk, chunk by chunk."""
    flat = tf.nest.flatten(parts)

    def read(which: np.ndarray) -> list[np.ndarray]:
        """Return the values of these rows, and the lengths of sequences."""
        found = []
        for part in flat:
            if isinstance(part, Ragged):
                found += [np.concatenate([part[row] for row in which]), part.lengths[which]]
            else:
                found.append(part[which])
        return found

    types = []
    for spec in tf.nest.flatten(specs):
        types += [spec.dtype, tf.int64] if spec.shape.rank else [spec.dtype]

    def rows(which: tf.Tensor) -> Any:
        found = iter(tf.numpy_function(read, [which], types, stateful=False))
        chunk = []
        for spec in tf.nest.flatten(specs):
            values = tf.ensure_shape(next(found), [None])
            if spec.shape.rank:
                lengths = tf.ensure_shape(next(found), [None])
                values = tf.RaggedTensor.from_row_lengths(values, lengths, validate=False)
            chunk.append(values)
        return tf.nest.pack_sequence_as(specs, chunk)

    data = tf.data.Dataset.from_tensor_slices(tf.constant(order, tf.int64))
    # Unbatched rows are tensors, but their spec still says ragged; ensure_shape corrects it.
    return (
        data.batch(_CHUNK_ROWS)
        .map(rows)
        .unbatch()
        .map(
            lambda *row: tf.nest.map_structure(
                lambda t, spec: tf.ensure_shape(t, spec.shape), row, specs
            )
        )
    )


def _reader(part: Ragged | np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function from the index of a row to the row."""
    if not isinstance(part, Ragged):
        numbers = tf.constant(part)
        return lambda row: numbers[row]
    values, starts, lengths = map(tf.constant, (part.values, part.starts, part.lengths))

    def read(row: tf.Tensor) -> tf.Tensor:
        start = starts[row]
        return values[start : start + lengths[row]]

    return read


class BucketFeed:
    """Batches of whole sequences for training and validation.

    Args:
        config: The batch size and the number of buckets.
        train: Rows and targets, see `Buckets.batches`.
        validation: Likewise.
        seed: Seed of the order of each epoch.
        buffer: Rows shuffled at a time if they are on disk.
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
    """Return batches of all rows, for evaluation; see `Buckets.batches`."""
    buckets = Buckets.from_config(config, lengths_of(rows, targets))
    return buckets.batches(rows, targets, np.arange(len(targets)))


def shuffled(count: int, *, seed: int, epoch: int, buffer: int | None = None) -> np.ndarray:
    """Return the order of one epoch, which depends on seed and epoch only, as resuming requires.

    Args:
        count: Number of rows.
        seed: The same seed gives the same orders.
        epoch: The epoch.
        buffer: If given, shuffle this many rows at a time, taken from about sixteen contiguous
            blocks, so that the disk reads neighbouring rows together.
    """
    rng = np.random.default_rng([seed, epoch])
    if buffer is None or buffer >= count:
        return rng.permutation(count)
    block = -(-buffer // 16)
    starts = rng.permutation(np.arange(0, count, block))
    order = np.concatenate([np.arange(s, min(s + block, count)) for s in starts])
    for start in range(0, count, buffer):
        rng.shuffle(order[start : start + buffer])
    return order
