"""WebP; of an animated one, the first frame."""

from __future__ import annotations

import tensorflow as tf

from pipelines.engine.data.image_formats.file_bytes import (
    Chunk,
    Decoded,
    File,
    behind,
    choose,
    encode_number,
    find_chunks,
    require,
    within_limits,
)

#: Behind the signature of RIFF and the file's size.
SIGNATURE = b"WEBP"

_EXTENDED = b"VP8X"
_ANIMATED, _XMP, _EXIF, _ALPHA = 0x02, 0x04, 0x08, 0x10
#: Bytes before the image of a frame: place, size, duration and flags.
_FRAME = 16


def decode(file: File) -> Decoded:
    width, height = _size(file)
    kinds = [b"ANMF", b"EXIF", b"XMP "]
    frame, *metadata = find_chunks(file, 12, lambda at: _chunk(file, at, kinds), len(kinds), 8)
    animated = _has(file, _ANIMATED)
    still = File.of(tf.cond(animated, lambda: _as_file(frame), lambda: file.raw))
    raw = within_limits(within_limits(still.raw, width, height), *_size(still))
    still = still._replace(raw=raw)
    picture = tf.cond(_has_alpha(still), lambda: _decode(still, 4), lambda: _decode(still, 3))
    picture = tf.ensure_shape(picture, [None, None, 4])

    def on_canvas() -> tf.Tensor:
        left, top = (2 * File.of(frame).number(at, 3) for at in (0, 3))
        high, wide = tf.unstack(tf.shape(picture, tf.int64)[:2])
        require((left + wide <= width) & (top + high <= height))
        around = tf.stack([[top, height - top - high], [left, width - left - wide], [0, 0]])
        whole = tf.pad(picture, around)
        # Without the flag, what the frame does not cover is black.
        alpha = tf.where(_has(file, _ALPHA), whole[..., 3:], tf.constant(255, tf.uint8))
        return tf.concat([whole[..., :3], alpha], axis=-1)

    picture = tf.cond(animated, on_canvas, lambda: picture)
    exif, xmp = (
        tf.where(_has(file, flag), data, b"")
        for flag, data in zip((_EXIF, _XMP), metadata, strict=True)
    )
    return Decoded(picture, exif, xmp)


def _has(file: File, flag: int) -> tf.Tensor:
    flags = tf.cast(file.data[20], tf.int32)
    return (file.text(12, 4) == _EXTENDED) & (tf.bitwise.bitwise_and(flags, flag) > 0)


def _decode(still: File, channels: int) -> tf.Tensor:
    """Decode to RGBA; the op takes no other number of channels than the file has."""
    picture = tf.io.decode_image(still.raw, channels, expand_animations=False)
    picture = tf.ensure_shape(picture, [None, None, channels])
    return tf.pad(picture, [[0, 0], [0, 0], [0, 4 - channels]], constant_values=255)


def _has_alpha(file: File) -> tf.Tensor:
    kinds = [b"VP8L", b"ALPH"]
    lossless, alpha = find_chunks(file, 12, lambda at: _chunk(file, at, kinds), len(kinds), 8)
    bits = tf.io.decode_raw(
        tf.strings.join([tf.strings.substr(lossless, 0, 5), bytes(5)]), tf.uint8
    )
    used = tf.bitwise.bitwise_and(bits[4], 0x10) > 0
    return (alpha != b"") | tf.where(lossless != b"", used, _has(file, _ALPHA))


def _size(file: File) -> tuple[tf.Tensor, tf.Tensor]:
    lossy, lossless, extended = (file.text(12, 4) == n for n in (b"VP8 ", b"VP8L", _EXTENDED))
    require((file.text(0, 4) == b"RIFF") & (lossy | lossless | extended))

    def packed() -> tuple[tf.Tensor, tf.Tensor]:
        both = file.number(choose(lossy, 26, 21), 4)
        height = both // choose(lossy, 2**16, 2**14)
        less = choose(lossy, 0, 1)
        return both % 2**14 + less, height % 2**14 + less

    def whole() -> tuple[tf.Tensor, tf.Tensor]:
        return file.number(24, 3) + 1, file.number(27, 3) + 1

    width, height = tf.cond(extended, whole, packed)
    return width, height


def _as_file(frame: tf.Tensor) -> tf.Tensor:
    """Return a frame as a file of its own, because the op damages memory when it decodes some
    animations."""
    require(tf.strings.length(frame) > _FRAME)
    size, chunks = tf.strings.substr(frame, 6, 6), behind(frame, _FRAME)
    head = [_EXTENDED, bytes([10, 0, 0, 0]), bytes([_ALPHA, 0, 0, 0])]
    body = tf.strings.join([SIGNATURE, *head, size, chunks])
    length = encode_number(tf.cast(tf.strings.length(body), tf.int64), 4)
    return tf.strings.join([b"RIFF", length, body])


def _chunk(file: File, at: tf.Tensor, kinds: list[bytes]) -> Chunk:
    count = file.number(at + 4, 4)
    return Chunk(file.which(at, kinds), at + 8, count, at + 8 + count + count % 2)
