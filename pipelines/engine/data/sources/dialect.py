"""Detect how a delimited file is written, from its beginning."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.engine.config.schema import FormatConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.locate import file_extension
from pipelines.engine.data.sources.numbers import PLAIN, NumberFormat, sniff_format
from pipelines.engine.data.sources.opening import detect_encoding, read_head
from pipelines.engine.data.sources.rows import UnreadableError

_HEAD_BYTES = 65_536
#: The delimiters to try, in this order.
_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written.

    Attributes:
        encoding: The name of a Python codec.
        delimiter: The character between fields.
        quote: The character around fields, None if there is none.
        tolerant: Whether quotes that cannot be quotes are text rather than an error.
        header: Whether the first line names the columns.
        numbers: The separators of numbers.
        sample: Complete records from the beginning of the file.
        detected: What was detected and is not the default, for the user.
        advice: The likely cause if a column is missing.
    """

    encoding: str
    delimiter: str
    quote: str | None
    tolerant: bool
    header: bool
    numbers: NumberFormat = PLAIN
    sample: list[list[str]] = field(default_factory=list)
    detected: str = ""
    advice: str = ""


def detect(path: Path, columns: Sequence[str], settings: FormatConfig) -> Dialect:
    """Return the dialect of a file: as the config says, and detected where it says ``auto``.

    Raises:
        UserError: The settings contradict the columns.
        UnreadableError: The file is not text, or cannot be read.
    """
    csv.field_size_limit(2**31 - 1)
    numbered = bool(columns) and all(c.isascii() and c.isdecimal() for c in columns)
    header = not numbered if settings.header == "auto" else settings.header
    if not header and not numbered and columns:
        name = next(c for c in columns if not (c.isascii() and c.isdecimal()))
        raise UserError(
            f"{path}: data.format.header=false numbers the columns from 1, but {name!r} is not a "
            "number; name each column by its number"
        )
    raw = read_head(path, _HEAD_BYTES)
    encoding, detected = settings.encoding, []
    if encoding == "auto":
        encoding = detect_encoding(raw)
        if encoding not in ("utf-8", "utf-8-sig"):
            detected.append(f"in {encoding.upper()}")
        elif (reason := _not_text(raw)) is not None:
            raise UnreadableError(reason)
    text = raw.decode(encoding, errors="replace").removeprefix("\ufeff")
    is_tsv = file_extension(path) == ".tsv"
    quote: str | None = '"' if settings.quote == "auto" else settings.quote
    if settings.quote == "auto" and is_tsv and not header:
        quote = None
    default = "\t" if is_tsv else ","
    delimiter, advice = settings.delimiter, ""
    if delimiter == "auto":
        delimiter = default
        widths = {d: _first_record(text, d, quote) for d in (default, *_DELIMITERS)}
        # The default stays if it works: a file must not be read otherwise by a newer version.
        if not _has(widths[default], columns, header):
            delimiter = next(
                (d for d, first in widths.items() if _has(first, columns, header)), default
            )
            widest = max(widths, key=lambda d: len(widths[d]))
            if delimiter != default:
                detected.append(f"separated by {_shown(delimiter)}")
            elif len(widths[widest]) > len(widths[default]):
                shown = _shown(widest)
                advice = f"; looks separated by {shown}: data.format.delimiter={shown}"
    records = _records(text, delimiter, quote, complete=len(raw) < _HEAD_BYTES)
    numbers = _numbers(records, columns, header, settings)
    if numbers != PLAIN and (settings.decimal, settings.thousands) == ("auto", "auto"):
        detected.append(f"with numbers such as 1{numbers.thousands}234{numbers.decimal}5")
    return Dialect(
        encoding=encoding,
        delimiter=delimiter,
        quote=quote,
        tolerant=settings.quote == "auto",
        header=header,
        numbers=numbers,
        sample=records[1:] if header else records,
        detected=", ".join(detected),
        advice=advice,
    )


def _not_text(raw: bytes) -> str | None:
    """Return why bytes without a byte order mark are no table in UTF-8, None if they may be one."""
    if raw.startswith(b"PK\x03\x04"):
        return "not text but a zip archive, as .xlsx files are; export the table as CSV"
    if raw.startswith(b"\x1f\x8b"):
        return "compressed with gzip; add .gz to its name"
    if 4 * raw.count(0) <= len(raw):  # a single NUL is a defect of one text
        return None
    even, odd = raw[::2].count(0), raw[1::2].count(0)
    if even and odd:
        return "not text: it has NUL bytes; is it in UTF-32? data.format.encoding=utf-32-le"
    guess = "utf-16-le" if odd else "utf-16-be"
    return f"not UTF-8: looks like UTF-16 without its mark: data.format.encoding={guess}"


def _shown(delimiter: str) -> str:
    return "tab" if delimiter == "\t" else f"'{delimiter}'"


def _reader(text: str, delimiter: str, quote: str | None) -> Iterator[list[str]]:
    return csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quotechar=quote or '"',
        quoting=csv.QUOTE_NONE if quote is None else csv.QUOTE_MINIMAL,
    )


def _first_record(text: str, delimiter: str, quote: str | None) -> list[str]:
    return next(_reader(text, delimiter, quote), [])


def _has(first: Sequence[str], columns: Sequence[str], header: bool) -> bool:
    if header:
        return set(columns) <= set(first)
    return len(first) >= max(map(int, columns), default=1)


def _records(text: str, delimiter: str, quote: str | None, complete: bool) -> list[list[str]]:
    """Return the records of the beginning of a file; the last one may be cut off."""
    records = list(_reader(text, delimiter, quote))
    return records if complete else records[:-1]


def _numbers(
    records: Sequence[Sequence[str]],
    columns: Sequence[str],
    header: bool,
    settings: FormatConfig,
) -> NumberFormat:
    decimal, thousands = settings.decimal, settings.thousands
    if decimal == "auto" and thousands in ("auto", None):
        names = [*records[0]] if header and records else []
        indices = (
            [names.index(c) for c in columns if c in names]
            if header
            else [int(c) - 1 for c in columns]
        )
        found = {
            sniff_format([r[i] for r in records[int(header) :] if 0 <= i < len(r) and r[i].strip()])
            for i in indices
        } - {PLAIN}
        sniffed = found.pop() if len(found) == 1 else PLAIN
        return NumberFormat(sniffed.decimal) if thousands is None else sniffed
    if decimal == "auto":
        decimal = "," if thousands == "." else "."
    if thousands == "auto":
        thousands = "." if decimal == "," else ","
    return NumberFormat(decimal, thousands)
