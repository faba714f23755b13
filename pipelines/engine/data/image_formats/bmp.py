"""Uncompressed BMP of 1 to 32 bits per pixel."""

from __future__ import annotations

import tensorflow as tf

from pipelines.engine.data.image_formats.file_bytes import (
    Decoded,
    File,
    choose,
    number,
    require,
    whole_palette,
    within_limits,
)

SIGNATURE = b"BM"

_OS2 = 12
_HEADERS = [_OS2, 40, 52, 56, 64, 108, 124]
#: Pixels as they are, and with masks of their colours.
COMPRESSIONS = _PLAIN, _MASKED = 0, 3
#: Where the masks of red, green, blue and alpha are, in headers that have them.
_MASKS = 54
_555, _565 = [0x7C00, 0x3E0, 0x1F], [0xF800, 0x7E0, 0x1F]
_BYTES = [0xFF << 8 * i for i in range(4)]


def decode(file: File) -> Decoded:
    header = file.number(14, 4)
    require(tf.reduce_any(header == tf.constant(_HEADERS, tf.int64)))
    old = header == _OS2
    width, height, bits, compression, colours, upwards = tf.cond(
        old, lambda: _old_header(file), lambda: _header(file)
    )
    file = file._replace(data=within_limits(file.data, width, height))
    require((compression == _PLAIN) | ((compression == _MASKED) & (bits >= 16)))
    require(tf.reduce_any(bits == tf.constant([1, 4, 8, 16, 24, 32], tf.int64)))
    colours = tf.where(
        colours == 0, tf.bitwise.left_shift(tf.constant(1, tf.int64), tf.minimum(bits, 8)), colours
    )
    each = choose(old, 3, 4)
    offset = file.number(10, 4)
    behind = 14 + header + choose(bits <= 8, each * colours, 0)
    offset = tf.where((offset == 0) | (offset == 14 + header), behind, offset)
    rows = _rows(file, offset, width, height, bits)
    picture = tf.cond(
        bits <= 8,
        lambda: _from_palette(file, rows, 14 + header, each, colours, bits),
        lambda: tf.cond(
            bits == 16,
            lambda: _from_words(file, rows, compression),
            lambda: _from_bytes(file, rows, header, compression, bits // 8),
        ),
    )
    picture = tf.ensure_shape(picture[:, :width], [None, None, 4])
    return Decoded(tf.cond(upwards, lambda: picture[::-1], lambda: picture))


def _old_header(file: File) -> tuple[tf.Tensor, ...]:
    zero = tf.constant(0, tf.int64)
    width, height, bits = (file.number(at, 2) for at in (18, 20, 24))
    return width, height, bits, zero, zero, tf.constant(True)


def _header(file: File) -> tuple[tf.Tensor, ...]:
    width, height, compression, colours = (file.number(at, 4) for at in (18, 22, 30, 46))
    downwards = file.data[25] == 0xFF  # a negative height
    height = tf.where(downwards, 2**32 - height, height)
    return width, height, file.number(28, 2), compression, colours, ~downwards


def _rows(
    file: File, offset: tf.Tensor, width: tf.Tensor, height: tf.Tensor, bits: tf.Tensor
) -> tf.Tensor:
    """Return the bytes of the rows, each filled up to four: ``<uint8>[height, bytes]``."""
    used, stride = (width * bits + 7) // 8, (width * bits + 31) // 32 * 4
    count = stride * (height - 1) + used
    data = tf.slice(file.data, [offset], [count])
    return tf.reshape(tf.pad(data, [[0, stride - used]]), tf.stack([height, stride]))


def _from_palette(
    file: File, rows: tf.Tensor, at: tf.Tensor, each: tf.Tensor, colours: tf.Tensor, bits: tf.Tensor
) -> tf.Tensor:
    palette = tf.slice(file.data, [at], [each * colours])
    palette = whole_palette(tf.reshape(palette, tf.stack([-1, each]))[:256, 2::-1])
    palette = tf.pad(palette, [[0, 0], [0, 1]], constant_values=255)
    per_byte = tf.cast(8 // bits, tf.int32)
    shifts = tf.cast(bits, tf.int32) * tf.range(per_byte - 1, -1, -1)
    highest = tf.bitwise.left_shift(1, tf.cast(bits, tf.int32)) - 1
    shifted = tf.bitwise.right_shift(tf.cast(rows, tf.int32)[..., None], shifts)
    numbers = tf.bitwise.bitwise_and(shifted, highest)
    return tf.gather(palette, tf.reshape(numbers, tf.stack([tf.shape(rows)[0], -1])))


def _from_words(file: File, rows: tf.Tensor, compression: tf.Tensor) -> tf.Tensor:
    """Five bits per colour, or six of green."""

    def masks() -> tf.Tensor:
        return tf.stack([file.number(_MASKS + 4 * i, 4) for i in range(3)])

    masked = tf.cond(compression == _MASKED, masks, lambda: tf.constant(_555, tf.int64))
    six = tf.reduce_all(masked == tf.constant(_565, tf.int64))
    require(six | tf.reduce_all(masked == tf.constant(_555, tf.int64)))
    pairs = tf.reshape(rows, tf.stack([tf.shape(rows)[0], -1, 2]))
    word = tf.cast(number(tf.ensure_shape(pairs, [None, None, 2]), tf.constant(False)), tf.int32)
    shifts = tf.where(six, [11, 5, 0], [10, 5, 0])
    highest = tf.where(six, [31, 63, 31], [31, 31, 31])
    values = tf.bitwise.bitwise_and(tf.bitwise.right_shift(word[..., None], shifts), highest)
    picture = tf.cast(values * 255 // highest, tf.uint8)
    return tf.pad(picture, [[0, 0], [0, 0], [0, 1]], constant_values=255)


def _from_bytes(
    file: File, rows: tf.Tensor, header: tf.Tensor, compression: tf.Tensor, each: tf.Tensor
) -> tf.Tensor:
    """A byte per colour, in an order that masks may give."""
    plain = tf.constant([2, 1, 0, -1], tf.int64)

    def masked() -> tf.Tensor:
        masks = [file.number(_MASKS + 4 * i, 4) for i in range(3)]
        alpha = tf.cond(
            header >= 56, lambda: file.number(_MASKS + 12, 4), lambda: tf.zeros([], tf.int64)
        )
        masks = tf.stack([*masks, alpha])
        same = masks[:, None] == tf.constant(_BYTES, tf.int64)
        places = tf.where(tf.reduce_any(same, 1), tf.argmax(tf.cast(same, tf.int32), 1), -1)
        none = tf.reduce_all(masks == 0)
        require(none | (tf.reduce_all(places[:3] >= 0) & ((places[3] >= 0) | (alpha == 0))))
        return tf.where(none, tf.constant([2, 1, 0, 3], tf.int64), places)

    order = tf.cond(compression == _MASKED, masked, lambda: plain)
    require(tf.reduce_all(order < each))
    height, stride = tf.unstack(tf.shape(rows, tf.int64))
    width = stride // each
    picture = tf.reshape(rows[:, : width * each], tf.stack([height, width, each]))
    picture = tf.pad(picture, [[0, 0], [0, 0], [0, 1]], constant_values=255)
    return tf.gather(picture, tf.where(order < 0, each, order), axis=2)
