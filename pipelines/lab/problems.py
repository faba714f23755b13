"""Problems of which it is known what a network has to remember to solve them."""

from __future__ import annotations

import numpy as np

#: Symbols of `order`, `recall` and `next_symbol`.
SYMBOLS = 6


def one_hot(ids: np.ndarray, size: int) -> np.ndarray:
    return np.eye(size, dtype=np.float32)[ids]


def order(rng: np.random.Generator, rows: int, time: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Symbols 0 and 1 stand once each among others: 1 if 0 comes first.

    What stands in a row is the same for both classes; only the order tells.
    """
    ids = rng.integers(2, SYMBOLS, (rows, time))
    places = np.array([rng.choice(time, 2, replace=False) for _ in range(rows)])
    row = np.arange(rows)
    ids[row, places[:, 0]], ids[row, places[:, 1]] = 0, 1
    return one_hot(ids, SYMBOLS), (places[:, 0] < places[:, 1]).astype(np.int32)


def recall(rng: np.random.Generator, rows: int, time: int) -> tuple[np.ndarray, np.ndarray]:
    """The first symbol, one of two, is asked for after the last; between are others."""
    ids = rng.integers(2, SYMBOLS, (rows, time))
    ids[:, 0] = rng.integers(0, 2, rows)
    return one_hot(ids, SYMBOLS), ids[:, 0].astype(np.int32)


def adding(rng: np.random.Generator, rows: int, time: int) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the two marked of many numbers (Hochreiter & Schmidhuber 1997).

    Returns:
        <float>[rows, time, 2], the numbers in [0, 1] and the marks; <float>[rows, 1]. Always
        answering 1 has a mean squared error of 1/6.
    """
    numbers = rng.uniform(size=(rows, time)).astype(np.float32)
    marks = np.zeros_like(numbers)
    row, half = np.arange(rows), time // 2
    for start, end in ((0, half), (half, time)):
        marks[row, rng.integers(start, end, rows)] = 1
    return np.stack([numbers, marks], axis=-1), (numbers * marks).sum(axis=1, keepdims=True)


def next_symbol(rng: np.random.Generator, rows: int, time: int) -> tuple[np.ndarray, np.ndarray]:
    """At every step the symbol that will come next; at the last, the first."""
    ids = rng.integers(0, SYMBOLS, (rows, time))
    return one_hot(ids, SYMBOLS), np.roll(ids, -1, axis=1).astype(np.int32)
