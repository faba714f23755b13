"""Rows of different lengths, stored end to end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import numpy as np
import tensorflow as tf

from pipelines.engine.data import disk

#: The id that fills rows up.
PADDING = 0


class Ragged:
    """Rows of unequal length, packed: ``values`` end to end, row ``i`` from ``starts[i]`` on.

    ``values`` may be a file on disk: what is made of such rows is on disk again.
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
        """Every row with ``value`` before it."""
        return self._with(value, self.starts)

    def with_suffix(self, value: int) -> Ragged:
        """Every row with ``value`` behind it."""
        return self._with(value, self.starts + self.lengths)

    def _with(self, value: int, places: np.ndarray) -> Ragged:
        """Every row with ``value`` at its place."""
        if not self.on_disk:
            return Ragged(np.insert(self.values, places, value), self.lengths + 1)
        whole = disk.DiskArray()
        for row in range(0, len(self), CHUNK_ROWS):
            start = self.starts[row]
            end = start + self.lengths[row : row + CHUNK_ROWS].sum()
            here = places[row : row + CHUNK_ROWS] - start
            whole.append(np.insert(np.array(self.values[start:end]), here, value))
        return Ragged(whole.finish(), self.lengths + 1)


#: Texts that are worked on at a time, and characters of them; rows likewise.
CHUNK_ROWS, CHUNK_CHARACTERS = 1000, 2**18


def map_texts(
    texts: Collection[str], function: Callable[[tf.Tensor], tf.RaggedTensor]
) -> Iterator[tf.RaggedTensor]:
    """A ``<string>[batch]`` → ragged function of many texts, piece by piece."""
    function = tf.function(function, input_signature=[tf.TensorSpec([None], tf.string)])
    piece: list[bytes] = []
    size = 0
    for text in texts:
        piece.append(text.encode("utf-8", errors="replace"))
        size += len(text)
        if len(piece) == CHUNK_ROWS or size >= CHUNK_CHARACTERS:
            yield function(tf.constant(piece, tf.string, shape=[len(piece)]))
            piece, size = [], 0
    if piece:
        yield function(tf.constant(piece, tf.string, shape=[len(piece)]))


def encode_texts(
    texts: Collection[str], function: Callable[[tf.Tensor], tf.RaggedTensor]
) -> Ragged:
    """Apply a ``<string>[batch]`` → ``<int32>`` ragged function to many texts.

    Texts that are on disk become ids on disk.
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
