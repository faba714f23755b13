"""How names and numbers of the code are written for readers."""

from __future__ import annotations

import math

#: Parts of names that are not written in lower case.
_SPELLINGS = {
    name.lower(): name
    for name in (
        "AUC", "BLEU", "chrF", "chrF2", "CRPS", "EWMA", "F1", "GARCH", "ID", "MAE", "MASE", "MSE",
        "PIT", "RMSE", "ROC", "t",
    )
}  # fmt: skip


def readable(name: str) -> str:
    """Return a name of the code as words: ``macro_f1`` as ``macro F1``."""
    name = name.replace("cider_d", "CIDEr-D").replace("rouge_l", "ROUGE-L")
    return " ".join(_SPELLINGS.get(word, word) for word in name.split("_") if word)


def heading(name: str) -> str:
    """Return a name of the code as a heading: ``worst_mistakes`` as ``Worst mistakes``."""
    text = readable(name)
    first = text.partition(" ")[0]
    return text if first in _SPELLINGS.values() else text[:1].upper() + text[1:]


def number(value: float) -> str:
    """Return a number with four significant digits, or with all before the decimal point."""
    if isinstance(value, int) or (abs(value) >= 999.5 and math.isfinite(value)):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number and a noun, in the plural unless the number is 1: ``1,200 records``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(words: list[str], most: int = 5) -> str:
    """Return words with commas between them; of many, the first ones and how many follow."""
    rest = len(words) - most
    return ", ".join(words[:most]) + (f" and {rest:,} more" if rest > 0 else "")
