"""Texts that go on from batch to batch: parallel streams, cut into windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from pipelines.engine.data import disk
from pipelines.engine.data.ragged import Ragged


@dataclass(frozen=True)
class Windows:
    """What streams hold, window by window.

    Attributes:
        inputs: ``<int32>[windows, rows, window]``, 0 where a stream has nothing.
        targets: likewise, the token after each input.
        fresh: ``<bool>[windows, rows]``: a document begins here, and the state with it.
    """

    inputs: np.ndarray
    targets: np.ndarray
    fresh: np.ndarray

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return zip(self.inputs, self.targets, self.fresh, strict=True)

    def dataset(self) -> tf.data.Dataset:
        """``({ids, fresh}, targets)`` for each window."""
        inputs = {"ids": self.inputs, "fresh": self.fresh}
        if not isinstance(self.inputs, np.memmap):
            return tf.data.Dataset.from_tensor_slices((inputs, self.targets)).prefetch(2)
        ids = tf.TensorSpec(self.inputs.shape[1:], tf.int32)
        fresh = tf.TensorSpec(self.fresh.shape[1:], tf.bool)
        data = tf.data.Dataset.from_generator(
            lambda: (({"ids": i, "fresh": f}, t) for i, t, f in self),
            output_signature=({"ids": ids, "fresh": fresh}, ids),
        )
        windows = tf.data.experimental.assert_cardinality(len(self.inputs))
        return data.apply(windows).prefetch(2)


class TokenStreams:
    """Documents laid one behind the other in parallel streams (the rows of a batch).

    Each token is predicted from those before it: inputs are ``end d_1 … d_n``, targets
    ``d_1 … d_n end``, the end mark standing for the beginning as well. A document begins with a
    window, so that the state is reset between windows only; what it leaves of its last window is
    padding. Streams are filled evenly, once: epochs differ in the order within each.

    Args:
        documents: ids of each.
        rows: how many streams.
        window: steps of a window.
        end: the id of the end mark.
        cut: whether a document longer than an even share of all is cut into pieces, so that
            streams have work alike. A piece starts from the initial state.
    """

    def __init__(
        self, documents: Ragged, *, rows: int, window: int, end: int, cut: bool = True
    ) -> None:
        self._documents, self._rows, self._window, self._end = documents, rows, window, end
        steps = documents.lengths + 1
        self.tokens = int(steps.sum())
        share = -(-self.tokens // rows)
        longest = -(-share // window) * window if cut else max(int(steps.max(initial=1)), 1)
        #: (document, first step, behind the last)
        pieces = [
            (document, start, min(start + longest, count))
            for document, count in enumerate(steps.tolist())
            for start in range(0, count, longest)
        ]
        self._streams: list[list[tuple[int, int, int]]] = [[] for _ in range(rows)]
        filled = np.zeros(rows, np.int64)
        for piece in sorted(pieces, key=lambda p: p[1] - p[2]):
            row = int(filled.argmin())
            self._streams[row].append(piece)
            filled[row] += self._windows_of(piece)
        self.windows = int(filled.max())
        self.padded_tokens = self.windows * rows * window

    def _windows_of(self, piece: tuple[int, int, int]) -> int:
        return -(-(piece[2] - piece[1]) // self._window)

    def arrange(self, rng: np.random.Generator | None = None) -> Windows:
        """The windows of one pass; the order of the documents in each stream is drawn."""
        made = disk.zeros if self._documents.on_disk else np.zeros
        whole = (self._rows, self.windows * self._window)
        inputs, targets = made(whole, np.int32), made(whole, np.int32)  # all of it padding
        fresh = np.ones((self._rows, self.windows), bool)
        for row, pieces in enumerate(self._streams):
            at = 0
            order = range(len(pieces)) if rng is None else rng.permutation(len(pieces))
            for document, start, stop in (pieces[i] for i in order):
                ids = self._documents[document]
                marked = np.concatenate([[self._end], ids, [self._end]])[start : stop + 1]
                begin, count = at * self._window, stop - start
                inputs[row, begin : begin + count] = marked[:-1]
                targets[row, begin : begin + count] = marked[1:]
                windows = self._windows_of((document, start, stop))
                fresh[row, at + 1 : at + windows] = False
                at += windows
        shape = (self._rows, self.windows, self._window)
        inputs, targets = (a.reshape(shape).swapaxes(0, 1) for a in (inputs, targets))
        if not self._documents.on_disk:
            inputs, targets = np.ascontiguousarray(inputs), np.ascontiguousarray(targets)
        return Windows(inputs, targets, np.ascontiguousarray(fresh.T))
