"""Tables with delimiters (``.csv``, ``.tsv``)."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pipelines.engine.config.schema import FormatConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources import dialect as dialects
from pipelines.engine.data.sources.dialect import Dialect
from pipelines.engine.data.sources.opening import open_text
from pipelines.engine.data.sources.quoting import TolerantReader
from pipelines.engine.data.sources.rows import Note, Row, UnusableRow, require_columns

Records = Iterable[tuple[int, list[str]]]


def read_delimited(
    path: Path, name: str, columns: Sequence[str], settings: FormatConfig
) -> Iterator[Row | UnusableRow | Note]:
    """Yield the rows of a CSV or TSV file, and notes on how it was read.

    If all ``columns`` are numbers, the table has no header, and a TSV has no quoting.
    """
    dialect = dialects.detect(path, columns, settings)
    if dialect.detected:
        yield Note(f"read as a table {dialect.detected}", name)
    with open_records(path, dialect) as table:
        require_columns(f"{path}:1", columns, table.header, dialect.advice)
        yield from _rows(table.records, path, name, columns, table.header, dialect)
        yield from table.notes(name)


@dataclass(frozen=True)
class OpenTable:
    """A delimited file that is being read.

    Attributes:
        header: The names of the columns, which are their numbers if the file has no header.
        records: The fields of each record with the number of its first line; a blank line has none.
    """

    header: list[str]
    records: Records
    tolerant: TolerantReader | None

    def notes(self, name: str) -> Iterator[Note]:
        """Yield notes on the quotation marks of the records read so far."""
        if self.tolerant is not None:
            yield from _notes_on_quotes(self.tolerant, name)


@contextlib.contextmanager
def open_records(path: Path, dialect: Dialect) -> Iterator[OpenTable]:
    """Open a delimited file.

    Raises:
        UserError: It is empty.
    """
    with open_text(path, dialect.encoding, newline="") as lines:
        tolerant = None
        if dialect.quote is not None and dialect.tolerant:
            tolerant = TolerantReader(lines, dialect.delimiter, dialect.quote, dialect.sample)
        records = iter(tolerant if tolerant is not None else _strict(path, lines, dialect))
        line, first = next(records, (0, None))
        if first is None:
            raise UserError(f"{path}: the file is empty")
        # A codec such as utf-16-le leaves the byte order mark where it is.
        first[:1] = [value.removeprefix("\ufeff") for value in first[:1]]
        if dialect.header:
            yield OpenTable(first, records, tolerant)
        else:
            header = [str(i) for i, _ in enumerate(first, 1)]
            yield OpenTable(header, chain([(line, first)], records), tolerant)


def _strict(path: Path, lines: Iterable[str], dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of a file whose quotes must be right, with their first lines."""
    reader = csv.reader(
        lines,
        delimiter=dialect.delimiter,
        quotechar=dialect.quote or '"',
        quoting=csv.QUOTE_NONE if dialect.quote is None else csv.QUOTE_MINIMAL,
        strict=True,
    )
    line = 1
    try:
        for values in reader:
            yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}:{line}: not a readable table: {error}; if quotation marks are ordinary text: "
            "data.format.quote=null"
        ) from None


def _rows(
    records: Records,
    path: Path,
    name: str,
    columns: Sequence[str],
    header: Sequence[str],
    dialect: Dialect,
) -> Iterator[Row | UnusableRow | Note]:
    width = max(map(int, columns), default=1) if not dialect.header else "the header has"
    wider: list[int] = []
    for line, values in records:
        if not values:  # a blank line
            continue
        place = f"{name}:{line}"
        if (reason := defect(values, header, dialect)) is not None:
            yield UnusableRow(reason, place)
            continue
        record = dict(zip(header, values, strict=False))
        if len(values) > len(header):
            wider.append(line)
        if not all(c in record for c in columns):
            yield UnusableRow(f"fewer fields than {width}", place)
        else:
            yield Row(record, place, path.parent, dialect.numbers)
    if wider:
        yield Note(
            f"more fields than the first row has (rows: {len(wider):,})", f"{name}:{wider[0]}"
        )


def defect(values: Sequence[str], header: Sequence[str], dialect: Dialect) -> str | None:
    """Return why no field of a record can be used, None if they can."""
    if values[0].startswith("\ufeff") and _repeats(values, header):
        return "another header"
    if dialect.header and len(values) > len(header):
        return "more fields than the header has"
    return None


def _repeats(values: Sequence[str], header: Sequence[str]) -> bool:
    """Return whether a row is the header of a file that was appended with its byte order mark."""
    return [values[0].removeprefix("\ufeff"), *values[1:]] == list(header)


def _notes_on_quotes(reader: TolerantReader, name: str) -> Iterator[Note]:
    if reader.stray:
        yield Note(
            "quotation marks that enclose no field were read as text "
            f"(rows: {len(reader.stray):,}; data.format.quote=null reads all marks as text)",
            f"{name}:{reader.stray[0]}",
        )
    if reader.suspects:
        first, last = reader.suspects[0]
        yield Note(
            f"a quoted field goes on to line {last:,}, and each of its lines looks like a row"
            + (f"; so do {len(reader.suspects) - 1:,} others" if reader.suspects[1:] else "")
            + "; if they are rows: data.format.quote=null",
            f"{name}:{first}",
        )
