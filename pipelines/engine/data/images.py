"""Check, store and decode images.

Training and exports decode images by the same graph of core TensorFlow ops, so that both see the
same pixels. Pillow checks beforehand whether a file is usable.
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

#: The formats that core ops can decode.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
#: Images with more pixels are refused, because a small file may decompress to fill the memory.
MOST_PIXELS = 2**27
#: The orientation of a JPEG follows a marker as a tag with a value: for both byte orders, the tag
#: (0x0112, type 3, one value) and the offset from it to the low byte of the value.
_EXIF = b"Exif\0\0"
_ORIENTATION = ((bytes([0x12, 1, 3, 0, 1, 0, 0, 0]), 8), (bytes([1, 0x12, 0, 3, 0, 0, 0, 1]), 9))
#: The marker is in the first segments, none of which is longer.
_HEADER = 2**16
#: Images more than this many times larger than needed are subsampled before they are resized.
_SUBSAMPLE_ABOVE = 8


def find_defect(raw: bytes) -> str | None:
    """Return in a few words why the bytes are not a usable image; None if they are."""
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
    """Read the bytes of an image file.

    Raises:
        UserError: There is no such file, or it is not a usable image.
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
    """Return the SHA-256 of the bytes, which identifies an image."""
    return hashlib.sha256(raw).hexdigest()


def store(raw: bytes, folder: Path) -> Path:
    """Write an image from a data set, which has no file, to ``folder``, and return its path."""
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
    """Decode image files of any size to square RGB images.

    Images are resized to a square with antialiasing, ignoring their aspect ratio, rotated by their
    EXIF orientation, and put on white where transparent; of an animation, the first frame is used.
    An unreadable file becomes a black image and does not affect the others.

    Args:
        raw: ``<string>[batch]``, the bytes of the files.
        size: Height and width of the result.

    Returns:
        The pixels, ``<float32>[batch, size, size, 3]`` from 0 to 255, and whether each file could
        be read, ``<bool>[batch]``.
    """

    def one(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # A dataset that skips errors is the only way to survive a broken file with core ops.
        found = tf.data.Dataset.from_tensors(raw).map(lambda r: (_decode_one(r, size), True))
        found = found.ignore_errors(log_warning=False)
        nothing = tf.data.Dataset.from_tensors((tf.zeros([size, size, 3]), False))
        picture, readable = found.concatenate(nothing).take(1).get_single_element()
        return tf.ensure_shape(picture, [size, size, 3]), readable

    signature = (tf.TensorSpec([size, size, 3], tf.float32), tf.TensorSpec([], tf.bool))
    # One file more, because mapping over an empty batch gives no shape.
    pictures, readable = tf.map_fn(
        one, tf.concat([raw, [""]], axis=0), fn_output_signature=signature, parallel_iterations=2
    )
    return pictures[:-1], readable[:-1]


def _decode_one(raw: tf.Tensor, size: int) -> tf.Tensor:
    is_png = tf.strings.substr(raw, 0, 4) == b"\x89PNG"
    is_jpeg = tf.strings.substr(raw, 0, 2) == b"\xff\xd8"

    def png() -> tf.Tensor:
        picture = tf.cast(_subsample(tf.io.decode_png(raw, channels=4), size), tf.float32)
        share = picture[..., 3:]
        # For opaque PNGs of less than 8 bits, the op sets alpha to their highest value, not 255.
        bits = tf.cast(tf.io.decode_raw(tf.strings.substr(raw, 24, 1), tf.uint8)[0], tf.int32)
        highest = tf.cast(tf.bitwise.left_shift(1, tf.minimum(bits, 8)) - 1, tf.float32)
        share /= tf.where(tf.reduce_all(share == highest), highest, 255.0)
        return _resize(picture[..., :3] * share + 255.0 * (1.0 - share), size)

    def other() -> tf.Tensor:
        picture = tf.io.decode_image(raw, channels=3, expand_animations=False)
        return _resize(_subsample(tf.ensure_shape(picture, [None, None, 3]), size), size)

    picture = tf.cond(is_png, png, other)
    return tf.cond(is_jpeg, lambda: _upright(picture, _orientation(raw)), lambda: picture)


def _subsample(picture: tf.Tensor, size: int) -> tf.Tensor:
    """Drop rows and columns of an image that is far larger than needed."""
    channels = picture.shape[2]
    height, width = tf.unstack(tf.shape(picture)[:2])
    across, down = (tf.maximum(1, n // (_SUBSAMPLE_ABOVE * size)) for n in (width, height))
    picture = tf.strided_slice(picture, [0, 0, 0], tf.shape(picture), tf.stack([down, across, 1]))
    return tf.ensure_shape(picture, [None, None, channels])


def _resize(picture: tf.Tensor, size: int) -> tf.Tensor:
    return tf.image.resize(picture, [size, size], antialias=True)


def _orientation(raw: tf.Tensor) -> tf.Tensor:
    """Return the EXIF orientation of a JPEG, from 1 to 8; 1 (upright) if it has none."""
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
    """Rotate a square image by its EXIF orientation."""

    def among(*values: int) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(values))

    picture = tf.where(among(5, 6, 7, 8), tf.transpose(picture, [1, 0, 2]), picture)
    picture = tf.where(among(2, 3, 6, 7), tf.reverse(picture, [1]), picture)
    return tf.where(among(3, 4, 7, 8), tf.reverse(picture, [0]), picture)


@cache
def compiled_decoder(size: int) -> tf.types.experimental.GenericFunction:
    """Return `decode` as a compiled graph."""
    return tf.function(
        lambda raw: decode(raw, size), input_signature=[tf.TensorSpec([None], tf.string)]
    )


# A truncated file is an error, whatever another library has set.
ImageFile.LOAD_TRUNCATED_IMAGES = False
