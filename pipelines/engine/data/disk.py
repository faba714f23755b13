"""Records and ids on disk, for data larger than memory.

They are stored in unnamed files, which the system frees when the process ends, however it ends.
The files are in the folder of runs and exports (``UNFOLD_HOME``), because the folder for temporary
files is often in memory itself.

Each record needs about 100 bytes of memory (its position in the file, its length, its key),
whatever its size.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import IO, Any, Generic, TypeVar, overload

import numpy as np

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.paths import home

R = TypeVar("R")
T = TypeVar("T")


def _unnamed_file() -> IO[bytes]:
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot write there: {error.strerror}") from None


class DiskRecords(Sequence[R]):
    """Sequence of records on disk; each access reads one.

    Args:
        records: Instances of one dataclass whose fields are text, numbers, or lists of them.
    """

    def __init__(self, records: Iterable[R]) -> None:
        self._file = _unnamed_file()
        lengths = array("q")
        self._kind: type[Any] = object
        for record in records:
            self._kind = type(record)
            # ASCII escapes keep lone surrogates, so that invalid text is restored exactly.
            line = json.dumps(dataclasses.astuple(record)).encode("ascii")  # type: ignore[call-overload]
            self._file.write(line)
            lengths.append(len(line))
        self._file.flush()
        ends = np.cumsum(np.frombuffer(lengths, np.int64))
        self._starts, self._ends = np.concatenate([[0], ends[:-1]])[: len(ends)], ends

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, which: int) -> R: ...
    @overload
    def __getitem__(self, which: slice) -> Sequence[R]: ...
    def __getitem__(self, which: int | slice) -> R | Sequence[R]:
        if isinstance(which, slice):
            return self.select(np.arange(len(self))[which])
        start, end = int(self._starts[which]), int(self._ends[which])
        record: R = self._kind(*json.loads(os.pread(self._file.fileno(), end - start, start)))
        return record

    def select(self, which: np.ndarray) -> DiskRecords[R]:
        """Return the records at these indices, without copying them."""
        part = object.__new__(type(self))
        part._file, part._kind = self._file, self._kind
        part._starts, part._ends = self._starts[which], self._ends[which]
        return part


class MappedRecords(Collection[T], Generic[T]):
    """Collection of a function's results for records on disk, computed anew on each iteration."""

    def __init__(self, function: Callable[[Any], T], *records: Collection[Any]) -> None:
        self._function, self._records = function, records

    def __len__(self) -> int:
        return sum(map(len, self._records))

    def __iter__(self) -> Iterator[T]:
        return map(self._function, chain.from_iterable(self._records))

    def __contains__(self, value: object) -> bool:
        return any(value == one for one in self)


def map_records(function: Callable[[Any], T], *records: Collection[Any]) -> Collection[T]:
    """Apply ``function`` to every record of the collections, one after the other.

    Returns:
        A list, or a `MappedRecords` if a collection is on disk.
    """
    if any(isinstance(part, DiskRecords | MappedRecords) for part in records):
        return MappedRecords(function, *records)
    return [function(record) for part in records for record in part]


def select(records: Sequence[R], which: np.ndarray) -> Sequence[R]:
    """Return the records at these indices."""
    if isinstance(records, DiskRecords):
        return records.select(which)
    return [records[i] for i in which]


class DiskArray:
    """Array written to disk in chunks, then read as a whole."""

    def __init__(self) -> None:
        self._file = _unnamed_file()
        self._type: np.dtype[Any] = np.dtype(np.int32)
        self._size = 0

    def append(self, values: np.ndarray) -> None:
        """Write a chunk; all chunks must have the same dtype."""
        self._type = values.dtype
        self._size += values.size
        self._file.write(values.tobytes())

    def finish(self) -> np.ndarray:
        """Return all chunks as one memory-mapped array, ``[size]``."""
        self._file.flush()
        if not self._size:
            return np.zeros(0, self._type)
        return np.memmap(self._file, self._type, "r", shape=(self._size,))


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return a writable array of zeros on disk."""
    file = _unnamed_file()
    file.truncate(max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize))
    return np.memmap(file, dtype, "r+", shape=shape)
