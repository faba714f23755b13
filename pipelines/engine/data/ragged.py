"""Rows of different lengths, stored end to end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import numpy as np
import tensorflow as tf

from pipelines.engine.data import disk

#: The id that pads rows.
PADDING = 0


class Ragged:
    """Rows of unequal length, packed: ``values`` end to end, row ``i`` from ``starts[i]`` on.

    If ``values`` is a file on disk, rows derived from these are on disk as well.
    """

    def __init__(self, values: np.ndarray, lengths: np.ndarray) -> None:
        self.values = values
        self.lengths = lengths
        self.on_disk = isinstance(values, np.memmap)
        self.starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.starts[row] : self.starts[row] + self.lengths[row]]

    def with_prefix(self, value: int) -> Ragged:
        """Return rows with ``value`` put before each."""
        return self._insert(value, self.starts)

    def with_suffix(self, value: int) -> Ragged:
        """Return rows with ``value`` appended to each."""
        return self._insert(value, self.starts + self.lengths)

    def _insert(self, value: int, positions: np.ndarray) -> Ragged:
        """Insert ``value`` once in each row, at these positions of ``values``."""
        if not self.on_disk:
            return Ragged(np.insert(self.values, positions, value), self.lengths + 1)
        values = disk.DiskArray()
        for row in range(0, len(self), CHUNK_ROWS):
            start = self.starts[row]
            end = start + self.lengths[row : row + CHUNK_ROWS].sum()
            local = positions[row : row + CHUNK_ROWS] - start
            values.append(np.insert(np.array(self.values[start:end]), local, value))
        return Ragged(values.finish(), self.lengths + 1)


#: Most texts, or rows, processed at a time, and most characters of texts.
CHUNK_ROWS, CHUNK_CHARACTERS = 1000, 2**18


def map_texts(
    texts: Collection[str], function: Callable[[tf.Tensor], tf.RaggedTensor]
) -> Iterator[tf.RaggedTensor]:
    """Apply a ``<string>[batch]`` → ragged function to many texts, chunk by chunk."""
    signature = [tf.TensorSpec([None], tf.string)]
    compiled = tf.function(function, input_signature=signature, autograph=False)
    chunk: list[bytes] = []
    size = 0
    for text in texts:
        chunk.append(text.encode("utf-8", errors="replace"))
        size += len(text)
        if len(chunk) == CHUNK_ROWS or size >= CHUNK_CHARACTERS:
            yield function(tf.constant(chunk, tf.string, shape=[len(chunk)]))
            chunk, size = [], 0
            function = compiled  # from the second chunk on: one alone takes less than compiling
    if chunk:
        yield function(tf.constant(chunk, tf.string, shape=[len(chunk)]))


def encode_texts(
    texts: Collection[str], function: Callable[[tf.Tensor], tf.RaggedTensor]
) -> Ragged:
    """Apply a ``<string>[batch]`` → ``<int32>`` ragged function to many texts.

    Ids of texts on disk are kept on disk as well.
    """
    whole: list[np.ndarray] | disk.DiskArray = (
        disk.DiskArray() if isinstance(texts, disk.MappedRecords) else []
    )
    lengths = np.zeros(len(texts), np.int64)
    row = 0
    for ragged in map_texts(texts, function):
        whole.append(ragged.values.numpy())
        found = ragged.row_lengths().numpy()
        lengths[row : row + len(found)] = found
        row += len(found)
    if isinstance(whole, list):
        values = np.concatenate([np.zeros(0, np.int32), *whole])
    else:
        values = whole.finish()
    return Ragged(values, lengths)
