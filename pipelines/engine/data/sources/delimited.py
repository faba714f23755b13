"""Tables with delimiters (``.csv``, ``.tsv``)."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.locate import file_extension
from pipelines.engine.data.sources.opening import open_decompressed
from pipelines.engine.data.sources.rows import Row, Unusable, require_columns


def read_delimited(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row | Unusable]:
    """Yield the rows of a CSV or TSV file.

    If all ``columns`` are numbers, the table has no header, and a TSV has no quoting.
    """
    csv.field_size_limit(sys.maxsize)
    is_tsv = file_extension(path) == ".tsv"
    headerless = bool(columns) and all(c.isascii() and c.isdecimal() for c in columns)
    with open_decompressed(path) as raw:
        # Bytes that are not UTF-8 become lone surrogates, which `reading.read` reports row by row.
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(
            file,
            delimiter="\t" if is_tsv else ",",
            quoting=csv.QUOTE_NONE if is_tsv and headerless else csv.QUOTE_MINIMAL,
            strict=True,
        )
        try:
            first = next(reader, None)
            if first is None:
                raise UserError(f"{path}: the file is empty")
            header = [str(i) for i, _ in enumerate(first, 1)] if headerless else first
            require_columns(f"{path}:1", columns, header)
            line = 1 if headerless else reader.line_num + 1
            for values in chain([first] if headerless else [], reader):
                # A record may span several lines; its place is the first.
                place = f"{name}:{line}"
                line = reader.line_num + 1
                record = dict(zip(header, values, strict=False))
                if len(values) > len(header) and not headerless:
                    yield Unusable("more fields than the header has", place)
                elif values and not all(c in record for c in columns):
                    needed = (
                        f"than {max(map(int, columns))}" if headerless else "than the header has"
                    )
                    yield Unusable(f"fewer fields {needed}", place)
                elif values:  # and not a blank line
                    yield Row(record, place, path.parent)
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: not a readable table: {error}") from None
