"""From rows to documents: read, cleaned, split."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines.engine.data import loading
from pipelines.engine.data.sources.rows import Row
from pipelines.engine.data.splits import Splits
from pipelines.generation import abc_notation
from pipelines.generation.config import GenerationConfig


@dataclass(frozen=True)
class Document:
    """One text; ``place`` (file:line) is for messages."""

    text: str
    place: str


#: Reference number, title, rhythm, metre, unit of length, key: what a player needs.
_HEADERS = "XTRMLK"


def load(config: GenerationConfig) -> Splits:
    """Read every source of the config; equal documents, or melodies, fall on one side only.

    A source of fewer than 20 documents is cut by position instead, tunes excepted: each one's
    beginning trains.

    Raises:
        UserError: a source cannot be read, has too many unusable rows, or is too small.
    """
    data, is_abc = config.data, config.text.format == "abc"

    def parse(row: Row) -> Document | str:
        text = row.fields[data.text]
        if not isinstance(text, str):
            return f"{data.text!r} is not text"
        if is_abc:
            if not abc_notation.melody_key(text):
                return "no tune in ABC notation"
            text = tidy_tune(text)
        return Document(text, row.place) if text.strip() else "empty text"

    return loading.load(
        data,
        loading.RecordSpec[Document](
            columns=[data.text],
            parse=parse,
            content=lambda d: [d.text],
            key=(lambda d: abc_notation.melody_key(d.text)) if is_abc else (lambda d: d.text),
            cut=None if is_abc else piece,
        ),
        seed=config.seed,
    )


def piece(document: Document, start: float, stop: float) -> Document | None:
    """The part of a document between two shares of its length; None where nothing is."""
    length = len(document.text)
    text = document.text[round(start * length) : round(stop * length)]
    return replace(document, text=text) if text else None


def tidy_tune(text: str) -> str:
    """An ABC tune with one line for each header a player needs, and its music.

    Collections put remarks, sources and layout between; each numbers its tunes anew.
    """
    headers: dict[str, str] = {}
    music = []
    for line in text.splitlines():
        field = abc_notation.FIELD.match(line)
        if field is None:
            if line.strip() and not line.startswith("%"):
                music.append(" ".join(line.split()))  # collections align bars under each other
            continue
        name, value = field[1], field[2].strip()
        if "K" not in headers:  # the key is the last header
            if name in _HEADERS:
                headers.setdefault(name, "1" if name == "X" else value)
        elif name in "MLK":  # between lines of music, what changes how they are read
            music.append(f"{name}:{value}")
    lines = [f"{name}:{headers[name]}" for name in _HEADERS if name in headers]
    return "\n".join([*lines, *music, ""]) if music else ""
