"""Read the beginning of the sources before anything slow starts.

A wrong path or column name is then reported in a second; importing TensorFlow takes several.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.engine.config.schema import DataConfig, FormatConfig
from pipelines.engine.core.commands import settings
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.locate import file_extension, is_pattern, locate
from pipelines.engine.data.sources.reading import read
from pipelines.engine.data.sources.rows import RowReport

#: Sources that are more than a file or a folder.
_PREFIXES = ("tfds:", "ding:", "emoji:")
#: Files whose first row is read without TensorFlow.
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
#: Of more columns than this, an unlike name is not proposed.
_FEW = 4


def check_sources(data: DataConfig) -> None:
    """Find the files that a config names, and the columns in the first row of each table.

    Raises:
        UserError: A file does not exist or cannot be read, or a column is missing. The message
            then proposes settings that name other columns.
    """
    given = {key: getattr(data, key) for key in data.column_keys}
    columns = {key: name for key, name in given.items() if isinstance(name, str)}
    for source in data.sources():
        if source.startswith(_PREFIXES) or "{" in source or is_pattern(source):
            continue
        path = locate(source)
        if path.is_file() and file_extension(path) in _TABLES:
            _check_columns(source, columns, data.format)


def given_source(source: str) -> str:
    """Return a source of a command line, whose path starts from the working directory.

    One that is not there starts from the data folder, as those of configs do.

    Raises:
        UserError: It names a file or folder, and there is none.
    """
    if Path(source).exists():
        return str(Path(source).absolute())
    if not (source.startswith(_PREFIXES) or "{" in source or is_pattern(source)):
        locate(source)
    return source


def _check_columns(source: str, columns: Mapping[str, str], form: FormatConfig) -> None:
    try:
        next(read(source, list(columns.values()), RowReport(), form), None)
    except UserError as error:
        first = next(read(source, [], RowReport(), form), None)
        proposed = _propose(columns, [] if first is None else list(first.fields))
        if not proposed:
            raise
        pairs = [f"data.{key}={name}" for key, name in proposed.items()]
        raise UserError(f"{error}; did you mean {settings(pairs)}?") from None


def _propose(columns: Mapping[str, str], available: Sequence[str]) -> dict[str, str]:
    """Return other columns for the keys whose columns are missing."""
    unused = [name for name in available if name not in columns.values()]
    proposed = {}
    for key, name in columns.items():
        if name in available:
            continue
        near = difflib.get_close_matches(name, unused, n=1)
        if near or 0 < len(available) <= _FEW:
            proposed[key] = (near or unused or [""])[0]
            unused = [other for other in unused if other != proposed[key]]
    return {key: name for key, name in proposed.items() if name}
