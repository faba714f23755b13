"""Batches that continue the texts of the batch before: parallel streams, cut into windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from pipelines.engine.data import disk
from pipelines.engine.data.ragged import Ragged


@dataclass(frozen=True)
class Windows:
    """The content of parallel streams, window by window.

    Attributes:
        inputs: ``<int32>[windows, rows, window]``, padded with 0.
        targets: The token after each input, in the same shape.
        fresh: ``<bool>[windows, rows]``, whether a document begins here, which resets the state.
    """

    inputs: np.ndarray
    targets: np.ndarray
    fresh: np.ndarray

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return zip(self.inputs, self.targets, self.fresh, strict=True)

    def dataset(self) -> tf.data.Dataset:
        """Return a dataset of ``({ids, fresh}, targets)``, one element a window."""
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
    """Documents distributed over parallel streams (the rows of a batch), one after the other.

    Each token is predicted from those before it: inputs are ``end d_1 … d_n``, targets
    ``d_1 … d_n end``, where the end mark also stands for the beginning. A document begins at the
    start of a window, so that the state is reset between windows only; the rest of its last
    window is padding. Documents are assigned to streams once and evenly; epochs differ in the
    order within each stream.

    Args:
        documents: The ids of each document.
        rows: Number of streams.
        window: Steps of a window.
        end: Id of the end mark.
        cut: Whether to cut documents longer than an even share of all tokens, so that streams are
            equally long. Each segment starts from the initial state.
    """

    def __init__(
        self, documents: Ragged, *, rows: int, window: int, end: int, cut: bool = True
    ) -> None:
        self._documents, self._rows, self._window, self._end = documents, rows, window, end
        steps = documents.lengths + 1
        self.tokens = int(steps.sum())
        share = -(-self.tokens // rows)
        longest = -(-share // window) * window if cut else max(int(steps.max(initial=1)), 1)
        #: (document, first step, end)
        segments = [
            (document, start, min(start + longest, count))
            for document, count in enumerate(steps.tolist())
            for start in range(0, count, longest)
        ]
        self._streams: list[list[tuple[int, int, int]]] = [[] for _ in range(rows)]
        filled = np.zeros(rows, np.int64)
        for segment in sorted(segments, key=lambda p: p[1] - p[2]):
            row = int(filled.argmin())
            self._streams[row].append(segment)
            filled[row] += self._windows_of(segment)
        self.windows = int(filled.max())
        self.padded_tokens = self.windows * rows * window

    def _windows_of(self, segment: tuple[int, int, int]) -> int:
        return -(-(segment[2] - segment[1]) // self._window)

    def arrange(self, rng: np.random.Generator | None = None) -> Windows:
        """Arrange the windows of one epoch.

        Args:
            rng: Shuffles the documents within each stream; None keeps their order.
        """
        zeros = disk.zeros if self._documents.on_disk else np.zeros
        size = (self._rows, self.windows * self._window)
        inputs, targets = zeros(size, np.int32), zeros(size, np.int32)
        fresh = np.ones((self._rows, self.windows), bool)
        for row, segments in enumerate(self._streams):
            first = 0  # window of the next segment
            order = range(len(segments)) if rng is None else rng.permutation(len(segments))
            for document, start, stop in (segments[i] for i in order):
                ids = self._documents[document]
                marked = np.concatenate([[self._end], ids, [self._end]])[start : stop + 1]
                begin, count = first * self._window, stop - start
                inputs[row, begin : begin + count] = marked[:-1]
                targets[row, begin : begin + count] = marked[1:]
                windows = self._windows_of((document, start, stop))
                fresh[row, first + 1 : first + windows] = False
                first += windows
        shape = (self._rows, self.windows, self._window)
        inputs, targets = (a.reshape(shape).swapaxes(0, 1) for a in (inputs, targets))
        if not self._documents.on_disk:
            inputs, targets = np.ascontiguousarray(inputs), np.ascontiguousarray(targets)
        return Windows(inputs, targets, np.ascontiguousarray(fresh.T))
