"""Pictures that tests make: coloured shapes, in every format and in every way broken."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw

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
