"""Read numbers as people and spreadsheets write them: ``1.234,56``, ``$1,200``, ``12 %``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipelines.engine.data.sources.missing import is_missing

_CURRENCY = "[$€£¥₹]"


@dataclass(frozen=True)
class NumberFormat:
    """The separators of numbers; ``thousands`` is None if digits are not grouped."""

    decimal: str = "."
    thousands: str | None = None


PLAIN = NumberFormat()


def parse_number(value: Any, written: NumberFormat = PLAIN) -> float | None:
    """Return a cell's number, NaN if it is missing, None if it is not a finite number.

    A currency sign is ignored, ``12 %`` is 12, and ``(3.5)`` is −3.5.
    """
    if isinstance(value, bool):
        return None
    if is_missing(value):
        return math.nan
    if not isinstance(value, str):
        try:
            number = float(value)
        except (TypeError, ValueError):
            return None
    else:
        text = value.strip()
        if text in ("NA", "null", "N/A", "#N/A"):
            return math.nan
        try:
            # Without separators to remove, accept all that Python does.
            number = float(text) if written == PLAIN else _parse(text, written)
        except ValueError:
            number = _parse(text, written)
    return None if math.isinf(number) or math.isnan(number) else number


def number_hint(value: Any) -> str:
    """Return the setting that would read a value as a number, to follow a message, or ``""``."""
    if isinstance(value, str):
        text = value.strip()
        if not math.isnan(_parse(text, NumberFormat(".", ","))):
            return " (data.format.thousands=',' reads 1,200 as 1200)"
        if not math.isnan(_parse(text, NumberFormat(",", "."))):
            return " (data.format.decimal=',' reads 1.234,56 as 1234.56)"
        for mark in ("'", " "):
            if not math.isnan(_parse(text, NumberFormat(".", mark))):
                return f' (data.format.thousands="{mark}" reads 1{mark}200 as 1200)'
    return ""


def sniff_format(values: Iterable[str]) -> NumberFormat:
    """Return the separators that a column's values agree on; `PLAIN` if none or several do."""
    found = set()
    for value in values:
        text = _bare(value.strip())[0]
        if re.fullmatch(r"\d{1,3}(\.\d{3})+,\d+|\d{1,3}(\.\d{3}){2,}|\d+,(\d{1,2}|\d{4,})", text):
            found.add(NumberFormat(",", "."))
        elif re.fullmatch(r"\d{1,3}(,\d{3})+\.\d+|\d{1,3}(,\d{3}){2,}", text):
            found.add(NumberFormat(".", ","))
        elif re.fullmatch(r"\d*\.(\d{1,2}|\d{4,})(e[+-]?\d+)?", text):
            found.add(PLAIN)
        elif not re.fullmatch(r"[\d.,]*", text):
            return PLAIN  # not a column of numbers
    # Ungrouped numbers may stand beside grouped ones.
    if found == {PLAIN, NumberFormat(".", ",")}:
        return NumberFormat(".", ",")
    return found.pop() if len(found) == 1 else PLAIN


def _bare(text: str) -> tuple[str, int]:
    """Return a number without sign, currency and percent, and its sign."""
    sign = 1
    if text.startswith("(") and text.endswith(")"):
        text, sign = text[1:-1].strip(), -1
    text = text.removesuffix("%").strip()
    written = re.fullmatch(f"([-+−]?)\\s*{_CURRENCY}?\\s*([-+−]?)(.*?)\\s*{_CURRENCY}?", text)
    if written is None:
        return text, sign
    first, second, digits = written.groups()
    if first and second:
        return text, sign
    return digits, sign * (-1 if (first or second) in ("-", "−") else 1)


def _parse(text: str, written: NumberFormat) -> float:
    """Return a number as written with separators, NaN if it is not one."""
    digits, sign = _bare(text)
    if not _pattern(written).fullmatch(digits):
        return math.nan
    if written.thousands == " ":
        digits = re.sub(r"\s", "", digits)
    elif written.thousands:
        digits = digits.replace(written.thousands, "")
    return sign * float(digits.replace(written.decimal, "."))


@lru_cache
def _pattern(written: NumberFormat) -> re.Pattern[str]:
    decimal = re.escape(written.decimal)
    whole = "[0-9]+"
    if written.thousands:
        mark = r"\s" if written.thousands == " " else re.escape(written.thousands)
        whole = rf"(?:[0-9]{{1,3}}(?:{mark}[0-9]{{3}})+|[0-9]+)"
    exponent = "(?:[eE][-+]?[0-9]+)?"
    return re.compile(f"(?:{whole}(?:{decimal}[0-9]*)?|{decimal}[0-9]+){exponent}")
