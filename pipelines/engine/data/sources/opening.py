"""Open files, compressed or not, as bytes, text or lines."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.locate import COMPRESSION
from pipelines.engine.data.sources.rows import UnreadableError


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


def read_text(path: Path, fallback: str | None = None) -> str:
    """Read a whole file as text with ``\\n`` at the ends of its lines.

    Args:
        path: The file.
        fallback: The encoding of files that are not UTF-8; None to refuse them.

    Raises:
        UnreadableError: The file is empty, not text, or cannot be read.
    """
    with open_decompressed(path) as file:
        whole = file.read()
    raw = whole.removeprefix(codecs.BOM_UTF8)
    if not raw:
        raise UnreadableError("the file is empty")
    bom = len(whole) - len(raw)
    if (nul := raw.find(b"\0")) >= 0:
        raise UnreadableError("not text: a NUL byte", bom + nul)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if fallback is None:
            raise UnreadableError("not text in UTF-8", bom + error.start) from None
        text = raw.decode(fallback)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, stripped of white space.

    Only a line feed ends a line; Unicode's other separators may occur inside. Bytes that are not
    UTF-8 become lone surrogates.

    Raises:
        UserError: The file is damaged or cannot be read.
    """
    try:
        with open_decompressed(path) as file:
            for line, raw in enumerate(file):
                if not line:
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                yield raw.decode("utf-8", errors="surrogateescape").strip()
    except UnreadableError as error:
        raise UserError(f"{path}: {error.reason}") from None
