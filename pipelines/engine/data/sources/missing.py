"""Tell missing values, in any of the forms that files have for them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipelines.engine.config.schema import as_text

#: What NumPy and pandas write for a missing value where text is expected.
_NOT_A_VALUE = frozenset({"nan", "NaN", "NAN", "NaT", "<NA>"})
#: Labels that stand for no label: a missing value, or a division by zero, turned into text.
_NOT_A_LABEL = _NOT_A_VALUE | {"None", "inf", "-inf", "Infinity", "-Infinity"}


def is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, NaT, ``pandas.NA``, or text that is empty or says so."""
    if isinstance(value, str):
        return not value or value in _NOT_A_VALUE or not value.strip()
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return type(value).__name__ in ("NAType", "NaTType")  # pandas' own, which need no import


def label_text(value: Any) -> str | None:
    """Return a label or a series' name as text: ``""`` if it is missing, None if it is no scalar.

    Infinities count as missing, and so do the words that Python writes for missing values.
    """
    if is_missing(value) or (isinstance(value, float | np.floating) and math.isinf(value)):
        return ""
    text = as_text(value)
    return "" if text in _NOT_A_LABEL else text
