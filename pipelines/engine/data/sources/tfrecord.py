"""TFRecord files (``.tfrecord``) of ``tf.train.Example``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.locate import SHARD
from pipelines.engine.data.sources.rows import Row, UnreadableError, UnusableRow, require_columns


def read_tfrecord(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row | UnusableRow]:
    """Yield the examples of a TFRecord file; the place of one is its number, from 1."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    suffix = SHARD.sub("", path.name).lower().rpartition(".")[2]
    if suffix == "xz":
        raise UnreadableError("TensorFlow reads TFRecord files as they are or with .gz")
    names: set[str] = set()
    complete = False
    examples = tf.data.TFRecordDataset(str(path), compression_type="GZIP" if suffix == "gz" else "")
    try:
        for number, raw in enumerate(examples.as_numpy_iterator(), 1):
            place = f"{name}:{number}"
            try:
                features = tf.train.Example.FromString(raw).features.feature
            except DecodeError:
                yield UnusableRow("not a tf.train.Example", place)
                continue
            names.update(features)
            fields = {c: _feature(features[c]) for c in columns if c in features}
            if missing := [c for c in columns if fields.get(c) is None]:
                yield UnusableRow(f"no {missing[0]!r}", place)
                continue
            complete = True
            yield Row(fields, place, path.parent)
    except tf.errors.OpError as error:
        raise UnreadableError(f"a damaged TFRecord file: {error.message}") from None
    if not names:
        raise UserError(f"{path}: the file holds no example")
    if not complete:
        require_columns(str(path), columns, sorted(names))


def _feature(feature: Any) -> Any:
    """Return the value of a feature, a list if it has several, None if it has none.

    Bytes that are UTF-8 become text.
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
