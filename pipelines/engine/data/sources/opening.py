"""Open files, compressed or not, as bytes, text or lines."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.locate import COMPRESSION
from pipelines.engine.data.sources.rows import UnreadableError

#: Encodings by the byte order mark. That of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@contextlib.contextmanager
def open_decompressed(path: Path) -> Iterator[IO[bytes]]:
    """Open the bytes of a file, decompressed.

    Raises:
        UnreadableError: The file is damaged or cannot be read, also while it is being read.
    """
    suffix = path.suffix.lower()
    try:
        with COMPRESSION.get(suffix, open)(path, "rb") as file:
            yield file
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UnreadableError(f"a damaged {suffix} file: {error}") from None
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror or error}") from None


@contextlib.contextmanager
def open_text(path: Path, encoding: str = "auto", newline: str = "\n") -> Iterator[TextIO]:
    """Open a file as text, without its byte order mark.

    Args:
        path: The file.
        encoding: A codec, or ``auto``: UTF-8 unless a byte order mark names another. Bytes that
            are not UTF-8 become lone surrogates, which `reading.read` reports row by row.
        newline: As for `open`.

    Raises:
        UnreadableError: The file cannot be read, or is not in this encoding.
    """
    if encoding == "auto":
        encoding = detect_encoding(read_head(path, 4))
    codec = codecs.lookup(encoding).name
    if codec == "utf-8":
        codec = "utf-8-sig"
    with open_decompressed(path) as raw:
        file = io.TextIOWrapper(raw, codec, errors="surrogateescape", newline=newline)
        try:
            yield file
        except UnicodeError as error:
            reason = getattr(error, "reason", error)
            raise UnreadableError(
                f"not text in {encoding} ({reason}); set data.format.encoding"
            ) from None


def read_head(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, decompressed."""
    with open_decompressed(path) as file:
        return file.read(size)


def detect_encoding(head: bytes) -> str:
    """Return the encoding that a byte order mark names, ``utf-8`` if there is none."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")


def read_text(path: Path, fallback: str | None = None) -> str:
    """Read a whole file as text with ``\\n`` at the ends of its lines.

    Args:
        path: The file.
        fallback: The encoding of files that are not UTF-8; None to refuse them.

    Raises:
        UnreadableError: The file is empty, not text, or cannot be read.
    """
    with open_decompressed(path) as file:
        raw = file.read()
    encoding = detect_encoding(raw)
    if encoding in ("utf-16", "utf-32"):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError as error:
            raise UnreadableError(f"not text in {encoding.upper()}", error.start) from None
    else:
        text = _decode(raw, fallback)
    if not text:
        raise UnreadableError("the file is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode(whole: bytes, fallback: str | None) -> str:
    raw = whole.removeprefix(codecs.BOM_UTF8)
    bom = len(whole) - len(raw)
    if (nul := raw.find(b"\0")) >= 0:
        raise UnreadableError("not text: a NUL byte", bom + nul)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if fallback is None:
            raise UnreadableError("not text in UTF-8", bom + error.start) from None
        return raw.decode(fallback)


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, stripped of white space.

    Only a line feed ends a line; Unicode's other separators may occur inside. Bytes that are not
    UTF-8 become lone surrogates.

    Raises:
        UserError: The file is damaged or cannot be read.
    """
    try:
        with open_text(path) as file:
            for line in file:
                yield line.strip()
    except UnreadableError as error:
        raise UserError(f"{path}{error.at}: {error.reason}") from None
