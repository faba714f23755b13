"""Tables of inputs, of which every row and every cell is kept.

`reading.read` yields what can be used of a source. A file of predictions has a row for each row of
its input instead, in order: an unusable one with the reason, and all others as they were.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.engine.config.schema import FormatConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources import dialect as dialects
from pipelines.engine.data.sources.delimited import OpenTable, defect, open_records
from pipelines.engine.data.sources.jsonl import find_repeated, parse_object
from pipelines.engine.data.sources.locate import (
    COMPRESSION,
    existing,
    file_extension,
    is_pattern,
    locate,
    matching_files,
    resolve,
)
from pipelines.engine.data.sources.opening import (
    detect_encoding,
    open_decompressed,
    open_text,
    read_head,
)
from pipelines.engine.data.sources.rows import UnreadableError, require_columns

#: The cell of a JSON object that lacks the column's key.
ABSENT = object()
#: The endings of tables that can be read and written.
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
#: Rows of a Parquet file in memory at a time.
_BATCH_ROWS = 1024


@dataclass(frozen=True)
class TableRow:
    """A row of a table, usable or not.

    Attributes:
        cells: The values, one for each column of the table.
        place: Where the row was read, for messages.
        reason: Why it cannot be used; None if it can.
        text: The JSON object as it is written in the file; None in other files.
    """

    cells: Sequence[Any]
    place: str
    reason: str | None = None
    text: str | None = None


class InputTable(ABC):
    """A table of inputs. It is read once to count its rows, and again by `read`.

    Attributes:
        path: The file, or the folder of pictures.
        columns: The names of its columns, some perhaps repeated.
        rows: The number of its rows.
        notes: How it was read, where that is not obvious.
        delimiter: The character between the fields of a delimited file.
        marked: Whether it has a byte order mark, or is not in UTF-8.
        types: The Arrow type of each column of a Parquet file.
    """

    path: Path
    columns: list[str]
    rows: int
    notes: Sequence[str] = ()
    delimiter: str | None = None
    marked: bool = False
    types: Sequence[Any] = ()

    @property
    def folder(self) -> Path:
        """The folder that relative names of files among the cells start from."""
        return self.path.parent

    @abstractmethod
    def read(self) -> Iterator[TableRow]:
        """Yield all rows in order."""

    def digest(self) -> str:
        """Return a hash of the content."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def open_table(
    source: str,
    columns: Sequence[str],
    settings: FormatConfig,
    *,
    pictures: Sequence[str] = (),
    advice: str = "",
) -> InputTable:
    """Open a file of inputs, or a folder or pattern of files that are inputs themselves.

    Args:
        source: A path, relative to the working directory, or else to the folder of data.
        columns: The columns that are needed.
        settings: How delimited files are written.
        pictures: Endings of files that are inputs; with none, a folder is an error.
        advice: What to do if a column is missing, to follow the message.

    Raises:
        UserError: There is no such file, it cannot be read, or it lacks a column.
    """
    if is_pattern(source) and not Path(source).exists() and existing(resolve(source)) is None:
        if not pictures:
            raise UserError(f"{source}: one file of inputs is needed, not a pattern")
        return PictureFiles(Path(source), list(matching_files(source).values()), columns[0])
    path = Path(source) if source.strip() and Path(source).exists() else locate(source)
    if path.is_dir():
        if not pictures:
            raise UserError(f"{source}: a folder; a file of inputs is one of {', '.join(TABLES)}")
        return _picture_folder(path, columns[0], pictures)
    extension = file_extension(path)
    if extension not in TABLES:
        raise UserError(
            f"{path}: a file of inputs is one of {', '.join(TABLES)}, also with "
            f"{' or '.join(COMPRESSION)} after it"
        )
    if extension == ".jsonl":
        return JsonLines(path, columns, advice)
    if extension == ".parquet":
        return Parquet(path, columns, advice)
    return Delimited(path, columns, settings, advice)


class Delimited(InputTable):
    """A ``.csv`` or ``.tsv`` file; blank lines are not rows."""

    def __init__(
        self, path: Path, needed: Sequence[str], settings: FormatConfig, advice: str
    ) -> None:
        self.path, self.rows = path, 0
        with _errors_of(path):
            dialect = self._dialect = dialects.detect(path, needed, settings)
            self.delimiter = dialect.delimiter
            named = detect_encoding(read_head(path, 4))
            self.marked = named != "utf-8" or dialect.encoding not in ("utf-8", "utf-8-sig")
            with open_records(path, dialect) as table:
                require_columns(f"{path}:1", needed, table.header, dialect.advice + advice)
                width = len(table.header)
                for _, values in table.records:
                    self.rows += bool(values)
                    width = max(width, len(values))
                self.notes = self._notes(table)
        self.columns = table.header
        if not dialect.header:
            self.columns = [str(i) for i in range(1, width + 1)]
        self._least = max((self.columns.index(column) + 1 for column in needed), default=0)

    def _notes(self, table: OpenTable) -> list[str]:
        detected = self._dialect.detected
        notes = [f"{self.path}: read as a table {detected}"] if detected else []
        return notes + [f"{note.place}: {note.text}" for note in table.notes(str(self.path))]

    def read(self) -> Iterator[TableRow]:
        width = len(self.columns)
        with _errors_of(self.path), open_records(self.path, self._dialect) as table:
            for line, values in table.records:
                if not values:
                    continue
                reason = defect(values, table.header, self._dialect)
                if surplus := values[width:]:  # no column has them, and the reason keeps them
                    reason = f"{reason}: {', '.join(map(repr, surplus))}"
                elif reason is None and len(values) < self._least:
                    reason = "fewer fields than the header has"
                cells = [*values[:width], *[""] * (width - len(values))]
                yield TableRow(cells, f"{self.path}:{line}", reason)


class JsonLines(InputTable):
    """A ``.jsonl`` file; its columns are all keys, in the order in which they first occur."""

    def __init__(self, path: Path, needed: Sequence[str], advice: str) -> None:
        self.path, self.rows, self._needed = path, 0, needed
        names: dict[str, None] = {}
        for _, _, record in self._lines():
            self.rows += 1
            if not isinstance(record, str):
                names.update(dict.fromkeys(record))
        if not names:
            raise UserError(f"{path}: the file holds no JSON object")
        self.columns = list(names)
        require_columns(str(path), needed, self.columns, advice)

    def _lines(self) -> Iterator[tuple[int, str, dict[str, Any] | str]]:
        """Yield the number of each line, its text, and its object or why there is none."""
        with _errors_of(self.path), open_text(self.path) as file:
            for number, line in enumerate(file, 1):
                text = line.removeprefix("\ufeff").strip()
                if text:
                    yield number, text, parse_object(text)

    def read(self) -> Iterator[TableRow]:
        for number, text, record in self._lines():
            place = f"{self.path}:{number}"
            if isinstance(record, str):
                yield TableRow([ABSENT] * len(self.columns), place, f"{record}: {text}")
                continue
            cells = [record.get(name, ABSENT) for name in self.columns]
            yield TableRow(cells, place, find_repeated(record, self._needed), text)


class Parquet(InputTable):
    """A ``.parquet`` file; the place of a row is its number, from 1."""

    def __init__(self, path: Path, needed: Sequence[str], advice: str) -> None:
        from pyarrow import ArrowException, parquet

        self.path = path
        with _errors_of(path), open_decompressed(path) as raw:
            try:
                table = parquet.ParquetFile(raw)
            except ArrowException as error:
                raise UnreadableError(f"not a readable Parquet file: {error}") from None
            self.columns, self.types = table.schema_arrow.names, table.schema_arrow.types
            self.rows = table.metadata.num_rows
        require_columns(str(path), needed, self.columns, advice)

    def read(self) -> Iterator[TableRow]:
        from pyarrow import ArrowException, parquet

        number = 0
        with _errors_of(self.path), open_decompressed(self.path) as raw:
            try:
                for batch in parquet.ParquetFile(raw).iter_batches(_BATCH_ROWS):
                    columns = [column.to_pylist() for column in batch.columns]
                    for cells in zip(*columns, strict=True):
                        number += 1
                        yield TableRow(cells, f"{self.path}:{number}")
            except ArrowException as error:
                raise UnreadableError(f"not a readable Parquet file: {error}") from None


class PictureFiles(InputTable):
    """Files that are inputs themselves, one a row: a column has their paths."""

    def __init__(
        self, path: Path, files: Sequence[Path], column: str, notes: Sequence[str] = ()
    ) -> None:
        self.path, self.columns, self.rows, self.notes = path, [column], len(files), notes
        self._files = files

    @property
    def folder(self) -> Path:
        """The working directory, which the paths start from."""
        return Path()

    def read(self) -> Iterator[TableRow]:
        for file in self._files:
            yield TableRow([str(file)], str(file))

    def digest(self) -> str:
        """Return a hash of the names, sizes and times of the files."""
        found = hashlib.sha256()
        for file in self._files:
            status = file.stat()
            found.update(os.fsencode(file))
            found.update(f"\0{status.st_size} {status.st_mtime_ns}\n".encode())
        return found.hexdigest()


def _picture_folder(folder: Path, column: str, endings: Sequence[str]) -> PictureFiles:
    """Return the files in a folder and below it that have one of the endings, sorted by path."""
    files, others = [], 0
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in endings and not name.startswith("."):
                files.append(Path(parent, name))
            else:
                others += 1
    if not files:
        raise UserError(f"{folder}: the folder has no file that ends with {', '.join(endings)}")
    notes = [f"{folder}: left out {others:,} files with other endings"] if others else []
    return PictureFiles(folder, sorted(files), column, notes)


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Raise a `UserError` for an unreadable file."""
    try:
        yield
    except UnreadableError as error:
        raise UserError(f"{path}{error.at}: {error.reason}") from None
