"""Read the bytes of a file in a graph: numbers, names and chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

#: Images with more pixels are refused, because a small file may decompress to fill the memory.
MOST_PIXELS = 2**27
#: Files with more chunks are refused, because each costs a step.
MOST_CHUNKS = 2**13

_BYTE = [bytes([value]) for value in range(256)]


class File(NamedTuple):
    """The bytes of a file, ``<string>[]`` and ``<uint8>[size]``, and their number ``<int64>[]``."""

    raw: tf.Tensor
    data: tf.Tensor
    size: tf.Tensor

    @classmethod
    def of(cls, raw: tf.Tensor) -> File:
        data = tf.io.decode_raw(raw, tf.uint8)
        return cls(raw, data, tf.size(data, tf.int64))

    def number(self, at: tf.Tensor | int, count: int, *, big: bool = False) -> tf.Tensor:
        """Return the unsigned number in ``count`` bytes, ``<int64>[]``."""
        data, zeros = self.text(at, count), bytes(8 - count)
        data = tf.strings.join([zeros, data] if big else [data, zeros])
        return tf.reshape(tf.io.decode_raw(data, tf.int64, little_endian=not big), [])

    def text(self, at: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
        """Return ``count`` bytes or as many as there are, ``<string>[]``."""
        at, count = (tf.convert_to_tensor(value, tf.int64) for value in (at, count))
        return tf.strings.substr(self.raw, tf.minimum(at, self.size), count)

    def which(self, at: tf.Tensor, names: list[bytes]) -> tf.Tensor:
        """Return the index of the name that is at a place, ``<int64>[]``; -1 if none is."""
        lengths = tf.constant([len(name) for name in names], tf.int64)
        texts = tf.strings.substr(self.raw, tf.fill([len(names)], at), lengths)
        places = tf.constant(list(range(len(names))), tf.int64)
        return tf.reduce_max(tf.where(texts == tf.constant(names), places, -1))


class Decoded(NamedTuple):
    """Pixels as stored, ``<uint8>[height, width, 3 or 4]``, RGB or RGBA; and metadata that may give
    an orientation, ``<string>[]``, "" if there are none."""

    pixels: tf.Tensor
    exif: tf.Tensor | bytes = b""
    xmp: tf.Tensor | bytes = b""


class Chunk(NamedTuple):
    """What is at a place in a file: which kind (-1: none that is wanted), where its contents begin,
    how many bytes they are, and the place of the next one."""

    kind: tf.Tensor
    begin: tf.Tensor
    count: tf.Tensor
    following: tf.Tensor


def number(data: tf.Tensor, big: tf.Tensor) -> tf.Tensor:
    """Return the unsigned numbers in ``<uint8>[..., bytes]``, ``<int64>[...]``."""
    count = data.shape[-1]
    weights = tf.constant([256**i for i in range(count)], tf.int64)
    weights = tf.where(big, weights[::-1], weights)
    return tf.reduce_sum(tf.cast(data, tf.int64) * weights, axis=-1)


def choose(condition: tf.Tensor, yes: tf.Tensor | int, no: tf.Tensor | int) -> tf.Tensor:
    """Return one of two numbers, ``<int64>[]``."""
    return tf.where(condition, tf.cast(yes, tf.int64), tf.cast(no, tf.int64))


def behind(text: tf.Tensor, at: int) -> tf.Tensor:
    """Return what is in a text from a place on, ``<string>[]``; "" if it is shorter."""
    return tf.strings.substr(text, tf.minimum(at, tf.strings.length(text)), -1)


def bytes_of(values: tf.Tensor) -> tf.Tensor:
    """Return numbers from 0 to 255 as bytes, ``<string>[]``."""
    return tf.strings.reduce_join(tf.gather(_BYTE, tf.clip_by_value(values, 0, 255)))


def encode_number(value: tf.Tensor, count: int) -> tf.Tensor:
    """Return a number as ``count`` little-endian bytes, ``<string>[]``."""
    shifts = tf.constant([256**i for i in range(count)], tf.int64)
    return bytes_of(value // shifts % 256)


def find_chunks(
    file: File, start: tf.Tensor | int, read: Callable[[tf.Tensor], Chunk], kinds: int, header: int
) -> list[tf.Tensor]:
    """Return the contents of the first chunk of each kind, ``<string>[]``; "" if there is none.

    Args:
        read: Reads the chunk at a place.
        header: Bytes of the shortest chunk.
    """

    def more(at: tf.Tensor, found: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        return (at + header <= file.size) & (steps < MOST_CHUNKS)

    def step(at: tf.Tensor, found: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, ...]:
        chunk = read(at)
        new = (tf.range(kinds, dtype=tf.int64) == chunk.kind) & (found[:, 0] < 0)
        found = tf.where(new[:, None], tf.stack([chunk.begin, chunk.count]), found)
        return chunk.following, found, steps + 1

    none = tf.fill([kinds, 2], tf.constant(-1, tf.int64))
    _, found, steps = tf.while_loop(more, step, (tf.cast(start, tf.int64), none, tf.constant(0)))
    require(steps < MOST_CHUNKS)
    return [file.text(*tf.unstack(tf.maximum(place, 0))) for place in tf.unstack(found)]


def whole_palette(colours: tf.Tensor) -> tf.Tensor:
    """Return a palette with as many colours as a byte has values, ``<uint8>[256, 3]``.

    Missing colours are black; but where colours are their own numbers, as grey, so are those.
    """
    grey = tf.cast(tf.tile(tf.range(256)[:, None], [1, 3]), tf.uint8)
    count = tf.shape(colours)[0]
    same = tf.reduce_all(colours == grey[:count])
    missing = tf.where(same, grey[count:], tf.constant(0, tf.uint8))
    return tf.ensure_shape(tf.concat([colours, missing], axis=0), [256, 3])


def require(condition: tf.Tensor) -> tf.Operation:
    """Raise an error when the graph runs, unless the condition is true."""
    return tf.debugging.Assert(condition, ["not a readable image"])


def within_limits(data: tf.Tensor, width: tf.Tensor, height: tf.Tensor) -> tf.Tensor:
    """Return the data of an image, but not before its size is known to be usable.

    Args:
        width: ``<int64>[]``, below 2**32; as is ``height``.
    """
    some = (width > 0) & (height > 0) & (width <= MOST_PIXELS) & (height <= MOST_PIXELS)
    # Ops that have no other effect run in any order: a decoder must wait for this.
    with tf.control_dependencies([require(some & (width * height <= MOST_PIXELS))]):
        return tf.identity(data)
