"""Split lines into records, where quotation marks may be quotes or ordinary text.

A quotation mark at the start of a field opens a quoted field. If nothing closes it, or only one in
a later row does, the field would swallow the rows between. Such a mark is read as text instead.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

#: So many lines that look like rows are rows, even if no column shows it.
_MANY_LINES = 8
#: In fewer lines, the values of a column may agree by chance.
_FEW_LINES = 4


class TolerantReader:
    """Yields the records of a delimited file with the number of their first line, from 1.

    Attributes:
        stray: Numbers of the lines with quotation marks that were read as text.
        suspects: First and last lines of records that might be several rows.

    Args:
        lines: The lines, with their ends.
        delimiter: The character between fields.
        quote: The quotation mark.
        sample: Records from the beginning of the file.
    """

    def __init__(
        self, lines: Iterable[str], delimiter: str, quote: str, sample: Sequence[Sequence[str]]
    ) -> None:
        self.stray: list[int] = []
        self.suspects: list[tuple[int, int]] = []
        self._lines = iter(lines)
        self._again: deque[str] = deque()
        self._delimiter, self._quote = delimiter, quote
        self._width = 0
        self._sample = sample
        self._categories: list[frozenset[str]] = []
        mark, end = re.escape(quote), re.escape(delimiter)
        #: A quoted field that ends where a field should, or else anything up to the delimiter.
        self._field = re.compile(
            rf"{mark}((?:[^{mark}]|{mark}{mark})*){mark}(?={end}|\Z)|([^{end}]*)(?={end}|\Z)"
        )

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        number = 1
        for line in iter(self._next, None):
            if self._quote not in line:
                bare = line.rstrip("\r\n")
                values, taken = bare.split(self._delimiter) if bare else [], 1
            else:
                values, taken = self._quoted(line, number)
            if values and not self._width:
                self._width = len(values)
                self._categories = _categories(self._sample, self._width, self._quote)
            yield number, values
            number += taken

    def _next(self) -> str | None:
        return self._again.popleft() if self._again else next(self._lines, None)

    def _quoted(self, first: str, number: int) -> tuple[list[str], int]:
        """Return the record that starts with the line ``first``, and how many lines it has."""
        taken: list[str] = []

        def feed() -> Iterator[str]:
            line: str | None = first
            while line is not None:
                taken.append(line)
                # Looking at powers of two only keeps this linear in the number of lines.
                count = len(taken)
                if count >= 32 and not count & (count - 1) and self._are_rows(taken):
                    return
                yield line
                line = self._next()

        try:
            values: list[str] | None = next(self._strict(feed()))
        except (csv.Error, StopIteration):
            values = None
        if values is not None and not (len(taken) > 1 and self._are_rows(taken)):
            if len(taken) > 1 and self._have_width(taken):
                self.suspects.append((number, number + len(taken) - 1))
            return values, len(taken)
        self._again.extendleft(reversed(taken[1:]))
        self.stray.append(number)
        return self._literal(first.rstrip("\r\n")), 1

    def _strict(self, lines: Iterable[str]) -> Iterator[list[str]]:
        return csv.reader(lines, delimiter=self._delimiter, quotechar=self._quote, strict=True)

    def _literal(self, line: str) -> list[str]:
        """Split one line, where only marks around whole fields are quotes."""
        values, start = [], 0
        while start <= len(line):
            match = self._field.match(line, start)
            assert match is not None, "the second alternative matches anywhere"
            quoted, plain = match.groups()
            values.append(plain if quoted is None else quoted.replace(2 * self._quote, self._quote))
            start = match.end() + 1
        if len(values) != self._width:
            # ``"Well, well" he said`` has a delimiter between its marks.
            lax = csv.reader([line], delimiter=self._delimiter, quotechar=self._quote)
            record = next(lax, [])
            if len(record) == self._width:
                return record
        return values

    def _split(self, lines: Sequence[str]) -> list[list[str]]:
        return [line.rstrip("\r\n").split(self._delimiter) for line in lines]

    def _have_width(self, lines: Sequence[str]) -> bool:
        return self._width > 1 and all(len(row) == self._width for row in self._split(lines))

    def _are_rows(self, lines: Sequence[str]) -> bool:
        """Return whether the lines of one quoted record look like as many rows."""
        if self._width < 2:
            return False
        rows = self._split(lines)
        whole = [row for row in rows if len(row) == self._width]
        # In a long run, a few rows may be broken for other reasons.
        if len(whole) < len(rows) * (0.9 if len(rows) >= _MANY_LINES else 1):
            return False
        if len(rows) >= _MANY_LINES and sum(line.count(self._quote) for line in lines) <= 2:
            return True
        return any(
            self._agree([row[column] for row in whole], self._categories[column])
            for column in range(self._width)
        )

    def _agree(self, values: Sequence[str], categories: frozenset[str]) -> bool:
        """Return whether values look like those of one column, such as labels."""
        distinct = set(values)
        if any(not value or self._quote in value for value in distinct):
            return False
        if distinct <= categories:
            return True
        return len(values) >= _FEW_LINES and len(distinct) <= max(1, len(values) // 4)


def _categories(sample: Sequence[Sequence[str]], width: int, quote: str) -> list[frozenset[str]]:
    """Return the values of each column that has few of them, as labels do; else no values."""
    rows = [row for row in sample if len(row) == width and not any("\n" in v for v in row)]
    found = []
    for column in range(width):
        values = frozenset(row[column] for row in rows)
        few = len(rows) >= _MANY_LINES and len(values) <= len(rows) / 4
        found.append(values if few else frozenset())
    return found
