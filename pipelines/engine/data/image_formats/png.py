"""PNG of every colour type and depth; of an animated one, the default image."""

from __future__ import annotations

import tensorflow as tf

from pipelines.engine.data.image_formats.file_bytes import (
    Chunk,
    Decoded,
    File,
    behind,
    bytes_of,
    find_chunks,
    require,
    within_limits,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: Chunks by their names, and texts also by their keywords.
_XMP = b"iTXtXML:com.adobe.xmp\0"
_PROFILE = b"Raw profile type exif\0"
_CHUNKS = [b"tRNS", b"eXIf", _XMP, b"tEXt" + _PROFILE, b"zTXt" + _PROFILE]
#: Longer compressed texts are refused: they may decompress to a thousand times as much.
_MOST_COMPRESSED = 2**16
#: As much of a text as is looked at.
_MOST_TEXT = 2**18


def decode(file: File) -> Decoded:
    width, height = (file.number(at, 4, big=True) for at in (16, 20))
    chunks = find_chunks(file, 8, lambda at: _chunk(file, at), len(_CHUNKS), 12)
    transparency, exif, xmp, plain, compressed = chunks
    picture = tf.io.decode_png(within_limits(file.raw, width, height), channels=4)
    depth = file.number(24, 1)
    picture = tf.cond(depth < 8, lambda: _opaque(picture, depth, transparency), lambda: picture)

    def profile() -> tf.Tensor:
        text = tf.cond(
            compressed != b"", lambda: _decompress(compressed, len(_PROFILE) + 1), lambda: plain
        )
        return tf.cond(text != b"", lambda: _from_hexadecimal(text), lambda: b"")

    exif = tf.cond(exif != b"", lambda: exif, profile)
    return Decoded(picture, exif, tf.cond(xmp != b"", lambda: _text(xmp), lambda: b""))


def _opaque(picture: tf.Tensor, depth: tf.Tensor, transparency: tf.Tensor) -> tf.Tensor:
    """Make opaque what is: for images of less than 8 bits without transparency, the op sets alpha
    to their highest value, not 255."""
    highest = tf.cast(tf.bitwise.left_shift(tf.constant(1, tf.int64), depth) - 1, tf.uint8)
    filled = tf.reduce_all(picture[..., 3] == highest)
    # If the op ignored a damaged chunk, alpha is unknown.
    require(~filled | (transparency == b""))
    alpha = tf.where(filled, tf.constant(255, tf.uint8), picture[..., 3:])
    return tf.concat([picture[..., :3], alpha], axis=-1)


def _chunk(file: File, at: tf.Tensor) -> Chunk:
    count = file.number(at, 4, big=True)
    following = tf.where(file.text(at + 4, 4) == b"IEND", file.size, at + 12 + count)
    return Chunk(file.which(at + 4, _CHUNKS), at + 8, count, following)


def _decompress(data: tf.Tensor, start: int) -> tf.Tensor:
    data = behind(data, start)
    require(tf.strings.length(data) <= _MOST_COMPRESSED)
    return tf.io.decode_compressed(data, "ZLIB")


def _text(chunk: tf.Tensor) -> tf.Tensor:
    """Return the text of an iTXt chunk, which may be compressed."""
    at = len(_XMP) - len(b"iTXt")
    flag = tf.strings.substr(chunk, at, 1)
    # Behind the flag and the method: the language and the translated keyword.
    text = tf.strings.regex_replace(behind(chunk, at + 2), r"^[^\x00]*\x00[^\x00]*\x00", "")
    return tf.cond(flag == b"\0", lambda: text, lambda: _decompress(text, 0))


def _from_hexadecimal(text: tf.Tensor) -> tf.Tensor:
    """Return the bytes that ImageMagick writes as digits, behind three lines."""
    lines = tf.strings.split(tf.strings.substr(text, 0, _MOST_TEXT), "\n")[3:]
    digits = tf.io.decode_raw(tf.strings.lower(tf.strings.reduce_join(lines)), tf.uint8)
    values = tf.cast(digits, tf.int32)
    values -= tf.where(values >= ord("a"), ord("a") - 10, ord("0"))
    pairs = tf.reshape(values[: tf.size(values) // 2 * 2], [-1, 2])
    return bytes_of(pairs[:, 0] * 16 + pairs[:, 1])
