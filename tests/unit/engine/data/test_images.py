"""Pictures: every format, upright, on white; and what is none is told, and disturbs no other."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipelines.engine.core.errors import UserError
from pipelines.engine.data import images
from tests.support.pictures import claims, encoded, scene

SIZE = 64


def pixels(*raw: bytes) -> tuple[np.ndarray, list[bool]]:
    found, readable = images.compiled_decoder(SIZE)(tf.constant(list(raw), tf.string))
    return found.numpy(), readable.numpy().tolist()


def resized(image: Image.Image) -> np.ndarray:
    """As Pillow does it."""
    return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR), float)


def test_pixels_are_those_of_another_reader():
    (found,), (readable,) = pixels(encoded(scene()))
    assert readable
    np.testing.assert_allclose(found, resized(scene()), atol=1.5)


@pytest.mark.parametrize(
    ("image", "kind", "far"),
    [
        (scene(), "JPEG", 4),
        (scene().convert("CMYK"), "JPEG", 4),
        (scene().convert("L"), "JPEG", 4),
        (scene(), "BMP", 1.5),
        (scene(), "WEBP", 8),
        (scene().convert("P"), "PNG", 1.5),
        (scene().convert("P"), "GIF", 1.5),
        (scene().convert("LA"), "PNG", 1.5),
        (scene().convert("1"), "PNG", 1.5),
    ],
)
def test_every_format_is_read(image, kind, far):
    raw = encoded(image, kind)
    assert images.find_defect(raw) is None
    (found,), (readable,) = pixels(raw)
    assert readable
    assert np.abs(found - resized(image)).mean() < far


def test_sixteen_bits_are_read_as_eight():
    grey = np.asarray(scene().convert("L"))
    raw = encoded(Image.fromarray(grey.astype("uint16") * 257))
    assert images.find_defect(raw) is None
    np.testing.assert_allclose(pixels(raw)[0], pixels(encoded(scene().convert("L")))[0], atol=1)


def test_of_a_moving_picture_the_first_is_taken():
    frames = [scene().convert("P"), scene().rotate(90).convert("P")]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert images.find_defect(moving) is None
    np.testing.assert_array_equal(pixels(moving)[0], pixels(encoded(frames[0], "GIF"))[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("endian", "<>")
def test_exif_says_which_way_is_up(orientation, endian):
    exif = Image.Exif()
    exif[0x0112], exif.endian = orientation, endian
    exif[0x010F] = "a maker"
    raw = encoded(scene(), "JPEG", quality=95, exif=exif)
    with Image.open(io.BytesIO(raw)) as image:
        upright = resized(ImageOps.exif_transpose(image))
    (found,), _ = pixels(raw)
    assert np.abs(found - upright).mean() < 3


def test_what_is_transparent_is_on_white():
    image = scene().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    white = Image.new("RGBA", image.size, "white")
    np.testing.assert_allclose(
        pixels(encoded(image))[0][0], resized(Image.alpha_composite(white, image)), atol=2.5
    )
    (found,), _ = pixels(encoded(Image.new("RGBA", (9, 9), (0, 0, 0, 0))))
    np.testing.assert_allclose(found, 255.0, rtol=1e-6)


JPEG = encoded(scene(), "JPEG")
PNG = encoded(scene())
BROKEN = {
    "an empty file": b"",
    "not a picture": b"This is a text.\n",
    "a truncated picture": JPEG[: len(JPEG) // 2],
    "a TIFF picture": encoded(scene(), "TIFF"),
    "too many pixels (12,000 × 12,000)": claims(12_000, 12_000),
    "too many pixels": claims(60_000, 60_000),
}


@pytest.mark.parametrize("why", BROKEN)
def test_what_cannot_be_used_is_told(why, tmp_path):
    assert images.find_defect(BROKEN[why]).startswith(why)
    path = tmp_path / "photo.jpg"
    path.write_bytes(BROKEN[why])
    with pytest.raises(UserError, match=r"photo\.jpg: ") as caught:
        images.read(path)
    assert why in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        images.read(tmp_path / "other.jpg")


def test_a_broken_picture_disturbs_no_other():
    found, readable = pixels(PNG, *BROKEN.values(), PNG[: len(PNG) // 2], JPEG)
    assert readable == [True, *[False] * (len(BROKEN) + 1), True]
    np.testing.assert_array_equal(found[1:-1], 0)
    np.testing.assert_array_equal(found[[0, -1]], pixels(PNG, JPEG)[0])
    assert pixels()[0].shape == (0, SIZE, SIZE, 3)


@settings(max_examples=60)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG", JPEG[:400], b"BM"]))
def test_no_bytes_at_all_are_a_crash(tail, head):
    raw = head + tail
    _, (first, last) = pixels(raw, PNG)
    assert last
    if images.find_defect(raw) is None:
        assert first


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from(["PNG", "JPEG"]))
def test_any_size_is_one_size(width, height, kind):
    raw = encoded(Image.new("RGB", (width, height), (200, 100, 50)), kind)
    (found,), (readable,) = pixels(raw)
    assert readable
    np.testing.assert_allclose(found, np.broadcast_to([200, 100, 50], found.shape), atol=4)


def test_pictures_without_a_file_are_kept_by_their_bytes(tmp_path):
    path = images.store(PNG, tmp_path)
    assert path.read_bytes() == PNG
    assert images.store(PNG, tmp_path) == path
    path.write_bytes(PNG[:10])
    assert images.store(PNG, tmp_path).read_bytes() == PNG
    assert images.store(JPEG, tmp_path) != path
