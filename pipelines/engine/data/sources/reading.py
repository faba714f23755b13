"""Read the rows of any source: files, TensorFlow Datasets, dictionaries or emoji."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.engine.data.sources import ding
from pipelines.engine.data.sources.files import read_files, read_parallel
from pipelines.engine.data.sources.rows import Problems, Row, Unusable
from pipelines.engine.data.sources.tfds import read_tfds


def read(source: str, columns: Sequence[str], problems: Problems) -> Iterator[Row]:
    """The rows of ``source`` that have every one of ``columns``.

    A column that no row can have (it is missing from the file or from the data set) is the
    user's mistake; a single row without it is counted in ``problems``.
    """
    rows: Iterator[Row | Unusable]
    if source.startswith("tfds:"):
        rows = read_tfds(source, columns)
    elif source.startswith("ding:"):
        rows = ding.read(source, columns)
    elif source.startswith("emoji:"):
        # Reads fonts and pictures: not needed for anything else.
        from pipelines.engine.data.sources import emoji

        rows = emoji.read_source(source, columns)
    elif "{" in source or "}" in source:
        rows = read_parallel(source, columns)
    else:
        rows = read_files(source, columns)
    for row in rows:
        problems.rows += 1
        if isinstance(row, Unusable):
            problems.add(row.place, row.reason)
        elif broken := next((c for c in columns if _has_broken_utf8(row.fields[c])), None):
            problems.add(row.place, f"broken UTF-8 in column {broken!r}")
        else:
            yield row


def _has_broken_utf8(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_broken_utf8, value))
    return (
        isinstance(value, str)
        and not value.isascii()
        and any("\ud800" <= c <= "\udfff" for c in value)
    )
