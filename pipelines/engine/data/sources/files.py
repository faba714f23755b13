"""Files, read by their extension, and folders and patterns of files.

Rows come from ``.csv``, ``.tsv``, ``.jsonl``, ``.parquet`` and ``.tfrecord`` (of
``tf.train.Example``), one document from each ``.txt`` and ``.md``, tunes from ``.abc``. A file may
be compressed (``.gz``, ``.xz``) without saying so: ``ptb.train.txt`` finds ``ptb.train.txt.xz``.
Every such file of a folder is read, and every file that matches a pattern: ``reviews/*.csv``,
``reviews.tfrecord-*``. Shards may be numbered, as in ``reviews.tfrecord-00003-of-00010``; all of
them must be present.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.delimited import read_delimited
from pipelines.engine.data.sources.documents import read_document, read_tunes
from pipelines.engine.data.sources.jsonl import read_jsonl
from pipelines.engine.data.sources.locate import (
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
from pipelines.engine.data.sources.rows import Row, UnreadableError, Unusable
from pipelines.engine.data.sources.tfrecord import read_tfrecord

_Reader = Callable[[Path, str, Sequence[str]], Iterator[Row | Unusable]]

_TABLES: dict[str, _Reader] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".tfrecord": read_tfrecord,
}
#: The reader of each of `locate.EXTENSIONS`.
READERS: dict[str, _Reader] = _TABLES | {
    ".txt": read_document,
    ".md": read_document,
    ".abc": read_tunes,
}


def read_files(source: str, columns: Sequence[str]) -> Iterator[Row | Unusable]:
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
    for name, file in files.items():
        extension = file_extension(file)
        if extension is None:
            raise UserError(f"data: {source}: {supported_extensions()}")
        try:
            yield from READERS[extension](file, name, columns)
        except UnreadableError as error:
            if not several or extension in _TABLES:
                raise UserError(f"{file}{error.at}: {error.reason}") from None
            yield Unusable(error.reason, f"{name}{error.at}")
