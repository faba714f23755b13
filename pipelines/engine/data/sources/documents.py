"""Text documents (``.txt``, ``.md``) and tunes in ABC notation (``.abc``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.engine.data.sources.opening import read_text
from pipelines.engine.data.sources.rows import Row, UnreadableError, require_columns


def read_document(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row]:
    """Yield a whole file as one row with the column text."""
    require_columns(str(path), columns, ["text"])
    yield Row({"text": read_text(path)}, name)


def read_tunes(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the tunes of a file in ABC notation, each from its ``X:`` line on, without comments.

    Files that are not UTF-8 are read as Latin-1, which was allowed before ABC 2.1 (2011).
    """
    require_columns(str(path), columns, ["text"])
    lines = read_text(path, fallback="latin-1").split("\n")
    starts = [i for i, line in enumerate(lines) if line.startswith("X:")]
    if not starts:
        raise UnreadableError("no tune: no line starts with X:")
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        tune = [line for line in lines[start:end] if not line.startswith("%")]
        while not tune[-1].strip():
            tune.pop()
        yield Row({"text": "\n".join(tune) + "\n"}, f"{name}:{start + 1}")
