"""GIF; of an animated one, the first frame."""

from __future__ import annotations

import tensorflow as tf

from pipelines.engine.data.image_formats.file_bytes import (
    MOST_CHUNKS,
    Decoded,
    File,
    require,
    whole_palette,
    within_limits,
)

SIGNATURE = b"GIF8"

_EXTENSION, _IMAGE, _END, _CONTROL = 0x21, 0x2C, 0x3B, 0xF9
#: A palette in which each colour is its own number.
_NUMBERS = bytes(value for index in range(256) for value in (index,) * 3)
#: A frame of one pixel, behind the first one.
_GUARD = b",\0\0\0\0\1\0\1\0\x80" + bytes(6) + b"\2\2\x44\1\0;"


def decode(file: File) -> Decoded:
    """The op has no alpha, reads all frames, and takes what is truncated. So the first frame
    becomes a file of its own, in which the colours are their numbers; a second frame behind it is
    only reached if the first one is whole."""
    ends = _ends(file.data)
    screen = _table(file, tf.constant(13, tf.int64), tf.cast(file.data[10], tf.int32))
    at, transparent = _first_image(file, ends, screen[1])
    require(tf.cast(file.data[at], tf.int32) == _IMAGE)
    left, top, wide, high = (file.number(at + i, 2) for i in (1, 3, 5, 7))
    width, height = (
        tf.maximum(file.number(6, 2), left + wide),
        tf.maximum(file.number(8, 2), top + high),
    )
    flags = tf.cast(file.data[at + 9], tf.int32)
    local = _table(file, at + 10, flags)
    end = tf.cast(ends[local[1] + 1], tf.int64)
    require(end < file.size)
    interlaced = tf.bitwise.bitwise_and(flags, 0x40) > 0
    one = tf.strings.join([
        b"GIF89a", file.text(at + 5, 4), b"\0\0\0,\0\0\0\0", file.text(at + 5, 4),
        tf.where(interlaced, b"\xc7", b"\x87"), _NUMBERS,
        file.text(local[1], end + 1 - local[1]), _GUARD,
    ])  # fmt: skip
    frames = tf.io.decode_gif(within_limits(one, width, height))
    require(tf.shape(frames)[0] == 2)
    around = tf.stack([[top, height - top - high], [left, width - left - wide]])
    numbers = tf.cast(frames[0, :, :, 0], tf.int32)
    numbers = tf.pad(numbers, around, constant_values=tf.maximum(transparent, 0))
    colours = tf.cond(local[2] > 0, lambda: local[0], lambda: screen[0])
    alpha = tf.where(tf.range(256) == transparent, 0, 255)
    colours = tf.concat([colours, tf.cast(alpha, tf.uint8)[:, None]], axis=1)
    return Decoded(tf.gather(colours, numbers))


def _ends(data: tf.Tensor) -> tf.Tensor:
    """Return for each place where a chain of blocks that starts there ends, ``<int32>[size + 1]``.

    The length of each block is before it, and the last one is empty. Each step doubles how many
    blocks are passed.
    """
    size = tf.size(data)
    places = tf.range(size)
    length = tf.cast(data, tf.int32)
    following = tf.where(length == 0, places, tf.minimum(places + 1 + length, size))
    following = tf.concat([following, [size]], axis=0)
    return tf.while_loop(
        lambda following, before: tf.reduce_any(following != before),
        lambda following, before: (tf.gather(following, following), following),
        (tf.gather(following, following), following),
    )[0]


def _table(file: File, at: tf.Tensor, flags: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return a colour table ``<uint8>[256, 3]``, what is behind it, and how many colours it has."""
    there = tf.bitwise.bitwise_and(flags, 0x80) > 0
    count = tf.bitwise.left_shift(2, tf.bitwise.bitwise_and(flags, 7))
    count = tf.cast(tf.where(there, count, 0), tf.int64)
    colours = tf.reshape(tf.slice(file.data, [at], [3 * count]), [-1, 3])
    return whole_palette(colours), at + 3 * count, count


def _first_image(file: File, ends: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return where the first image is, and its transparent colour; -1 if it has none."""

    def byte(at: tf.Tensor) -> tf.Tensor:
        return tf.cast(file.data[at], tf.int32)

    def more(at: tf.Tensor, transparent: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        return (byte(at) != _IMAGE) & (byte(at) != _END) & (steps < MOST_CHUNKS)

    def skip(at: tf.Tensor, transparent: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, ...]:
        def extension() -> tuple[tf.Tensor, tf.Tensor]:
            control = (byte(at + 1) == _CONTROL) & (byte(at + 3) % 2 == 1) & (byte(at + 2) >= 4)
            last = tf.cast(ends[at + 2], tf.int64)
            return last + 1, tf.where(control, byte(at + 6), transparent)

        following, found = tf.cond(byte(at) == _EXTENSION, extension, lambda: (at + 1, transparent))
        return following, found, steps + 1

    at, transparent, _ = tf.while_loop(more, skip, (start, tf.constant(-1), tf.constant(0)))
    return at, transparent
