"""Rows of a source, and a count of the unusable ones."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.numbers import PLAIN, NumberFormat


@dataclass(frozen=True)
class Row:
    """A row of a source.

    Attributes:
        fields: The values by column.
        place: Where the row was read, for messages: ``file:line``, or the file alone if a whole
            file is one document. In a folder, the file's path inside it.
        folder: The folder that relative file names among the fields start from.
        numbers: The separators of numbers in fields that are text.
    """

    fields: Mapping[str, Any]
    place: str
    folder: Path | None = field(default=None, compare=False)
    numbers: NumberFormat = field(default=PLAIN, compare=False)


@dataclass(frozen=True)
class UnusableRow:
    """A row that could not be parsed into fields, and the reason."""

    reason: str
    place: str


@dataclass(frozen=True)
class Note:
    """Something that the user should know about how a file was read."""

    text: str
    place: str


@dataclass
class RowReport:
    """Counts of a source's rows, and notes on how it was read.

    Attributes:
        rows: All rows, usable or not.
        reasons: UnusableRow rows by reason.
        examples: The first ``shown`` unusable rows, each with its place and reason.
        noted: How the files were read, where it is not obvious: the first place and the number of
            places of each note.
    """

    rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    shown: int = 5
    noted: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add(self, place: str, reason: str) -> None:
        self.reasons[reason] += 1
        if len(self.examples) < self.shown:
            self.examples.append(f"{place}: {reason}")

    def note(self, note: Note) -> None:
        first, count = self.noted.get(note.text, (note.place, 0))
        self.noted[note.text] = (first, count + 1)

    @property
    def notes(self) -> list[str]:
        """The notes, each with its first place."""
        return [
            f"{place}: {text}" + (f" (and {count - 1:,} more files)" if count > 1 else "")
            for text, (place, count) in self.noted.items()
        ]

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
                + "\n".join(f"  {line}" for line in [*self.examples, *self.notes, *self._advice()])
            )

    def _advice(self) -> list[str]:
        """Return what to try, by the reasons."""
        if any(reason.startswith("broken UTF-8") for reason in self.reasons):
            return ["if a table has another encoding, name it: data.format.encoding=cp1252"]
        return []

    def summary(self) -> str:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in self.reasons.most_common())
        return f"{self.bad:,} of {self.rows:,} rows cannot be used ({reasons})"


class UnreadableError(Exception):
    """Raised when a file cannot be read; has the reason and, if known, the byte."""

    def __init__(self, reason: str, byte: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = "" if byte is None else f", byte {byte:,}"


def require_columns(
    place: str, columns: Sequence[str], available: Sequence[str], advice: str = ""
) -> None:
    """Raise a `UserError` if a column is missing or occurs more than once.

    Args:
        place: Where the columns stand.
        columns: The columns that are needed.
        available: The columns that exist.
        advice: The likely cause of a missing column, to follow the message.
    """
    for column in columns:
        if column not in available:
            near = difflib.get_close_matches(column, available, n=1)
            hint = f" (did you mean {_printable(near[0])}?)" if near else ""
            shown = [_printable(name) for name in available[:_SHOWN_COLUMNS]]
            if len(available) > _SHOWN_COLUMNS:
                shown.append(f"… ({len(available):,} columns)")
            raise UserError(
                f"{place}: no column {column!r}{hint}; there are: {', '.join(shown)}{advice}"
            )
        if available.count(column) > 1:
            raise UserError(
                f"{place}: the column {column!r} occurs {available.count(column)} times"
            )


#: A file that is no table may have names of any number and length, and control characters.
_SHOWN_COLUMNS, _SHOWN_CHARACTERS = 50, 80


def _printable(name: str) -> str:
    shown = "".join(c if c.isprintable() else "\ufffd" for c in name[:_SHOWN_CHARACTERS])
    return shown + "…" * (len(name) > _SHOWN_CHARACTERS)
