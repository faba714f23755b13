"""Rows as a source yields them, and a count of those that cannot be used."""

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
    """One record as it was found: its fields, and where (``file:line``) for messages.

    A document that is a whole file has the file as its place. Inside a folder, a file is named
    by its path from there.
    """

    fields: Mapping[str, Any]
    place: str
    #: Where names of files among the fields start from.
    folder: Path | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Unusable:
    """A row that could not even be read as fields, and why."""

    reason: str
    place: str


@dataclass
class Problems:
    """Rows that cannot be used: how many of how many, why, and the first few by place."""

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
        """Raise if more than the share ``allowed`` of all rows cannot be used."""
        if self.bad > allowed * self.rows:
            raise UserError(
                f"{source}: {self.summary()}; data.max_bad_rows allows {allowed:.1%}\n"
                + "\n".join(f"  {line}" for line in self.examples)
            )

    def summary(self) -> str:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in self.reasons.most_common())
        return f"{self.bad:,} of {self.rows:,} rows cannot be used ({reasons})"


class UnreadableError(Exception):
    """Why a file cannot be read, and at which byte."""

    def __init__(self, reason: str, byte: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = "" if byte is None else f", byte {byte:,}"


def require_columns(place: str, columns: Sequence[str], there: Sequence[str]) -> None:
    for column in columns:
        if column not in there:
            near = difflib.get_close_matches(column, there, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"{place}: no column {column!r}{hint}; there are: {', '.join(there)}")
        if there.count(column) > 1:
            raise UserError(
                f"{place}: the column {column!r} stands here {there.count(column)} times"
            )
