"""Pictures: every format, upright, on white; and what is none is told, and disturbs no other."""

from __future__ import annotations

import itertools
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.engine.core.errors import UserError
from pipelines.engine.data import images
from tests.support.pictures import (
    as_pillow_sees,
    bmp,
    claims,
    encoded,
    exif_of,
    scene,
    with_chunk,
    xmp_of,
)

SIZE = 64


def pixels(*raw: bytes) -> tuple[np.ndarray, list[bool]]:
    found, readable = images.compiled_decoder(SIZE)(tf.constant(list(raw), tf.string))
    return found.numpy(), readable.numpy().tolist()


def resized(image: Image.Image) -> np.ndarray:
    """As Pillow does it."""
    return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR), float)


def read_by_both(*raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The pixels as we see them and as Pillow does."""
    found, readable = pixels(*raw)
    assert all(readable)
    assert [images.find_defect(file) for file in raw] == [None] * len(raw)
    return found, np.stack([resized(as_pillow_sees(file)) for file in raw])


sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))
orientations = st.integers(1, 8)


@st.composite
def pictures(draw, mode: str, size=sizes) -> Image.Image:
    """Colours and transparencies without any symmetry, in a mode of Pillow."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    few = Image.fromarray(rng.integers(0, 256, (4, 5, 4), dtype="uint8"))
    image = few.resize(draw(size), Image.Resampling.BICUBIC)
    if mode in ("RGBA", "LA"):
        return image.convert(mode)
    image = image.convert("RGB")
    return image.quantize(draw(st.integers(2, 256))) if mode == "P" else image.convert(mode)


@st.composite
def metadata(draw) -> tuple[bytes, bytes]:
    """EXIF and XMP data that are there or not; an orientation of a thumbnail does not count."""
    thumbnail = draw(st.none() | orientations)
    order = draw(st.sampled_from("<>"))
    exif = exif_of(draw(orientations), endian=order, thumbnail=thumbnail)
    return draw(st.sampled_from([b"", exif])), draw(st.sampled_from([b"", xmp_of(6), xmp_of(4)]))


@st.composite
def pngs(draw) -> bytes:
    mode = draw(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA"]))
    image = draw(pictures(mode))
    bits = draw(st.sampled_from([1, 2, 4, 8])) if mode == "P" else 8
    settings = {"bits": bits} if mode == "P" else {}
    if mode == "P":
        image = image.convert("RGB").quantize(2**bits)
    if mode in ("1", "L", "P", "RGB") and draw(st.booleans()):
        settings["transparency"] = image.getpixel((0, 0))  # one transparent colour
    elif mode == "P" and draw(st.booleans()):
        alphas = st.lists(st.sampled_from([0, 90, 255]), min_size=2**bits, max_size=2**bits)
        settings["transparency"] = bytes(draw(alphas))
    exif, xmp = draw(metadata())
    raw = encoded(image, "PNG", exif=exif, **settings)
    return with_chunk(raw, b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp) if xmp else raw


@st.composite
def jpegs(draw) -> bytes:
    kind = draw(st.sampled_from(["JPEG", "MPO"]))
    mode = draw(st.sampled_from(["L", "RGB"] + ["CMYK"] * (kind == "JPEG")))
    exif, xmp = draw(metadata())
    more = {"progressive": draw(st.booleans()), "quality": draw(st.sampled_from([50, 90]))}
    if kind == "MPO":
        more |= {"save_all": True, "append_images": [draw(pictures(mode))]}
    exif = b"Exif\0\0" + exif if exif else exif
    return encoded(draw(pictures(mode)), kind, exif=exif, xmp=xmp, **more)


@st.composite
def webps(draw) -> bytes:
    mode, size = draw(st.sampled_from(["RGB", "RGBA"])), draw(sizes)
    exif, xmp = draw(metadata())
    frames = [draw(pictures(mode, st.just(size))) for _ in range(draw(st.integers(1, 3)))]
    raw = encoded(
        frames[0], "WEBP", lossless=draw(st.booleans()), exif=exif, xmp=xmp,
        save_all=True, append_images=frames[1:],
    )  # fmt: skip
    frame = raw.find(b"ANMF")
    if frame > 0 and draw(st.booleans()):
        raw = bytearray(raw)
        raw[24] += 40  # a canvas wider than the frame, which is somewhere in it
        raw[frame + 8] = draw(st.integers(0, 20))
    return bytes(raw)


@st.composite
def gifs(draw) -> bytes:
    mode = draw(st.sampled_from(["1", "L", "P", "RGB", "RGBA"]))
    size = draw(sizes)
    frames = [draw(pictures(mode, st.just(size))) for _ in range(draw(st.integers(1, 3)))]
    more = {"interlace": draw(st.integers(0, 1)), "comment": b"a" * draw(st.integers(0, 600))}
    if mode in ("L", "P") and draw(st.booleans()):
        more["transparency"] = frames[0].getpixel((0, 0))
    raw = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], **more)
    if draw(st.booleans()):  # a canvas larger than the frame
        raw = raw[:6] + bytes([size[0] + 7, 0, size[1] + 3, 0]) + raw[10:]
    return raw


MASKS = {
    16: [(0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0)],
    32: [
        (0xFF0000, 0xFF00, 0xFF, 0), (0xFF000000, 0xFF0000, 0xFF00, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0, 0, 0, 0),
    ],
}  # fmt: skip


@st.composite
def bmps(draw) -> bytes:
    bits = draw(st.sampled_from([1, 4, 8, 16, 24, 32]))
    header = draw(st.sampled_from([12, 40, 56, 108, 124]))
    (width, height), rng = draw(sizes), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    numbers = rng.integers(0, 2**bits, (height, width))
    masks: tuple[int, ...] = ()
    palette = None
    if bits <= 8:
        # With fewer colours, the others are black.
        count = 2**bits if header == 12 else draw(st.integers(2, 2**bits))
        palette = rng.integers(0, 256, (count, 3))
    elif bits in MASKS and header > 40 and draw(st.booleans()):
        masks = draw(st.sampled_from(MASKS[bits]))
    upwards = header == 12 or draw(st.booleans())
    return bmp(numbers, bits, palette, masks, header=header, upwards=upwards)


@pytest.mark.parametrize("files", [pngs(), jpegs(), webps(), gifs(), bmps()], ids=images.FORMATS)
def test_pixels_are_those_of_pillow(files):
    @settings(max_examples=8, deadline=None)
    @given(st.lists(files, min_size=8, max_size=8))
    def check(raw):
        found, true = read_by_both(*raw)
        np.testing.assert_allclose(found, true, atol=4)

    check()


def test_large_pictures_are_those_of_pillow():
    found, true = read_by_both(*(encoded(scene(), kind) for kind in ("JPEG", "PNG", "WEBP", "BMP")))
    np.testing.assert_allclose(found, true, atol=1.5)


def test_sixteen_bits_are_read_as_eight():
    grey = np.asarray(scene().convert("L"))
    raw = encoded(Image.fromarray(grey.astype("uint16") * 257))
    assert images.find_defect(raw) is None
    np.testing.assert_allclose(pixels(raw)[0], pixels(encoded(scene().convert("L")))[0], atol=1)
    # The number that is transparent has sixteen bits too.
    nothing = encoded(Image.fromarray(np.full((9, 9), 1000, "uint16")))
    hidden = with_chunk(nothing, b"tRNS", (1000).to_bytes(2, "big"))
    np.testing.assert_allclose(pixels(hidden)[0], 255, rtol=1e-6)
    other = with_chunk(nothing, b"tRNS", (1001).to_bytes(2, "big"))
    np.testing.assert_allclose(pixels(other)[0], 1000 // 256, rtol=1e-6)


def test_pngs_may_have_metadata_as_texts():
    plain, orientation = encoded(scene()), 6
    exif = b"Exif\0\0" + exif_of(orientation)
    text = f"\nexif\n{len(exif):8}\n{exif.hex()[:72]}\n{exif.hex()[72:]}\n".encode()
    name, packed = b"Raw profile type exif\0", zlib.compress(text)
    xmp = b"XML:com.adobe.xmp\0\1\0en\0title\0" + zlib.compress(xmp_of(orientation))
    chunks = ((b"tEXt", name + text), (b"zTXt", name + b"\0" + packed), (b"iTXt", xmp))
    found, true = read_by_both(*(with_chunk(plain, kind, data) for kind, data in chunks))
    np.testing.assert_allclose(found, true, atol=1.5)


def test_only_integers_are_orientations():
    files = []
    for orientation, kind in itertools.product([0, 9, 6, 8], [1, 2, 3, 4, 5]):
        exif = bytearray(exif_of(orientation))
        exif[exif.index(b"\x12\1\3\0") + 2] = kind
        files.append(encoded(scene().resize((90, 60)), exif=bytes(exif)))
    found, true = read_by_both(*files)
    np.testing.assert_allclose(found, true, atol=1.5)


JPEG = encoded(scene(), "JPEG")
PNG = encoded(scene())
#: A BMP of one run of three pixels.
RUNS = bmp(np.zeros((1, 3), int), 8, np.array([[9, 9, 9], [200, 0, 0]]))
RUNS = RUNS[:30] + b"\1" + RUNS[31:-4] + b"\3\1\0\1"
BROKEN = {
    "an empty file": b"",
    "not a picture": b"This is a text.\n",
    "a truncated picture": JPEG[: len(JPEG) // 2],
    "a TIFF picture": encoded(scene(), "TIFF"),
    "a compressed BMP picture": RUNS,
    "too many pixels (12,000 × 12,000)": claims(12_000, 12_000),
    "too many pixels": claims(60_000, 60_000),
}


def test_what_cannot_be_used_is_told(tmp_path):
    path = tmp_path / "photo.jpg"
    for why, raw in BROKEN.items():
        assert images.find_defect(raw).startswith(why)
        path.write_bytes(raw)
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


STARTS = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    JPEG[:400],
    b"BM",
    b"GIF89a",
    b"RIFF\xff\0\0\0WEBPVP8X",
]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.builds(bytes.__add__, st.sampled_from(STARTS), st.binary(max_size=300))))
def test_what_is_usable_can_be_read(files):
    _, (*readable, last) = pixels(*files, PNG)
    assert last
    assert readable == [images.find_defect(raw) is None for raw in files]


def test_too_many_pixels_are_refused_before_they_are_decoded():
    wide = 2**14
    for raw in (
        bmp(np.zeros((1, 8), int), 1, np.zeros((2, 3), int)).replace(
            b"\x08\0\0\0\1\0\0\0", struct.pack("<II", 2**16, 2**16)
        ),
        b"GIF89a" + struct.pack("<HH", wide, wide) + encoded(scene().convert("L"), "GIF")[10:],
        claims(12_000, 12_000),
    ):
        assert images.find_defect(raw).startswith("too many pixels")
        assert pixels(raw)[1] == [False]


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 700), st.integers(1, 700)), min_size=4, max_size=4),
    st.sampled_from(["PNG", "JPEG"]),
)
def test_any_size_is_one_size(of_pictures, kind):
    files = (encoded(Image.new("RGB", size, (200, 100, 50)), kind) for size in of_pictures)
    found, readable = pixels(*files)
    assert all(readable)
    np.testing.assert_allclose(found, np.broadcast_to([200, 100, 50], found.shape), atol=4)


def test_pictures_without_a_file_are_kept_by_their_bytes(tmp_path):
    path = images.store(PNG, tmp_path)
    assert path.read_bytes() == PNG
    assert images.store(PNG, tmp_path) == path
    path.write_bytes(PNG[:10])
    assert images.store(PNG, tmp_path).read_bytes() == PNG
    assert images.store(JPEG, tmp_path) != path
