"""Pictures that tests make: coloured shapes, in every format and in every way broken."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw, ImageOps

COLOURS = {"red": "#d02020", "green": "#20a040", "blue": "#2040d0", "yellow": "#e0c020"}
SHAPES = ("circle", "square", "bar", "ring")


def encoded(image: Image.Image, kind: str = "PNG", **settings) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **settings)
    return out.getvalue()


def shape(colour: str, kind: str, size: int = 64, shift: int = 0) -> Image.Image:
    """A shape in a colour on white."""
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    box = [size // 5 + shift, size // 5, size - size // 5 + shift, size - size // 5]
    fill = COLOURS[colour]
    if kind == "circle":
        draw.ellipse(box, fill=fill)
    elif kind == "square":
        draw.rectangle(box, fill=fill)
    elif kind == "bar":
        draw.rectangle([box[0], size * 2 // 5, box[2], size * 3 // 5], fill=fill)
    else:
        draw.ellipse(box, outline=fill, width=size // 10)
    return image


def scene() -> Image.Image:
    """A picture without any symmetry, wider than high."""
    y, x = np.mgrid[0:200, 0:300]
    waves = [127 + 100 * np.sin(x / a + y / b) for a, b in ((40, 70), (90, -50), (-60, 120))]
    pixels = np.stack(waves, axis=-1)
    pixels[20:60, 30:120] = (250, 20, 20)
    return Image.fromarray(pixels.astype("uint8"))


def as_pillow_sees(raw: bytes) -> Image.Image:
    """A file as Pillow reads it: the first picture, upright, on white."""
    with Image.open(io.BytesIO(raw)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(white, upright).convert("RGB")


def exif_of(orientation: int, *, endian: str = "<", thumbnail: int | None = None) -> bytes:
    """EXIF data with an orientation, and another one for a thumbnail, without a prefix."""

    def directory(entries: list[tuple[int, int, bytes]], following: int) -> bytes:
        packed = b"".join(
            struct.pack(endian + "HHI", tag, kind, 1) + value for tag, kind, value in entries
        )
        head = struct.pack(endian + "H", len(entries))
        return head + packed + struct.pack(endian + "I", following)

    def short(value: int) -> bytes:
        return struct.pack(endian + "HH", value, 0)

    first = [(0x0100, 3, short(300)), (0x0112, 3, short(orientation)), (0x0128, 3, short(2))]
    length = 8 + 2 + 12 * len(first) + 4
    second = [] if thumbnail is None else [(0x0112, 3, short(thumbnail))]
    head = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(endian + "I", 8)
    body = directory(first, length if second else 0)
    return head + body + (directory(second, 0) if second else b"")


def xmp_of(orientation: int) -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'
        % orientation
    )


def bmp(
    pixels: np.ndarray,
    bits: int,
    palette: np.ndarray | None = None,
    masks: tuple[int, ...] = (),
    *,
    header: int = 40,
    upwards: bool = True,
) -> bytes:
    """A BMP with these numbers as its pixels, ``<int>[height, width]``."""
    height, width = pixels.shape
    rows = pixels[::-1] if upwards else pixels
    stride = (width * bits + 31) // 32 * 4
    if bits < 8:
        binary = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        packed = np.packbits(binary.reshape(height, -1).astype("uint8"), axis=1)
    else:
        packed = (rows[..., None] >> 8 * np.arange(bits // 8)) & 255
    data = np.zeros((height, stride), "uint8")
    data[:, : (width * bits + 7) // 8] = packed.reshape(height, -1)
    if header == 12:
        about = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        about = struct.pack(
            "<IIiHHIIIIII", header, width, height if upwards else -height, 1, bits,
            3 if masks else 0, 0, 0, 0, 0 if palette is None else len(palette), 0,
        )  # fmt: skip
        about += struct.pack(f"<{len(masks)}I", *masks)
        about = about.ljust(header, b"\0")
    if palette is not None:
        colours = [bytes(c[::-1]) + (b"" if header == 12 else b"\0") for c in palette]
        about += b"".join(colours)
    start = 14 + len(about)
    return b"BM" + struct.pack("<IHHI", start + data.size, 0, 0, start) + about + data.tobytes()


def with_chunk(raw: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one chunk more, before its pixels."""
    chunk = struct.pack(">I", len(data)) + kind + data
    chunk += struct.pack(">I", zlib.crc32(kind + data))
    at = raw.index(b"IDAT") - 4
    return raw[:at] + chunk + raw[at:]


def claims(width: int, height: int) -> bytes:
    """The beginning of a PNG that says it is so large, a few bytes long."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9))
        + chunk(b"IEND", b"")
    )  # fmt: skip
