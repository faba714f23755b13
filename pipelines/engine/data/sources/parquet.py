"""Parquet files (``.parquet``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.engine.data.sources.opening import open_decompressed
from pipelines.engine.data.sources.rows import Row, UnreadableError, require_columns

#: Rows in memory at a time.
_BATCH_ROWS = 1024


def read_parquet(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a Parquet file; the place of a row is its number, from 1."""
    from pyarrow import ArrowException, parquet

    with open_decompressed(path) as raw:
        try:
            table = parquet.ParquetFile(raw)
            require_columns(str(path), columns, table.schema_arrow.names)
            number = 0
            for batch in table.iter_batches(_BATCH_ROWS):
                for record in batch.to_pylist():
                    number += 1
                    yield Row(record, f"{name}:{number}")
        except ArrowException as error:
            raise UnreadableError(f"not a readable Parquet file: {error}") from None
