"""The orientation that EXIF or XMP metadata give an image: from 1 to 8, where 1 is upright."""

from __future__ import annotations

import tensorflow as tf

from pipelines.engine.data.image_formats.file_bytes import number

_PREFIX = b"Exif\0\0"
#: The start of EXIF data in either byte order; some writers swap the two bytes behind it.
_LITTLE = (b"II*\0", b"II\0*")
_BIG = (b"MM\0*", b"MM*\0")
_TAG = 0x0112
#: The types of integers in EXIF by their bytes.
_SHORT, _LONG = (3, 8), (4, 9)
#: \C is any byte, whatever the encoding.
_XMP = r'^\C*?tiff:Orientation(?:="|>)([0-9])\C*$'


def orientation(exif: tf.Tensor, xmp: tf.Tensor) -> tf.Tensor:
    """Return the orientation, ``<int64>[]``; EXIF goes before XMP.

    Args:
        exif: EXIF data ``<string>[]``, with or without its prefix; "" if there is none.
        xmp: XMP data ``<string>[]``; "" if there is none.
    """
    found = _from_exif(exif)
    found = tf.cond(found < 0, lambda: _from_xmp(xmp), lambda: found)
    return tf.where((found > 1) & (found <= 8), found, 1)


def _from_exif(exif: tf.Tensor) -> tf.Tensor:
    """Return the value of the tag in the first directory, which is that of the image itself; -1 if
    it has none."""
    for _ in range(2):
        prefixed = tf.strings.substr(exif, 0, len(_PREFIX)) == _PREFIX
        exif = tf.strings.substr(exif, tf.where(prefixed, len(_PREFIX), 0), -1)
    start = tf.strings.substr(exif, 0, 4)
    big = tf.reduce_any(start == tf.constant(_BIG))
    known = big | tf.reduce_any(start == tf.constant(_LITTLE))
    data = tf.io.decode_raw(exif, tf.uint8)
    none = tf.constant(-1, tf.int64)

    def table() -> tf.Tensor:
        size = tf.size(data, tf.int64)
        first = tf.minimum(number(tf.slice(data, [4], [4]), big), size - 2)
        count = number(tf.slice(data, [first], [2]), big)
        count = tf.minimum(count, (size - first - 2) // 12)
        entries = tf.reshape(tf.slice(data, [first + 2], [count * 12]), [-1, 12])
        tag, kind = number(entries[:, :2], big), number(entries[:, 2:4], big)
        short, long = (tf.reduce_any(kind[:, None] == tf.constant(k, tf.int64), 1)
                       for k in (_SHORT, _LONG))  # fmt: skip
        single = number(entries[:, 4:8], big) == 1
        value = tf.where(short, number(entries[:, 8:10], big), number(entries[:, 8:12], big))
        value = tf.boolean_mask(value, (tag == _TAG) & single & (short | long))
        return tf.concat([value, [none]], axis=0)[0]

    return tf.cond(known & (tf.size(data) >= 10), table, lambda: none)


def _from_xmp(xmp: tf.Tensor) -> tf.Tensor:
    def digit() -> tf.Tensor:
        found = tf.strings.regex_replace(xmp, _XMP, r"\1")
        return tf.strings.to_number(found, tf.int64)

    none = tf.constant(-1, tf.int64)
    return tf.cond(tf.strings.regex_full_match(xmp, _XMP), digit, lambda: none)
