"""Line-aligned text files, as most parallel corpora are published: ``train.{en,de}``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.locate import locate
from pipelines.engine.data.sources.opening import read_lines
from pipelines.engine.data.sources.rows import Row, require_columns


def read_parallel(source: str, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of line-aligned files: ``train.{en,de}`` has the columns en and de."""
    written = re.fullmatch(r"([^{}]*)\{([^{}]*)\}([^{}]*)", source)
    before, between, after = written.groups() if written else ("", "", "")
    names = [name.strip() for name in between.split(",")]
    if len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise UserError(
            f"data: {source}: files that agree line by line are written as train.{{en,de}}: two or "
            "more different names in one pair of braces"
        )
    require_columns(source, columns, names)
    paths = [locate(f"{before}{name}{after}") for name in names]
    for line, texts in enumerate(parallel_lines(paths), 1):
        yield Row(dict(zip(names, texts, strict=True)), f"{paths[0].name}:{line}")


def parallel_lines(paths: Sequence[Path]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of several files side by side, stripped of white space.

    Raises:
        UserError: A file cannot be read, or the files have different numbers of lines.
    """
    readers = [read_lines(path) for path in paths]
    for line, texts in enumerate(zip_longest(*readers), 1):
        if None in texts:
            counts = (
                line - 1 if text is None else line + sum(1 for _ in reader)
                for text, reader in zip(texts, readers, strict=True)
            )
            each = ", ".join(f"{p} has {n:,}" for p, n in zip(paths, counts, strict=True))
            raise UserError(f"data: files that agree line by line have equally many: {each}")
        yield texts
