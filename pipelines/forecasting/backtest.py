"""Observed values that forecasts are scored against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Truth:
    """What came, at every origin; all arrays ``[windows]`` or ``[windows, steps]``.

    Attributes:
        changes: of the level, above the last value.
        last: the last value, raw.
        times: microseconds since 1970 of the first step that is forecast.
        series: which of ``names`` it is.
        scale: mean absolute seasonal change in training, raw, for MASE.
        deviation: of the level in training, for errors in standard units.
        logs: whether a level is a logarithm.
    """

    changes: np.ndarray
    last: np.ndarray
    times: np.ndarray
    series: np.ndarray
    names: list[str]
    scale: np.ndarray
    deviation: np.ndarray
    logs: bool

    def raw(self, changes: np.ndarray) -> np.ndarray:
        """Changes of the level as raw numbers."""
        last = self.last.reshape(-1, *[1] * (changes.ndim - 1))
        return last * np.exp(changes) if self.logs else last + changes
