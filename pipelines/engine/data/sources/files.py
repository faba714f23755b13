"""Files, read by their extension, and folders and patterns of files.

Rows come from ``.csv``, ``.tsv``, ``.jsonl``, ``.parquet`` and ``.tfrecord`` (of
``tf.train.Example``), one document from each ``.txt`` and ``.md``, tunes from ``.abc``. A file may
be compressed (``.gz``, ``.xz``) without saying so: ``ptb.train.txt`` finds ``ptb.train.txt.xz``.
Every such file of a folder is read, and every file that matches a pattern: ``reviews/*.csv``,
``reviews.tfrecord-*``. Shards may be numbered, as in ``reviews.tfrecord-00003-of-00010``; all of
them must be present.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipelines.engine.config.schema import FormatConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.delimited import read_delimited
from pipelines.engine.data.sources.documents import read_document, read_tunes
from pipelines.engine.data.sources.jsonl import read_jsonl
from pipelines.engine.data.sources.locate import (
    COMPRESSION,
    existing,
    file_extension,
    files_in,
    is_pattern,
    locate,
    matching_files,
    resolve,
    supported_extensions,
)
from pipelines.engine.data.sources.parquet import read_parquet
from pipelines.engine.data.sources.rows import Note, Row, UnreadableError, UnusableRow
from pipelines.engine.data.sources.tfrecord import read_tfrecord

_Reader = Callable[[Path, str, Sequence[str]], Iterator[Row | UnusableRow | Note]]

_DELIMITED = (".csv", ".tsv")
_TABLES: dict[str, _Reader] = {
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".tfrecord": read_tfrecord,
}
#: The reader of each other of `locate.EXTENSIONS`.
READERS: dict[str, _Reader] = _TABLES | {
    ".txt": read_document,
    ".md": read_document,
    ".abc": read_tunes,
}


def read_files(
    source: str, columns: Sequence[str], settings: FormatConfig
) -> Iterator[Row | UnusableRow | Note]:
    """Yield the rows of a file, of all files in a folder, or of all that match a pattern.

    An unreadable document counts as one unusable row of its folder. An unreadable table is always
    an error, because the number of its rows is unknown.

    Raises:
        UserError: There is no such file, or it cannot be read.
    """
    several = True
    if is_pattern(source) and existing(resolve(source)) is None:
        files = matching_files(source)
    else:
        path = locate(source)
        several = path.is_dir()
        files = files_in(source, path) if several else {path.name: path}
    yield from _compressed_twins(files)
    for name, file in files.items():
        extension = file_extension(file)
        if extension is None:
            raise UserError(f"data: {source}: {supported_extensions()}")
        try:
            if extension in _DELIMITED:
                yield from read_delimited(file, name, columns, settings)
            else:
                yield from READERS[extension](file, name, columns)
        except UnreadableError as error:
            if not several or extension in (*_DELIMITED, *_TABLES):
                raise UserError(f"{file}{error.at}: {error.reason}") from None
            yield UnusableRow(error.reason, f"{name}{error.at}")


def _compressed_twins(files: Mapping[str, Path]) -> Iterator[Note]:
    """Point at files that are there twice, compressed and not: their rows may be the same."""
    for name in files:
        for ending in COMPRESSION:
            if name + ending in files:
                yield Note(f"{name}{ending} has the same name; the rows of both are read", name)
