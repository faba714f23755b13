"""Synthetic problems for which it is known what a network must remember."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Number of symbols in `order`, `recall` and `next_symbol`.
SYMBOLS = 6

#: ``(rng, rows, time) -> (inputs <float32>[rows, time, features], targets)``
Problem = Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray]]


def one_hot(ids: np.ndarray, size: int) -> np.ndarray:
    """One-hot encode ids ``<int>[…]`` as ``<float32>[…, size]``."""
    encoded: np.ndarray = np.eye(size, dtype=np.float32)[ids]
    return encoded


def order(rng: np.random.Generator, rows: int, time: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Does symbol 0 come before symbol 1? Each occurs once, among other symbols.

    Rows of both classes contain the same symbols; only their order differs.

    Returns:
        ``<float32>[rows, time, SYMBOLS]``; ``<int32>[rows]``, 1 if symbol 0 comes first.
    """
    ids = rng.integers(2, SYMBOLS, (rows, time))
    positions = np.array([rng.choice(time, 2, replace=False) for _ in range(rows)])
    row = np.arange(rows)
    ids[row, positions[:, 0]], ids[row, positions[:, 1]] = 0, 1
    return one_hot(ids, SYMBOLS), (positions[:, 0] < positions[:, 1]).astype(np.int32)


def recall(rng: np.random.Generator, rows: int, time: int) -> tuple[np.ndarray, np.ndarray]:
    """Which symbol came first, 0 or 1? The others are distractors.

    Returns:
        ``<float32>[rows, time, SYMBOLS]``; ``<int32>[rows]``, the first symbol.
    """
    ids = rng.integers(2, SYMBOLS, (rows, time))
    ids[:, 0] = rng.integers(0, 2, rows)
    return one_hot(ids, SYMBOLS), ids[:, 0].astype(np.int32)


def adding(rng: np.random.Generator, rows: int, time: int) -> tuple[np.ndarray, np.ndarray]:
    """The sum of two marked numbers, one in each half (Hochreiter & Schmidhuber 1997).

    Always answering 1, the mean, has a mean squared error of 1/6.

    Returns:
        ``<float32>[rows, time, 2]``, numbers in [0, 1] and marks; ``<float32>[rows, 1]``.
    """
    numbers = rng.uniform(size=(rows, time)).astype(np.float32)
    marks = np.zeros_like(numbers)
    row, half = np.arange(rows), time // 2
    for start, end in ((0, half), (half, time)):
        marks[row, rng.integers(start, end, rows)] = 1
    return np.stack([numbers, marks], axis=-1), (numbers * marks).sum(axis=1, keepdims=True)


def next_symbol(rng: np.random.Generator, rows: int, time: int) -> tuple[np.ndarray, np.ndarray]:
    """At every step the next symbol, and at the last step the first.

    Returns:
        ``<float32>[rows, time, SYMBOLS]``; ``<int32>[rows, time]``.
    """
    ids = rng.integers(0, SYMBOLS, (rows, time))
    return one_hot(ids, SYMBOLS), np.roll(ids, -1, axis=1).astype(np.int32)
