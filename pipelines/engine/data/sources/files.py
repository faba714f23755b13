"""Records from a named source, with every unusable one counted and shown.

A source is written in one way wherever a config names one:

- ``tfds:BUILDER@SPLIT``: a TensorFlow Datasets builder, downloaded when online, or read from
  the folder of original downloads named by ``UNFOLD_DOWNLOADS``;
- ``package:DIST/PATH``: a file or a folder inside an installed Python package;
- ``ding:de-en``: pairs of sentences and phrases from a dictionary;
- ``emoji:en@train``: pictures of emoji with their names in a language;
- the path of a file or a folder, relative to the folder named by ``UNFOLD_DATA`` or else to the
  working directory.

A file is read by its ending: rows from ``.csv``, ``.tsv``, ``.jsonl``, ``.parquet`` and
``.tfrecord`` (of ``tf.train.Example``), one document from ``.txt`` and ``.md``, tunes from
``.abc``. Each may be compressed (``.gz``, ``.xz``), and need not be named so: ``ptb.train.txt``
finds ``ptb.train.txt.xz``. Of a folder, every such file is read, and so is every one that a pattern
fits: ``reviews/*.csv``, ``reviews.tfrecord-*``. Parts may be numbered at their end, as in
``reviews.tfrecord-00003-of-00010``; all of them have to be there.

``train.{en,de}`` is files with a text a line, of any ending, that agree line by line: a row has a
column for each of the names. A table whose columns are asked for by numbers has no header.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import IO, Any

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.locate import (
    COMPRESSION,
    SHARD,
    existing,
    file_extension,
    files_in,
    is_pattern,
    locate,
    matching_files,
    resolve,
    supported_extensions,
)
from pipelines.engine.data.sources.rows import Row, UnreadableError, Unusable, require_columns

#: Rows of a Parquet file that are in memory at a time.
_ROWS = 1024


def read_files(source: str, columns: Sequence[str]) -> Iterator[Row | Unusable]:
    """The rows of a file, or of all files in a folder.

    A document that cannot be read is one bad row of a folder. A table that cannot be read is a
    mistake everywhere: nobody knows how many rows it stands for.
    """
    folder = True
    if is_pattern(source) and existing(resolve(source)) is None:
        files = matching_files(source)
    else:
        path = locate(source)
        folder = path.is_dir()
        files = files_in(source, path) if folder else {path.name: path}
    for name, file in files.items():
        ending = file_extension(file)
        if ending is None:
            raise UserError(f"data: {source}: {supported_extensions()}")
        try:
            yield from READERS[ending](file, name, columns)
        except UnreadableError as error:
            if not folder or ending in _TABLES:
                raise UserError(f"{file}{error.at}: {error.reason}") from None
            yield Unusable(error.reason, f"{name}{error.at}")


def read_parallel(source: str, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of files that agree line by line: ``train.{en,de}`` has the columns en and de."""
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
    """The lines of several files beside each other, without the white space around them.

    Raises:
        UserError: one cannot be read, or they have unequal numbers of lines.
    """
    readers = [lines(path) for path in paths]
    for line, texts in enumerate(zip_longest(*readers), 1):
        if None in texts:
            counts = (
                line - 1 if text is None else line + sum(1 for _ in reader)
                for text, reader in zip(texts, readers, strict=True)
            )
            each = ", ".join(f"{p} has {n:,}" for p, n in zip(paths, counts, strict=True))
            raise UserError(f"data: files that agree line by line have equally many: {each}")
        yield texts


def lines(path: Path) -> Iterator[str]:
    """The lines of a text, without the white space around them.

    Only a line feed ends one: there may be any other separator of Unicode inside. Bytes that are
    not UTF-8 become lone surrogates.
    """
    try:
        with _opened(path) as file:
            for line, raw in enumerate(file):
                if not line:
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                yield raw.decode("utf-8", errors="surrogateescape").strip()
    except UnreadableError as error:
        raise UserError(f"{path}: {error.reason}") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed. What goes wrong while they are read is told here."""
    suffix = path.suffix.lower()
    try:
        with COMPRESSION.get(suffix, open)(path, "rb") as file:
            yield file
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UnreadableError(f"a damaged {suffix} file: {error}") from None
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror or error}") from None


def _read_text(path: Path, otherwise: str | None = None) -> str:
    """A whole file as text with ``\\n`` at the ends of its lines.

    Args:
        otherwise: the encoding of what is not UTF-8; None if that cannot be used.
    """
    with _opened(path) as file:
        whole = file.read()
    raw = whole.removeprefix(codecs.BOM_UTF8)
    if not raw:
        raise UnreadableError("the file is empty")
    mark = len(whole) - len(raw)
    if (nul := raw.find(b"\0")) >= 0:
        raise UnreadableError("not text: a NUL byte", mark + nul)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if otherwise is None:
            raise UnreadableError("not text in UTF-8", mark + error.start) from None
        text = raw.decode(otherwise)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_document(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row]:
    require_columns(str(path), columns, ["text"])
    yield Row({"text": _read_text(path)}, name)


def _read_tunes(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row]:
    """The tunes of a file in ABC notation, each from its ``X:`` line on, without comment lines.

    Files from before 2011 may be in Latin-1: those that are not UTF-8 are read so.
    """
    require_columns(str(path), columns, ["text"])
    lines = _read_text(path, otherwise="latin-1").split("\n")
    starts = [i for i, line in enumerate(lines) if line.startswith("X:")]
    if not starts:
        raise UnreadableError("no tune: no line starts with X:")
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        tune = [line for line in lines[start:end] if not line.startswith("%")]
        while not tune[-1].strip():
            tune.pop()
        yield Row({"text": "\n".join(tune) + "\n"}, f"{name}:{start + 1}")


def _read_delimited(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row | Unusable]:
    """The rows of a table. If all columns are numbers, it has no header, and a TSV no quoting."""
    csv.field_size_limit(sys.maxsize)
    is_tsv = file_extension(path) == ".tsv"
    bare = bool(columns) and all(c.isascii() and c.isdecimal() for c in columns)
    with _opened(path) as raw:
        # Bytes that are not UTF-8 become lone surrogates, which are found again row by row.
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(
            file,
            delimiter="\t" if is_tsv else ",",
            quoting=csv.QUOTE_NONE if is_tsv and bare else csv.QUOTE_MINIMAL,
            strict=True,
        )
        try:
            first = next(reader, None)
            if first is None:
                raise UserError(f"{path}: the file is empty")
            header = [str(i) for i, _ in enumerate(first, 1)] if bare else first
            require_columns(f"{path}:1", columns, header)
            line = 1 if bare else reader.line_num + 1
            for values in chain([first] if bare else [], reader):
                # A record may go over several lines: it is found at its first.
                place = f"{name}:{line}"
                line = reader.line_num + 1
                record = dict(zip(header, values, strict=False))
                if len(values) > len(header) and not bare:
                    yield Unusable("more fields than the header has", place)
                elif values and not all(c in record for c in columns):
                    needed = f"than {max(map(int, columns))}" if bare else "than the header has"
                    yield Unusable(f"fewer fields {needed}", place)
                elif values:  # and not a blank line
                    yield Row(record, place, path.parent)
        except csv.Error as error:
            raise UserError(f"{path}:{reader.line_num}: not a readable table: {error}") from None


def _read_jsonl(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row | Unusable]:
    seen: set[str] = set()
    found_all = False
    with _opened(path) as file:
        for line, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            place = f"{name}:{line}"
            if line == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                record = json.loads(raw.decode("utf-8", errors="surrogateescape"))
            except json.JSONDecodeError as error:
                yield Unusable(f"not JSON ({error.msg})", place)
                continue
            except (ValueError, RecursionError):
                yield Unusable("not JSON that can be read (too long a number, or too deep)", place)
                continue
            if not isinstance(record, dict):
                yield Unusable("not a JSON object", place)
                continue
            seen.update(record)
            if missing := [c for c in columns if record.get(c) is None]:
                yield Unusable(f"no {missing[0]!r}", place)
                continue
            found_all = True
            yield Row(record, place, path.parent)
    if not seen:
        raise UserError(f"{path}: the file holds no JSON object")
    if not found_all:
        require_columns(str(path), columns, sorted(seen))


def _read_parquet(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a Parquet file; a row is found by its number, from 1."""
    from pyarrow import ArrowException, parquet

    with _opened(path) as raw:
        try:
            table = parquet.ParquetFile(raw)
            require_columns(str(path), columns, table.schema_arrow.names)
            number = 0
            for batch in table.iter_batches(_ROWS):
                for record in batch.to_pylist():
                    number += 1
                    yield Row(record, f"{name}:{number}")
        except ArrowException as error:
            raise UnreadableError(f"not a readable Parquet file: {error}") from None


def _read_tfrecord(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row | Unusable]:
    """The examples of a TFRecord file; one is found by its number, from 1."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    suffix = SHARD.sub("", path.name).lower().rpartition(".")[2]
    if suffix == "xz":
        raise UnreadableError("TensorFlow reads TFRecord files as they are or with .gz")
    seen: set[str] = set()
    found_all = False
    examples = tf.data.TFRecordDataset(str(path), compression_type="GZIP" if suffix == "gz" else "")
    try:
        for number, raw in enumerate(examples.as_numpy_iterator(), 1):
            place = f"{name}:{number}"
            try:
                features = tf.train.Example.FromString(raw).features.feature
            except DecodeError:
                yield Unusable("not a tf.train.Example", place)
                continue
            seen.update(features)
            fields = {c: _feature(features[c]) for c in columns if c in features}
            if missing := [c for c in columns if fields.get(c) is None]:
                yield Unusable(f"no {missing[0]!r}", place)
                continue
            found_all = True
            yield Row(fields, place, path.parent)
    except tf.errors.OpError as error:
        raise UnreadableError(f"a damaged TFRecord file: {error.message}") from None
    if not seen:
        raise UserError(f"{path}: the file holds no example")
    if not found_all:
        require_columns(str(path), columns, sorted(seen))


def _feature(feature: Any) -> Any:
    """A feature of an example: one value or a list of them; None if there is none.

    Bytes that are UTF-8 are text.
    """
    kind = feature.WhichOneof("kind")
    values = list(getattr(feature, kind).value) if kind else []
    if kind == "bytes_list":
        values = [_text_or_bytes(value) for value in values]
    return values if len(values) > 1 else next(iter(values), None)


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


_TABLES: dict[str, Callable[[Path, str, Sequence[str]], Iterator[Row | Unusable]]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".tfrecord": _read_tfrecord,
}
READERS = _TABLES | {".txt": _read_document, ".md": _read_document, ".abc": _read_tunes}
