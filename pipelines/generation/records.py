"""Documents: reading, cleaning and splitting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.engine.data import loading
from pipelines.engine.data.inputs import read_inputs
from pipelines.engine.data.sources.missing import is_missing
from pipelines.engine.data.sources.rows import Row
from pipelines.engine.data.splits import Splits
from pipelines.generation.abc_notation import FIELD
from pipelines.generation.config import GenerationConfig
from pipelines.generation.tunes import melody_key


@dataclass(frozen=True)
class Document:
    """A text.

    Attributes:
        text: The whole text.
        place: Where the text was read, as ``file:line``, for messages.
    """

    text: str
    place: str


#: Headers that are kept: reference number, title, rhythm, metre, unit note length and key.
_HEADERS = "XTRMLK"


def load(config: GenerationConfig) -> Splits:
    """Read and split the documents of all sources.

    Equal documents, and tunes with equal melodies, fall into the same split. If there are fewer
    than 20 documents, and they are not tunes, each is cut by position instead: its beginning goes
    to the training split.

    Raises:
        UserError: A source cannot be read, has too many unusable rows, or is too small.
    """
    data, is_abc = config.data, config.text.format == "abc"
    return loading.load(
        data,
        loading.RecordSpec[Document](
            columns=[data.text],
            parse=_parser(config),
            content=lambda d: [d.text],
            key=(lambda d: melody_key(d.text)) if is_abc else (lambda d: d.text),
            cut=None if is_abc else excerpt,
        ),
        seed=config.seed,
    )


def load_inputs(
    config: GenerationConfig, source: str, report: dict[str, Any]
) -> Sequence[Document]:
    """Read the documents of new data.

    Raises:
        UserError: A source cannot be read, or has too many unusable rows.
    """
    parser = loading.RowParser[Document](
        columns=[config.data.text], parse=_parser(config), content=lambda d: [d.text]
    )
    return read_inputs(source, config.data, lambda labelled: parser, report)


def _parser(config: GenerationConfig) -> Callable[[Row], Document | str]:
    """Return a function that parses a row, or returns why it is unusable."""
    column = config.data.text

    def parse(row: Row) -> Document | str:
        text = row.fields[column]
        if is_missing(text):
            return "empty text"
        if not isinstance(text, str):
            return f"{column!r} is not text"
        if config.text.format == "abc":
            if not melody_key(text):
                return "not a tune in ABC notation"
            text = tidy_tune(text)
        return Document(text, row.place) if text.strip() else "empty text"

    return parse


def excerpt(document: Document, start: float, stop: float) -> Document | None:
    """Return the part of a document between two fractions of its length; None if it is empty."""
    length = len(document.text)
    text = document.text[round(start * length) : round(stop * length)]
    return replace(document, text=text) if text else None


def tidy_tune(text: str) -> str:
    """Reduce an ABC tune to the headers that a player needs and its music.

    Remarks, sources and layout are removed, and every tune gets the number 1.

    Returns:
        The tune with one line for each header; an empty string if it has no music.
    """
    headers: dict[str, str] = {}
    music = []
    for line in text.splitlines():
        field = FIELD.match(line)
        if field is None:
            if line.strip() and not line.startswith("%"):
                music.append(" ".join(line.split()))  # collections align bars under each other
            continue
        name, value = field[1], field[2].strip()
        if "K" not in headers:  # the key is the last header
            if name in _HEADERS:
                headers.setdefault(name, "1" if name == "X" else value)
        elif name in "MLK":  # between lines of music, fields that change how notes are read
            music.append(f"{name}:{value}")
    lines = [f"{name}:{headers[name]}" for name in _HEADERS if name in headers]
    return "\n".join([*lines, *music, ""]) if music else ""
