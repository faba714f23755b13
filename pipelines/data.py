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
import difflib
import gzip
import hashlib
import importlib
import importlib.util
import io
import json
import lzma
import os
import re
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipelines import ding
from pipelines.errors import UserError

#: The folder that relative paths of sources start from; the working directory if not set.
DATA_SETTING = "UNFOLD_DATA"
#: A folder with the original downloads of TFDS data sets, for machines without a network.
DOWNLOADS_SETTING = "UNFOLD_DOWNLOADS"
#: Where TFDS keeps what it prepared; its own default is the home directory.
TFDS_SETTING = "TFDS_DATA_DIR"

#: TFDS builders of this project, and the modules that register them.
_BUILDERS = {
    "flickr8k": "pipelines.builders.flickr8k",
    "multi30k": "pipelines.builders.multi30k",
}
#: Where the files of Debian's packages are: installed, or unpacked by `make dictionary` and
#: `make emoji`.
_DEBIAN = (Path("/"), Path(sys.prefix) / "debian")
_DICTIONARIES, _EMOJI = "usr/share/trans", "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"


@dataclass(frozen=True)
class Row:
    """One record as it was found: its fields, and where (``file:line``) for messages.

    A document that is a whole file has the file as its place. Inside a folder, a file is named
    by its path from there.
    """

    fields: Mapping[str, Any]
    place: str
    #: Where names of files among the fields start from.
    folder: Path | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Unusable:
    """A row that could not even be read as fields, and why."""

    reason: str
    place: str


@dataclass
class Problems:
    """Rows that cannot be used: how many of how many, why, and the first few by place."""

    rows: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    shown: int = 5

    def add(self, place: str, reason: str) -> None:
        self.reasons[reason] += 1
        if len(self.examples) < self.shown:
            self.examples.append(f"{place}: {reason}")

    @property
    def bad(self) -> int:
        return sum(self.reasons.values())

    def check(self, source: str, allowed: float) -> None:
        """Raise if more than the share ``allowed`` of all rows cannot be used."""
        if self.bad > allowed * self.rows:
            raise UserError(
                f"{source}: {self.summary()}; data.max_bad_rows allows {allowed:.1%}\n"
                + "\n".join(f"  {line}" for line in self.examples)
            )

    def summary(self) -> str:
        reasons = ", ".join(f"{reason}: {n:,}" for reason, n in self.reasons.most_common())
        return f"{self.bad:,} of {self.rows:,} rows cannot be used ({reasons})"


def read(source: str, columns: Sequence[str], problems: Problems) -> Iterator[Row]:
    """The rows of ``source`` that have every one of ``columns``.

    A column that no row can have (it is missing from the file or from the data set) is the
    user's mistake; a single row without it is counted in ``problems``.
    """
    rows: Iterator[Row | Unusable]
    if source.startswith("tfds:"):
        rows = _read_tfds(source, columns)
    elif source.startswith("ding:"):
        rows = _read_ding(source, columns)
    elif source.startswith("emoji:"):
        rows = _read_emoji(source, columns)
    elif "{" in source or "}" in source:
        rows = _read_parallel(source, columns)
    else:
        rows = _read_files(source, columns)
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


#: Rows of a Parquet file that are in memory at a time.
_ROWS = 1024


class _UnfitError(Exception):
    """Why a file cannot be read, and at which byte."""

    def __init__(self, reason: str, byte: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = "" if byte is None else f", byte {byte:,}"


def _read_files(source: str, columns: Sequence[str]) -> Iterator[Row | Unusable]:
    """The rows of a file, or of all files in a folder.

    A document that cannot be read is one bad row of a folder. A table that cannot be read is a
    mistake everywhere: nobody knows how many rows it stands for.
    """
    folder = True
    if is_pattern(source) and _there(_placed(source)) is None:
        files = _fitting(source)
    else:
        path = locate(source)
        folder = path.is_dir()
        files = _inside(source, path) if folder else {path.name: path}
    for name, file in files.items():
        ending = _ending(file)
        if ending is None:
            raise UserError(f"data: {source}: {_endings()}")
        try:
            yield from _READERS[ending](file, name, columns)
        except _UnfitError as error:
            if not folder or ending in _TABLES:
                raise UserError(f"{file}{error.at}: {error.reason}") from None
            yield Unusable(error.reason, f"{name}{error.at}")


def _read_parallel(source: str, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of files that agree line by line: ``train.{en,de}`` has the columns en and de."""
    written = re.fullmatch(r"([^{}]*)\{([^{}]*)\}([^{}]*)", source)
    before, between, after = written.groups() if written else ("", "", "")
    names = [name.strip() for name in between.split(",")]
    if len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise UserError(
            f"data: {source}: files that agree line by line are written as train.{{en,de}}: two or "
            "more different names in one pair of braces"
        )
    _need_columns(source, columns, names)
    paths = [locate(f"{before}{name}{after}") for name in names]
    for line, texts in enumerate(parallel_lines(paths), 1):
        yield Row(dict(zip(names, texts, strict=True)), f"{paths[0].name}:{line}")


def parallel_lines(paths: Sequence[Path]) -> Iterator[tuple[str, ...]]:
    """The lines of several files beside each other, without the white space around them.

    Raises:
        UserError: one cannot be read, or they have unequal numbers of lines.
    """
    readers = [_lines(path) for path in paths]
    for line, texts in enumerate(zip_longest(*readers), 1):
        if None in texts:
            counts = (
                line - 1 if text is None else line + sum(1 for _ in reader)
                for text, reader in zip(texts, readers, strict=True)
            )
            each = ", ".join(f"{p} has {n:,}" for p, n in zip(paths, counts, strict=True))
            raise UserError(f"data: files that agree line by line have equally many: {each}")
        yield texts


def _lines(path: Path) -> Iterator[str]:
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
    except _UnfitError as error:
        raise UserError(f"{path}: {error.reason}") from None


def _read_ding(source: str, columns: Sequence[str]) -> Iterator[Row]:
    name = source.removeprefix("ding:")
    left, _, right = name.partition("-")
    if not (left.isalpha() and right.isalpha() and left != right):
        raise UserError(f"data: {source}: which dictionary? write it as ding:de-en")
    _need_columns(source, columns, [left, right, "kind"])
    path = _from_debian(f"{_DICTIONARIES}/{name}")
    if path is None:
        raise UserError(
            f"data: {source}: not found; `make dictionary` fetches it (Debian's trans-de-en, no "
            "root needed), or choose CONFIG=configs/translation/multi30k-en-de.yaml"
            if name == "de-en"
            else f"data: {source}: not found in "
            + " or ".join(str(root / _DICTIONARIES) for root in _DEBIAN)
        )
    for pair in ding.pairs(_lines(path)):
        fields = {left: pair.left, right: pair.right, "kind": pair.kind}
        yield Row(fields, f"{name}:{pair.line}")


def _from_debian(name: str) -> Path | None:
    """A file of one of Debian's packages, if it is there."""
    return next((p for p in (root / name for root in _DEBIAN) if p.is_file()), None)


def _read_emoji(source: str, columns: Sequence[str]) -> Iterator[Row]:
    from pipelines import emojis

    language, _, split = source.removeprefix("emoji:").partition("@")
    if language not in emojis.languages():
        known = ", ".join(emojis.languages())
        raise UserError(f"data: {source}: which language? write it as emoji:en@train, of {known}")
    if split not in emojis.SPLITS:
        known = ", ".join(f"emoji:{language}@{s}" for s in emojis.SPLITS)
        raise UserError(f"data: {source}: no such split; there are: {known}")
    _need_columns(source, columns, ["image", "caption", "emoji"])
    font = _from_debian(_EMOJI)
    if font is None:
        raise UserError(
            f"data: {source}: no pictures of emoji found; `make emoji` fetches them (Debian's "
            "fonts-noto-color-emoji, no root needed), or choose "
            "CONFIG=configs/captioning/flickr8k.yaml"
        )
    for i, one in enumerate(emojis.read(font, language, split)):
        fields = {"image": one.picture, "caption": one.name, "emoji": one.characters}
        yield Row(fields, f"emoji:{language}@{split}[{i}] {one.characters}")


def locate(source: str) -> Path:
    """The file or folder that is meant; a file may be there in compressed form only."""
    if not source.startswith("package:"):
        if not source.strip():
            raise UserError("data: a source has no name")
        path = _placed(source)
        found = _there(path)
        if found is None:
            given = os.environ.get(DATA_SETTING)
            within = "" if not given or path == Path(source) else f" in {DATA_SETTING}={given}"
            raise UserError(f"data: {source}: no such file{within}{_near_files(path)}")
        return found
    package, _, inside = source.removeprefix("package:").partition("/")
    # Found, not imported: importing a package of data may read all of it.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"data: {source}: the Python package {package!r} is not installed")
    found = _there(Path(spec.submodule_search_locations[0]) / inside) if inside else None
    if found is None:
        raise UserError(f"data: {source}: the package has no file {inside!r}")
    return found


def _placed(source: str) -> Path:
    """Where a path begins that is not absolute."""
    path = Path(source).expanduser()
    given = os.environ.get(DATA_SETTING)
    if path.is_absolute() or not given:
        return path
    start = Path(given).expanduser()
    if not start.is_dir():
        raise UserError(f"{DATA_SETTING}={given}: no such folder")
    return start / path


def _there(path: Path) -> Path | None:
    if path.is_file() or path.is_dir():
        return path
    compressed = (path.with_name(path.name + ending) for ending in _COMPRESSED if path.name)
    return next((p for p in compressed if p.is_file()), None)


def _inside(source: str, folder: Path) -> dict[str, Path]:
    """The files of a folder that can be read, by their path in it, in an order that stays."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}")

    files: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in (Path(parent) / name for name in names if not name.startswith(".")):
            if _ending(file) and file.is_file():
                name = file.relative_to(folder).as_posix()
                # A name that is not UTF-8 could not be printed.
                files[name.encode("utf-8", "backslashreplace").decode()] = file
    if not files:
        raise UserError(f"data: {source}: the folder has nothing to read; {_endings()}")
    _need_all_parts(source, files)
    return dict(sorted(files.items()))


def is_pattern(source: str) -> bool:
    """Whether a source names all files that it fits: ``reviews-*.csv``."""
    return any(c in source for c in "*?[") and not source.startswith("package:")


def _fitting(source: str) -> dict[str, Path]:
    """The files that a pattern fits, by their path from where it begins to be one."""
    parts = Path(source).expanduser().parts
    fixed = next(i for i, part in enumerate(parts) if is_pattern(part))
    folder = locate(str(Path(*parts[:fixed])))
    if not folder.is_dir():
        raise UserError(f"data: {source}: {folder} is no folder")
    found = sorted(p for p in folder.glob(str(Path(*parts[fixed:]))) if p.is_file())
    if not found:
        raise UserError(f"data: {source}: no file in {folder} fits")
    files = {p.relative_to(folder).as_posix(): p for p in found}
    if not set("[?") & set(parts[-1]):  # else some of them may be meant
        _need_all_parts(source, files)
    return files


#: The number of a part, and how many there are, at the end of a file's name.
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")


def _need_all_parts(source: str, files: Mapping[str, Path]) -> None:
    """Half of a data set is no data set."""
    wholes: dict[tuple[str, int], set[int]] = {}
    for name in files:
        if part := _PART.search(name):
            wholes.setdefault((name[: part.start()], int(part[2])), set()).add(int(part[1]))
    for (name, count), there in wholes.items():
        if missing := sorted(set(range(count)) - there):
            raise UserError(
                f"data: {source}: {len(missing):,} of {count:,} parts are missing, the first: "
                f"{name}-{missing[0]:05}-of-{count:05}"
            )


def _ending(path: Path) -> str | None:
    """What decides how a file is read; None if it is not."""
    path = path.with_name(_PART.sub("", path.name))
    plain = path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path
    ending = plain.suffix.lower()
    return ending if ending in _READERS else None


def _endings() -> str:
    compressed = " or ".join(_COMPRESSED)
    return f"files are read by their ending: {', '.join(_READERS)}, also with {compressed} after it"


def _near_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    return f" (did you mean {near[0]}?)" if near else ""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed. What goes wrong while they are read is told here."""
    suffix = path.suffix.lower()
    try:
        with _COMPRESSED.get(suffix, open)(path, "rb") as file:
            yield file
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise _UnfitError(f"a damaged {suffix} file: {error}") from None
    except OSError as error:
        raise _UnfitError(f"cannot be read: {error.strerror or error}") from None


def _read_text(path: Path, otherwise: str | None = None) -> str:
    """A whole file as text with ``\\n`` at the ends of its lines.

    Args:
        otherwise: the encoding of what is not UTF-8; None if that cannot be used.
    """
    with _opened(path) as file:
        whole = file.read()
    raw = whole.removeprefix(codecs.BOM_UTF8)
    if not raw:
        raise _UnfitError("the file is empty")
    mark = len(whole) - len(raw)
    if (nul := raw.find(b"\0")) >= 0:
        raise _UnfitError("not text: a NUL byte", mark + nul)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if otherwise is None:
            raise _UnfitError("not text in UTF-8", mark + error.start) from None
        text = raw.decode(otherwise)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_document(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row]:
    _need_columns(str(path), columns, ["text"])
    yield Row({"text": _read_text(path)}, name)


def _read_tunes(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row]:
    """The tunes of a file in ABC notation, each from its ``X:`` line on, without comment lines.

    Files from before 2011 may be in Latin-1: those that are not UTF-8 are read so.
    """
    _need_columns(str(path), columns, ["text"])
    lines = _read_text(path, otherwise="latin-1").split("\n")
    starts = [i for i, line in enumerate(lines) if line.startswith("X:")]
    if not starts:
        raise _UnfitError("no tune: no line starts with X:")
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        tune = [line for line in lines[start:end] if not line.startswith("%")]
        while not tune[-1].strip():
            tune.pop()
        yield Row({"text": "\n".join(tune) + "\n"}, f"{name}:{start + 1}")


def _read_delimited(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row | Unusable]:
    """The rows of a table. If all columns are numbers, it has no header, and a TSV no quoting."""
    csv.field_size_limit(sys.maxsize)
    is_tsv = _ending(path) == ".tsv"
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
            _need_columns(f"{path}:1", columns, header)
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
        _need_columns(str(path), columns, sorted(seen))


def _read_parquet(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a Parquet file; a row is found by its number, from 1."""
    from pyarrow import ArrowException, parquet

    with _opened(path) as raw:
        try:
            table = parquet.ParquetFile(raw)
            _need_columns(str(path), columns, table.schema_arrow.names)
            number = 0
            for batch in table.iter_batches(_ROWS):
                for record in batch.to_pylist():
                    number += 1
                    yield Row(record, f"{name}:{number}")
        except ArrowException as error:
            raise _UnfitError(f"not a readable Parquet file: {error}") from None


def _read_tfrecord(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row | Unusable]:
    """The examples of a TFRecord file; one is found by its number, from 1."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    suffix = _PART.sub("", path.name).lower().rpartition(".")[2]
    if suffix == "xz":
        raise _UnfitError("TensorFlow reads TFRecord files as they are or with .gz")
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
        raise _UnfitError(f"a damaged TFRecord file: {error.message}") from None
    if not seen:
        raise UserError(f"{path}: the file holds no example")
    if not found_all:
        _need_columns(str(path), columns, sorted(seen))


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


#: What opens each form of compression, by its ending.
_COMPRESSED: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}
_TABLES: dict[str, Callable[[Path, str, Sequence[str]], Iterator[Row | Unusable]]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".tfrecord": _read_tfrecord,
}
_READERS = _TABLES | {".txt": _read_document, ".md": _read_document, ".abc": _read_tunes}


def _need_columns(place: str, columns: Sequence[str], there: Sequence[str]) -> None:
    for column in columns:
        if column not in there:
            near = difflib.get_close_matches(column, there, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"{place}: no column {column!r}{hint}; there are: {', '.join(there)}")
        if there.count(column) > 1:
            raise UserError(
                f"{place}: the column {column!r} stands here {there.count(column)} times"
            )


def _read_tfds(source: str, columns: Sequence[str]) -> Iterator[Row]:
    import tensorflow_datasets as tfds

    name, _, split = source.removeprefix("tfds:").partition("@")
    if not split:
        raise UserError(f"data: {source}: which split? write it as tfds:{name or 'BUILDER'}@train")
    builder = _prepare_tfds(name)
    if split not in builder.info.splits:
        splits = ", ".join(f"{name}@{s}" for s in builder.info.splits)
        raise UserError(f"data: tfds:{name}@{split}: no such split; there are: {splits}")
    paths, features = {}, {}
    for path, feature in _features(builder.info.features):
        paths["/".join(path)], features["/".join(path)] = path, feature
    _need_columns(f"tfds:{name}", columns, list(features))
    decode = {
        c: features[c].int2str for c in columns if isinstance(features[c], tfds.features.ClassLabel)
    }
    # A picture stays the file that it is.
    raw = {
        c: tfds.decode.SkipDecoding()
        for c in columns
        if isinstance(features[c], tfds.features.Image)
    }
    # Unlabelled splits carry the label -1, which has no name.
    for i, example in enumerate(tfds.as_numpy(builder.as_dataset(split=split, decoders=raw))):
        fields = {}
        for column in columns:
            value = example
            for part in paths[column]:
                value = value[part]
            if column in decode and np.ndim(value) == 0:
                value = decode[column](int(value)) if value >= 0 else ""
            elif isinstance(value, np.ndarray) and value.dtype == object:
                value = [v.decode("utf-8", errors="surrogateescape") for v in value.tolist()]
            elif isinstance(value, bytes) and column not in raw:
                value = value.decode("utf-8", errors="surrogateescape")
            fields[column] = value
        yield Row(fields, f"{name}@{split}[{i}]")


def _features(features: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The features of a data set by their paths, also those inside of one or of a list of it."""
    for name, feature in features.items():
        yield (name,), feature
        inner = getattr(feature, "feature", feature)
        if hasattr(inner, "items"):
            yield from (((name, *path), one) for path, one in _features(inner))


def _prepare_tfds(name: str) -> Any:
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    own = re.split("[/:]", name)[0]  # a name may go on with a config and a version
    if own in _BUILDERS:
        importlib.import_module(_BUILDERS[own])
    try:
        builder = tfds.builder(name, data_dir=os.environ.get(TFDS_SETTING))
    except tfds.core.registered.DatasetNotFoundError:
        near = difflib.get_close_matches(name, [*_BUILDERS, *tfds.list_builders()], n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"data: tfds:{name}: no such TFDS builder{hint}") from None
    except (ValueError, AssertionError) as error:  # its config, its version, or how it is written
        reason = str(error).splitlines()[0].rpartition('}": ')[2]
        raise UserError(f"data: tfds:{name}: {reason}") from None
    if builder.info.splits:
        return builder
    try:
        with _linked_downloads() as downloads:
            builder.download_and_prepare(download_dir=downloads)
    except (OSError, tfds.core.download.DownloadError) as error:
        reason = str(error).splitlines()[0][:160]
        by_hand = f", or {DATA_SETTING} to one with a folder {own}/" if own in _BUILDERS else ""
        raise UserError(
            f"data: tfds:{name}: could not be downloaded ({reason}); offline, set "
            f"{DOWNLOADS_SETTING} to a folder with the original files under TFDS's names{by_hand}"
        ) from None
    return builder


@contextlib.contextmanager
def _linked_downloads() -> Iterator[str | None]:
    """The user's folder of downloads as TFDS wants it: one that it can write into."""
    given = os.environ.get(DOWNLOADS_SETTING)
    if given is None:
        yield None
        return
    if not Path(given).is_dir():
        raise UserError(f"{DOWNLOADS_SETTING}={given}: no such folder")
    with tempfile.TemporaryDirectory() as links:
        for file in Path(given).resolve().iterdir():
            (Path(links) / file.name).symlink_to(file)
        yield links


def split_shares(
    keys: Sequence[Any] | np.ndarray,
    strata: Sequence[Any] | np.ndarray,
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, np.ndarray]:
    """Indices for ``train`` and each named share; equal keys always fall on one side.

    Args:
        keys: one a record, of one kind; records with equal keys (exact duplicates) stay together.
        strata: one a record, of one kind; every stratum is split in the same proportion.
        shares: held-out share of the distinct keys, by name, e.g. ``{"test": 0.1}``. However
            large, each stratum keeps one key to train on.
        seed: same seed, same split.

    Returns:
        Sorted indices by name; ``train`` has what the shares leave.
    """
    names = ("train", *shares)
    # Numbers for keys and strata, so that many rows are a few arrays.
    _, first, key_of = np.unique(np.asarray(keys), return_index=True, return_inverse=True)
    _, strata_of = np.unique(np.asarray(strata), return_inverse=True)
    stratum_of = strata_of[first] if len(first) else first
    by_appearance = np.argsort(first, kind="stable")
    rng = np.random.default_rng([seed, 0x5B117])
    side = np.zeros(len(first), np.int8)
    for stratum in np.unique(stratum_of):
        members = rng.permutation(by_appearance[stratum_of[by_appearance] == stratum])
        start = 0
        for number, share in enumerate(shares.values(), 1):
            count = min(round(share * len(members)), len(members) - 1 - start)
            side[members[start : start + count]] = number
            start += count
    sides = side[key_of]
    return {name: np.flatnonzero(sides == number) for number, name in enumerate(names)}


def digests(keys: Iterable[str], count: int) -> np.ndarray:
    """``<uint64>[count]``: a hash of each of so many keys.

    Two of a hundred million different ones are the same with a probability of 0.03 %.
    """

    def hashed(key: str) -> int:
        raw = key.encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")

    return np.fromiter(map(hashed, keys), np.uint64, count)


def fingerprint(parts: Iterable[str]) -> str:
    """SHA-256 over texts, in order: two runs with one fingerprint saw the same data."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", errors="surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()[:16]
