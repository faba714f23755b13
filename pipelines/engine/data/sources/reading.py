"""Read the rows of any source, with every unusable row counted.

A config names a source in one of these ways:

- ``tfds:BUILDER@SPLIT``: a TensorFlow Datasets builder, downloaded when online, or read from the
  folder of original downloads named by ``UNFOLD_DOWNLOADS``;
- ``package:DIST/PATH``: a file or a folder inside an installed Python package;
- ``ding:de-en``: pairs of sentences and phrases from a dictionary;
- ``emoji:en@train``: pictures of emoji with their names in a language;
- ``train.{en,de}``: text files of any extension, aligned line by line: a row has a column for each
  of the names;
- the path of a file or a folder, or a pattern, relative to the folder named by ``UNFOLD_DATA`` or
  else to the working directory (see `files`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pipelines.engine.config.schema import FormatConfig
from pipelines.engine.data.sources import ding
from pipelines.engine.data.sources.files import read_files
from pipelines.engine.data.sources.missing import is_missing
from pipelines.engine.data.sources.parallel import read_parallel
from pipelines.engine.data.sources.rows import Note, Row, RowReport, UnusableRow
from pipelines.engine.data.sources.tfds import read_tfds


def read(
    source: str,
    columns: Sequence[str],
    report: RowReport,
    settings: FormatConfig = FormatConfig(),  # noqa: B008 (it is immutable)
) -> Iterator[Row]:
    """Yield the rows of ``source`` that have all ``columns``.

    Missing values become None, except texts: an empty field stays an empty text.

    Args:
        source: The source, as a config names it.
        columns: The columns that every row needs.
        report: Counts all rows, and the unusable ones by reason; collects notes.
        settings: How delimited files are written.

    Raises:
        UserError: The source cannot be read, or has no such column. A single row without it is
            counted in ``report``.
    """
    rows: Iterator[Row | UnusableRow | Note]
    if source.startswith("tfds:"):
        rows = read_tfds(source, columns)
    elif source.startswith("ding:"):
        rows = ding.read(source, columns)
    elif source.startswith("emoji:"):
        # Imported here because it needs fontTools, which no other source does.
        from pipelines.engine.data.sources import emoji

        rows = emoji.read_source(source, columns)
    elif "{" in source or "}" in source:
        rows = read_parallel(source, columns)
    else:
        rows = read_files(source, columns, settings)
    for row in rows:
        if isinstance(row, Note):
            report.note(row)
            continue
        report.rows += 1
        if isinstance(row, UnusableRow):
            report.add(row.place, row.reason)
        elif broken := next((c for c in columns if has_broken_utf8(row.fields[c])), None):
            report.add(row.place, f"broken UTF-8 in column {broken!r}")
        else:
            yield _without_missing(row, columns)


def _without_missing(row: Row, columns: Sequence[str]) -> Row:
    missing = {
        c: None
        for c in columns
        if not isinstance(row.fields[c], str | None) and is_missing(row.fields[c])
    }
    return replace(row, fields={**row.fields, **missing}) if missing else row


def has_broken_utf8(value: Any) -> bool:
    """Return whether a text, or one of a list, has bytes that are not UTF-8."""
    if isinstance(value, list):
        return any(map(has_broken_utf8, value))
    return (
        isinstance(value, str)
        and not value.isascii()
        and any("\ud800" <= c <= "\udfff" for c in value)
    )
