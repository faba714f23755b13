"""Rows of a source, and a count of the unusable ones."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.engine.core.errors import UserError


@dataclass(frozen=True)
class Row:
    """A row of a source.

    Attributes:
        fields: The values by column.
        place: Where the row was read, for messages: ``file:line``, or the file alone if a whole
            file is one document. In a folder, the file's path inside it.
        folder: The folder that relative file names among the fields start from.
    """

    fields: Mapping[str, Any]
    place: str
    folder: Path | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Unusable:
    """A row that could not be parsed into fields, and the reason."""

    reason: str
    place: str


@dataclass
class Problems:
    """Counts of the unusable rows of a source.

    Attributes:
        rows: All rows, usable or not.
        reasons: Unusable rows by reason.
        examples: The first ``shown`` unusable rows, each with its place and reason.
    """

    rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    shown: int = 5

    def add(self, place: str, reason: str) -> None:
        self.reasons[reason] += 1
        if len(self.examples) < self.shown:
            self.examples.append(f"{place}: {reason}")

    @property
    def bad(self) -> int:
        return sum(self.reasons.values())

    def check(self, source: str, allowed: float) -> None:
        """Raise if too many rows are unusable.

        Raises:
            UserError: Their share of all rows is greater than ``allowed``.
        """
        if self.bad > allowed * self.rows:
            raise UserError(
                f"{source}: {self.summary()}; data.max_bad_rows allows {allowed:.1%}\n"
                + "\n".join(f"  {line}" for line in self.examples)
            )

    def summary(self) -> str:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in self.reasons.most_common())
        return f"{self.bad:,} of {self.rows:,} rows cannot be used ({reasons})"


class UnreadableError(Exception):
    """Raised when a file cannot be read; has the reason and, if known, the byte."""

    def __init__(self, reason: str, byte: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = "" if byte is None else f", byte {byte:,}"


def require_columns(place: str, columns: Sequence[str], available: Sequence[str]) -> None:
    """Raise a `UserError` if a column is missing or occurs more than once."""
    for column in columns:
        if column not in available:
            near = difflib.get_close_matches(column, available, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(
                f"{place}: no column {column!r}{hint}; there are: {', '.join(available)}"
            )
        if available.count(column) > 1:
            raise UserError(
                f"{place}: the column {column!r} occurs {available.count(column)} times"
            )
