"""Write tables of predictions in parts, and join the parts to one file.

A part has some rows of the table, and a file is made of parts without computing anything again.
The same rows always give the same bytes.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.locate import file_extension
from pipelines.engine.data.sources.tables import ABSENT, TABLES, InputTable

_SURROGATE = re.compile("[\ud800-\udfff]")
#: Rows of a group in a Parquet file.
_GROUP_ROWS = 65_536


@dataclass(frozen=True)
class WrittenRow:
    """A row to write: the cells of the input, then those of the answer.

    Attributes:
        cells: One for each input column.
        answers: One for each answer column; None where there is no answer.
        text: The input's JSON object as it was written.
    """

    cells: Sequence[Any]
    answers: Sequence[Any]
    text: str | None = None


class TableWriter(ABC):
    """Writes one format.

    Args:
        columns: The columns of the input.
        answers: The columns of the answers with their types, ``str`` or ``float``.
    """

    def __init__(self, columns: Sequence[str], answers: Mapping[str, type]) -> None:
        self.columns, self.answers = list(columns), dict(answers)

    @abstractmethod
    def write(self, rows: Iterable[WrittenRow], file: BinaryIO) -> None:
        """Write a part."""

    @abstractmethod
    def join(self, parts: Sequence[Path], file: BinaryIO) -> None:
        """Write a whole file from its parts."""


def check_ending(out: Path) -> None:
    """Check that a format is known by the ending of a file.

    Raises:
        UserError: It is not.
    """
    if out.suffix.lower() not in TABLES:
        raise UserError(f"{out}: a file of predictions ends with one of: {', '.join(TABLES)}")


def table_writer(
    out: Path, table: InputTable, columns: Sequence[str], answers: Mapping[str, type]
) -> TableWriter:
    """Return the writer for a file.

    Args:
        out: The file, whose ending selects the format.
        table: The input. A delimited file of the same ending is written like it.
        columns: The columns that are kept of the input.
        answers: The columns of the answers with their types.
    """
    ending = out.suffix.lower()
    if ending == ".jsonl":
        return JsonLinesWriter(columns, answers)
    if ending == ".parquet":
        types = table.types if list(columns) == table.columns else ()
        return ParquetWriter(columns, answers, types)
    delimiter = "\t" if ending == ".tsv" else ","
    if table.delimiter is not None and file_extension(table.path) == ending:
        delimiter = table.delimiter
    return DelimitedWriter(columns, answers, delimiter, mark=table.marked)


class DelimitedWriter(TableWriter):
    """Writes CSV and TSV: UTF-8, fields quoted where they must be, lines that end with ``\\n``.

    Args:
        delimiter: The character between two fields.
        mark: Whether to begin with a byte order mark, without which Excel takes UTF-8 for another
            encoding.
    """

    def __init__(
        self,
        columns: Sequence[str],
        answers: Mapping[str, type],
        delimiter: str = ",",
        *,
        mark: bool = False,
    ) -> None:
        super().__init__(columns, answers)
        self._delimiter, self._mark = delimiter, mark
        self._special = re.compile(f'[\r\n"{re.escape(delimiter)}]')

    def write(self, rows: Iterable[WrittenRow], file: BinaryIO) -> None:
        for row in rows:
            file.write(self._line([*row.cells, *row.answers]))

    def join(self, parts: Sequence[Path], file: BinaryIO) -> None:
        file.write(("\ufeff" if self._mark else "").encode())
        file.write(self._line([*self.columns, *self.answers]))
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file)

    def _line(self, cells: Sequence[Any]) -> bytes:
        line = self._delimiter.join(map(self._field, cells)) + "\n"
        try:
            return line.encode("utf-8", "surrogateescape")  # bytes that are not UTF-8, as read
        except UnicodeEncodeError:
            return _valid(line).encode()

    def _field(self, value: Any) -> str:
        text = cell_text(value)
        # The csv module leaves a lone carriage return unquoted before Python 3.13.
        if self._special.search(text):
            return '"' + text.replace('"', '""') + '"'
        return text


class JsonLinesWriter(TableWriter):
    """Writes JSON Lines; an object of the input keeps its text, and the answers are added."""

    def write(self, rows: Iterable[WrittenRow], file: BinaryIO) -> None:
        for row in rows:
            answers = _dumps(dict(zip(self.answers, row.answers, strict=True)))
            if row.text is not None:
                kept = row.text[:-1].rstrip()
                line = f"{kept}{'' if kept == '{' else ', '}{answers[1:]}"
            else:
                cells = zip(self.columns, row.cells, strict=True)
                given = _dumps({name: value for name, value in cells if value is not ABSENT})
                line = answers if given == "{}" else f"{given[:-1]}, {answers[1:]}"
            file.write(line.encode("utf-8", "surrogateescape") + b"\n")

    def join(self, parts: Sequence[Path], file: BinaryIO) -> None:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file)


class ParquetWriter(TableWriter):
    """Writes Parquet. Columns of a Parquet input keep their types, all others are text.

    Args:
        types: The Arrow types of the input's columns; empty if they are text.
    """

    def __init__(
        self, columns: Sequence[str], answers: Mapping[str, type], types: Sequence[Any] = ()
    ) -> None:
        import pyarrow as pa

        super().__init__(columns, answers)
        self._given = list(types)
        added = [pa.float64() if kind is float else pa.string() for kind in answers.values()]
        given = self._given or [pa.string()] * len(columns)
        names = [*columns, *answers]
        self._schema = pa.schema(list(zip(names, [*given, *added], strict=True)))

    def write(self, rows: Iterable[WrittenRow], file: BinaryIO) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        rows = list(rows)
        count = len(self.columns)
        columns = []
        for i, field in enumerate(self._schema):
            values = [row.cells[i] if i < count else row.answers[i - count] for row in rows]
            if i < count and not self._given:
                values = [
                    None if v is None or v is ABSENT else _valid(cell_text(v)) for v in values
                ]
            columns.append(pa.array(values, field.type))
        # Written at once: Arrow's own writer hides what the system says of a full disk.
        buffer = io.BytesIO()
        parquet.write_table(pa.Table.from_arrays(columns, schema=self._schema), buffer)
        file.write(buffer.getbuffer())

    def join(self, parts: Sequence[Path], file: BinaryIO) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        with parquet.ParquetWriter(file, self._schema) as writer:
            group: list[Any] = []
            for part in parts:
                group.append(parquet.read_table(part))
                if sum(len(table) for table in group) >= _GROUP_ROWS:
                    writer.write_table(pa.concat_tables(group))
                    group.clear()
            if group:
                writer.write_table(pa.concat_tables(group))


def cell_text(value: Any) -> str:
    """Return a cell as text: a text as it is, nothing for a missing value, JSON for the others."""
    if isinstance(value, str):
        return value
    if value is None or value is ABSENT:
        return ""
    plain = _plain(value)
    if plain is None or isinstance(plain, str):
        return plain or ""
    return json.dumps(plain, ensure_ascii=False)


def _dumps(record: Mapping[str, Any]) -> str:
    return _valid(json.dumps(_plain(record), ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    """Return a value of a Parquet or JSON file as JSON has it; bytes in Base64."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _valid(text: str) -> str:
    """Return a text with � for each lone surrogate, which UTF-8 cannot have."""
    return _SURROGATE.sub("\ufffd", text)
