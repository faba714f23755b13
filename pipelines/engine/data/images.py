"""Pictures: what can be used, and the one way from a file's bytes to pixels.

The way is a TensorFlow graph of core ops, for training and in an export alike, so that both see
the same pixels. Whether a file can be used at all, and if not why, is found with Pillow, before.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from functools import cache
from pathlib import Path

import tensorflow as tf
from PIL import Image, ImageFile, UnidentifiedImageError

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import write_bytes

#: What a graph of core ops can decode.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
#: A picture with more pixels is refused: a small file can unpack to fill the memory.
MOST_PIXELS = 2**27
#: Where a JPEG says how it was held, there is a mark, and behind it a tag with its value: of both
#: orders of bytes, the tag (0x0112, type 3, one value) and how far from it the value's low byte is.
_EXIF = b"Exif\0\0"
_ORIENTATION = ((bytes([0x12, 1, 3, 0, 1, 0, 0, 0]), 8), (bytes([1, 0x12, 0, 3, 0, 0, 0, 1]), 9))
#: The mark is in the first segments, none of which is longer.
_HEADER = 2**16
#: Pixels are left out, in rows and columns alike, of pictures so many times as large as wanted.
_ENOUGH = 8


def find_defect(raw: bytes) -> str | None:
    """Why the bytes of a file cannot be used as a picture, in a few words; None if they can."""
    if not raw:
        return "an empty file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels: counted below
            with Image.open(io.BytesIO(raw)) as image:
                if image.format not in FORMATS:
                    return f"a {image.format} picture; {', '.join(FORMATS)} can be read"
                width, height = image.size
                if width * height > MOST_PIXELS:
                    return f"too many pixels ({width:,} × {height:,})"
                # Of a JPEG an eighth of the size is enough to see that all of it is there.
                image.draft("RGB", (1, 1))
                image.load()
    except Image.DecompressionBombError:
        return f"too many pixels (over {MOST_PIXELS:,})"
    except UnidentifiedImageError:
        return "not a picture"
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        return "a truncated picture" if "truncated" in str(error) else "a damaged picture"
    return None


def read(path: Path) -> bytes:
    """The bytes of a picture's file.

    Raises:
        UserError: there is no such file, or it cannot be used, and why.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    if (why := find_defect(raw)) is not None:
        raise UserError(f"{path}: {why}")
    return raw


def digest(raw: bytes) -> str:
    """What tells pictures apart: SHA-256 of the bytes."""
    return hashlib.sha256(raw).hexdigest()


def store(raw: bytes, folder: Path) -> Path:
    """A file of ``folder`` that holds ``raw``; pictures that come in a data set have none."""
    name = digest(raw)
    path = folder / name[:2] / name
    if not path.is_file() or path.stat().st_size != len(raw):
        write_bytes(path, lambda file: file.write(raw))
    return path


def on_white(image: Image.Image) -> bytes:
    """A picture that is transparent in places as PNG, on white."""
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    out = io.BytesIO()
    Image.alpha_composite(white, image).convert("RGB").save(out, "PNG")
    return out.getvalue()


def decode(raw: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Files as pixels, whatever their size and shape: ``<string>[batch]`` → ``<float32>[batch,
    size, size, 3]``, RGB from 0 to 255, and ``<bool>[batch]``, which of them could be read.

    A picture is squeezed to a square (each new pixel is the mean of the old ones around it,
    weighted), upright as its EXIF data say, on white where it is transparent; of a moving one, the
    first is taken. What cannot be read is black, and does not disturb the others.
    """

    def one(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # The only core op that survives a broken file is a data set that leaves it out.
        found = tf.data.Dataset.from_tensors(raw).map(lambda r: (_decoded(r, size), True))
        found = found.ignore_errors(log_warning=False)
        nothing = tf.data.Dataset.from_tensors((tf.zeros([size, size, 3]), False))
        picture, readable = found.concatenate(nothing).take(1).get_single_element()
        return tf.ensure_shape(picture, [size, size, 3]), readable

    signature = (tf.TensorSpec([size, size, 3], tf.float32), tf.TensorSpec([], tf.bool))
    # One more than there are, because a map over nothing has no shape.
    pictures, readable = tf.map_fn(
        one, tf.concat([raw, [""]], axis=0), fn_output_signature=signature, parallel_iterations=2
    )
    return pictures[:-1], readable[:-1]


def _decoded(raw: tf.Tensor, size: int) -> tf.Tensor:
    is_png = tf.strings.substr(raw, 0, 4) == b"\x89PNG"
    is_jpeg = tf.strings.substr(raw, 0, 2) == b"\xff\xd8"

    def png() -> tf.Tensor:
        picture = tf.cast(_thinned(tf.io.decode_png(raw, channels=4), size), tf.float32)
        share = picture[..., 3:]
        # Where a PNG has less than 8 bits and nothing transparent, the op gives their highest
        # number, not 255.
        bits = tf.cast(tf.io.decode_raw(tf.strings.substr(raw, 24, 1), tf.uint8)[0], tf.int32)
        highest = tf.cast(tf.bitwise.left_shift(1, tf.minimum(bits, 8)) - 1, tf.float32)
        share /= tf.where(tf.reduce_all(share == highest), highest, 255.0)
        return _resized(picture[..., :3] * share + 255.0 * (1.0 - share), size)

    def other() -> tf.Tensor:
        picture = tf.io.decode_image(raw, channels=3, expand_animations=False)
        return _resized(_thinned(tf.ensure_shape(picture, [None, None, 3]), size), size)

    picture = tf.cond(is_png, png, other)
    return tf.cond(is_jpeg, lambda: _upright(picture, _orientation(raw)), lambda: picture)


def _thinned(picture: tf.Tensor, size: int) -> tf.Tensor:
    """Without some of the rows and columns of a picture far larger than wanted."""
    channels = picture.shape[2]
    height, width = tf.unstack(tf.shape(picture)[:2])
    across, down = (tf.maximum(1, n // (_ENOUGH * size)) for n in (width, height))
    picture = tf.strided_slice(picture, [0, 0, 0], tf.shape(picture), tf.stack([down, across, 1]))
    return tf.ensure_shape(picture, [None, None, channels])


def _resized(picture: tf.Tensor, size: int) -> tf.Tensor:
    return tf.image.resize(picture, [size, size], antialias=True)


def _orientation(raw: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG, from 1 to 8; 1, as it lies, where it says nothing."""
    data = tf.io.decode_raw(tf.strings.substr(raw, 0, _HEADER), tf.uint8)
    data = tf.concat([data, tf.zeros([16], tf.uint8)], axis=0)
    count = tf.size(data) - 16

    def starts(pattern: bytes) -> tf.Tensor:
        same = [data[i : count + i] == byte for i, byte in enumerate(pattern)]
        return tf.reduce_all(same, axis=0)

    marks = tf.where(starts(_EXIF))
    begin = tf.where(tf.size(marks) > 0, tf.reduce_min(marks), tf.cast(count, tf.int64))
    found = tf.constant(1, tf.int32)
    for tag, distance in _ORIENTATION:
        places = tf.where(starts(tag))
        places = tf.boolean_mask(places, places > begin)
        place = tf.cast(tf.reduce_min(tf.concat([places, [count]], axis=0)), tf.int32)
        value = tf.cast(data[tf.minimum(place + distance, count + 15)], tf.int32)
        found = tf.where((value > 1) & (value <= 8) & (place < count), value, found)
    return found


def _upright(picture: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """A square picture turned as its orientation says."""

    def among(*values: int) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(values))

    picture = tf.where(among(5, 6, 7, 8), tf.transpose(picture, [1, 0, 2]), picture)
    picture = tf.where(among(2, 3, 6, 7), tf.reverse(picture, [1]), picture)
    return tf.where(among(3, 4, 7, 8), tf.reverse(picture, [0]), picture)


@cache
def compiled_decoder(size: int) -> tf.types.experimental.GenericFunction:
    """`decode` as a compiled graph."""
    return tf.function(
        lambda raw: decode(raw, size), input_signature=[tf.TensorSpec([None], tf.string)]
    )


# A truncated file is an error, whatever another library has set.
ImageFile.LOAD_TRUNCATED_IMAGES = False
