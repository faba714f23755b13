"""JPEG in grey, colour or CMYK, and the first image of a Multi-Picture Format file."""

from __future__ import annotations

import tensorflow as tf

from pipelines.engine.data.image_formats.file_bytes import (
    Chunk,
    Decoded,
    File,
    choose,
    find_chunks,
    within_limits,
)

SIGNATURE = b"\xff\xd8\xff"

_SEGMENTS = [b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"]
_APP1, _START_OF_SCAN = 0xE1, 0xDA
#: Markers without contents.
_BARE = [0x00, 0x01, *range(0xD0, 0xDA)]


def decode(file: File) -> Decoded:
    height, width, _ = tf.unstack(tf.cast(tf.io.extract_jpeg_shape(file.raw), tf.int64))
    raw = within_limits(file.raw, width, height)
    picture = tf.io.decode_jpeg(raw, channels=3, dct_method="INTEGER_ACCURATE")
    exif, xmp = find_chunks(file, 2, lambda at: _segment(file, at), len(_SEGMENTS), 4)
    return Decoded(picture, exif, xmp)


def _segment(file: File, at: tf.Tensor) -> Chunk:
    mark, kind = (tf.cast(file.data[at + i], tf.int32) for i in range(2))
    count = file.number(at + 2, 2, big=True)
    bare = tf.reduce_any(kind == tf.constant(_BARE))
    # Bytes between segments are skipped, and 0xFF may be repeated.
    length = choose((mark != 0xFF) | (kind == 0xFF), 1, choose(bare, 2, 2 + count))
    app1 = (mark == 0xFF) & (kind == _APP1)
    found = choose(app1, file.which(at + 4, _SEGMENTS), -1)
    following = choose((mark == 0xFF) & (kind == _START_OF_SCAN), file.size, at + length)
    return Chunk(found, at + 4, tf.maximum(count - 2, 0), following)
