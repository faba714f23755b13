"""Check, store and decode images.

Training and exports decode images by the same graph of core TensorFlow ops, so that both read the
same files and see the same pixels. Pillow says what is wrong with a file that cannot be decoded.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from functools import cache, partial
from pathlib import Path
from typing import Any

import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import write_bytes
from pipelines.engine.data.image_formats import bmp, gif, jpeg, png, webp
from pipelines.engine.data.image_formats.file_bytes import MOST_PIXELS, Decoded, File, require
from pipelines.engine.data.image_formats.orientation import orientation

#: Counted up when the pixels of some image change, so that features of the old ones are not used.
VERSION = 2
#: The decoders, and their signatures with the places where they are.
_DECODERS: dict[str, tuple[Any, int]] = {
    "JPEG": (jpeg, 0), "PNG": (png, 0), "GIF": (gif, 0), "BMP": (bmp, 0), "WEBP": (webp, 8),
}  # fmt: skip
FORMATS = tuple(_DECODERS)
#: Images more than this many times larger than needed are subsampled before they are resized.
_SUBSAMPLE_ABOVE = 8


def find_defect(raw: bytes) -> str | None:
    """Return in a few words why the bytes are not a usable image; None if they are.

    An image is usable if `decode` can read it.
    """
    try:
        _decode_one(tf.constant(raw), tf.constant(1))
    except (tf.errors.OpError, UnicodeDecodeError):  # a message may have bytes of the file
        return _reason(raw)
    return None


def _reason(raw: bytes) -> str:
    if not raw:
        return "an empty file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels: counted below
            with Image.open(io.BytesIO(raw)) as image:
                kind = "JPEG" if image.format == "MPO" else image.format
                if kind not in FORMATS:
                    return f"a {kind} picture; {', '.join(FORMATS)} can be read"
                width, height = image.size
                if width * height > MOST_PIXELS:
                    return f"too many pixels ({width:,} × {height:,})"
                if kind == "BMP" and image.info["compression"] not in bmp.COMPRESSIONS:
                    return "a compressed BMP picture"
                image.load()
    except Image.DecompressionBombError:
        return f"too many pixels (over {MOST_PIXELS:,})"
    except UnidentifiedImageError:
        return "not a picture"
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if "truncated" in str(error):
            return "a truncated picture"
    return "a damaged picture"


def read(path: Path) -> bytes:
    """Read the bytes of an image file.

    Raises:
        UserError: There is no such file, or it is not a usable image.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # a ValueError: no file can have such a name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {reason}") from None
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


def decode(raw: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode image files of any size to square RGB images.

    Images are resized to a square with antialiasing, ignoring their aspect ratio, rotated by their
    orientation, and put on white where transparent; of an animation, the first frame is used.
    An unreadable file becomes a black image and does not affect the others.

    Args:
        raw: ``<string>[batch]``, the bytes of the files.
        size: Height and width of the result.

    Returns:
        The pixels, ``<float32>[batch, size, size, 3]`` from 0 to 255, and whether each file could
        be read, ``<bool>[batch]``.
    """

    # A dataset that skips errors is the only way to survive a broken file with core ops.
    count = tf.size(raw, tf.int64)
    files = tf.data.Dataset.from_tensor_slices((tf.range(count), raw))
    found = files.map(lambda i, file: (i, _decode_one(file, size)), num_parallel_calls=2)
    found = found.ignore_errors(log_warning=False)
    # One row more, because no batch can be empty.
    last = tf.data.Dataset.from_tensors((count, tf.zeros([size, size, 3])))
    places, pictures = found.concatenate(last).batch(count + 1).get_single_element()
    shape = tf.stack([count + 1, size, size, 3])
    pictures = tf.scatter_nd(places[:, None], pictures, shape)[:-1]
    readable = tf.scatter_nd(places[:, None], tf.fill(tf.shape(places), True), shape[:1])[:-1]
    return tf.ensure_shape(pictures, [None, size, size, 3]), readable


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32)], autograph=False
)
def _decode_one(raw: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Decode a file to ``<float32>[size, size, 3]``, or raise ``InvalidArgumentError``."""
    file = File.of(raw)

    def known(decoder: Any) -> Decoded:
        found: Decoded = decoder.decode(file)
        pixels = _subsample(found.pixels, size)
        opaque = [[0, 0], [0, 0], [0, 4 - pixels.shape[2]]]
        return found._replace(pixels=tf.pad(pixels, opaque, constant_values=255))

    def unknown() -> Decoded:
        require(tf.constant(False))
        return Decoded(tf.zeros([1, 1, 4], tf.uint8))

    starts = [
        tf.strings.substr(tf.strings.join([raw, bytes(at)]), at, len(decoder.SIGNATURE))
        == decoder.SIGNATURE
        for decoder, at in _DECODERS.values()
    ]
    kind = tf.reduce_max(tf.where(tf.stack(starts), tf.range(len(_DECODERS)), -1))
    decoders = [partial(known, decoder) for decoder, _ in _DECODERS.values()]
    found = tf.switch_case(kind, decoders, default=unknown)
    picture = tf.cast(tf.ensure_shape(found.pixels, [None, None, 4]), tf.float32)
    share = picture[..., 3:] / 255.0
    picture = picture[..., :3] * share + 255.0 * (1.0 - share)
    picture = tf.image.resize(picture, tf.stack([size, size]), antialias=True)
    return _upright(picture, orientation(found.exif, found.xmp))


def _subsample(picture: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Drop rows and columns of an image that is far larger than needed."""
    channels = picture.shape[2]
    height, width = tf.unstack(tf.shape(picture)[:2])
    across, down = (tf.maximum(1, n // (_SUBSAMPLE_ABOVE * size)) for n in (width, height))
    picture = tf.strided_slice(picture, [0, 0, 0], tf.shape(picture), tf.stack([down, across, 1]))
    return tf.ensure_shape(picture, [None, None, channels])


def _upright(picture: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotate a square image by its orientation, ``<int64>[]``."""

    def among(*values: int) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(values, tf.int64))

    picture = tf.where(among(5, 6, 7, 8), tf.transpose(picture, [1, 0, 2]), picture)
    picture = tf.where(among(2, 3, 6, 7), tf.reverse(picture, [1]), picture)
    return tf.where(among(3, 4, 7, 8), tf.reverse(picture, [0]), picture)


@cache
def compiled_decoder(size: int) -> tf.types.experimental.GenericFunction:
    """Return `decode` as a compiled graph."""
    return tf.function(
        lambda raw: decode(raw, size),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
