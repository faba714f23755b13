"""Rows of unequal length as batches with little padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from pipelines.text import PADDING, Ragged


@dataclass(frozen=True)
class Buckets:
    """Batches of like length, each padded to the upper edge of its bucket.

    A fixed edge, not the longest row of the batch, so that there are only ``len(edges)`` shapes
    and a backend that compiles for each shape does so that often.

    Attributes:
        edges: longest row of each bucket, rising.
        batch_size: rows in a batch; the last one of a bucket may have fewer.
        batch_tokens: if given, a batch has instead as many rows as fit into so many steps,
            padding included: short rows come many at a time, and each batch costs the same.
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
        """Edges at even quantiles of ``lengths``, so that buckets are equally full."""
        quantiles = np.quantile(lengths, np.arange(1, buckets + 1) / buckets, method="higher")
        edges = sorted({max(1, int(q)) for q in quantiles})
        return cls(tuple(edges), batch_size, batch_tokens)

    @property
    def rows(self) -> list[int]:
        """Rows in a batch of each bucket, the last one being of rows that are too long."""
        if self.batch_tokens is None:
            return [self.batch_size] * (len(self.edges) + 1)
        return [*(max(1, self.batch_tokens // edge) for edge in self.edges), 1]

    def batches(self, rows: Ragged, targets: np.ndarray, order: np.ndarray) -> tf.data.Dataset:
        """``(ids <int32>[batch, time], targets [batch])``, rows taken in ``order``.

        A row longer than the last edge is an error of the caller.
        """
        ids = tf.RaggedTensor.from_row_lengths(rows.values, rows.lengths)
        steps = self.steps(rows.lengths[order])
        order = tf.constant(order, tf.int64)
        values = tf.constant(targets)
        # Ids are gathered row by row as they are asked for: an epoch copies nothing up front.
        data = tf.data.Dataset.from_tensor_slices(order).map(
            lambda row: (ids[row], values[row]), num_parallel_calls=1
        )
        data = data.bucket_by_sequence_length(
            lambda ids, _: tf.shape(ids)[0],
            bucket_boundaries=[edge + 1 for edge in self.edges],
            bucket_batch_sizes=self.rows,
            padding_values=(tf.constant(PADDING, tf.int32), tf.constant(0, values.dtype)),
            pad_to_bucket_boundary=True,
        )
        data = data.apply(tf.data.experimental.assert_cardinality(steps))
        return data.prefetch(4)

    def steps(self, lengths: np.ndarray) -> int:
        """How many batches ``batches`` gives, whatever the order."""
        counts = np.bincount(np.searchsorted(self.edges, lengths), minlength=len(self.rows))
        return int(np.sum(-(-counts // np.asarray(self.rows))))

    def padded(self, lengths: np.ndarray) -> int:
        """How many steps a pass computes, padding included."""
        return int(np.sum(np.asarray(self.edges)[np.searchsorted(self.edges, lengths)]))


def shuffled(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: a function of the seed and the epoch, so a resumed run has it too."""
    return np.random.default_rng([seed, epoch]).permutation(count)
