"""From rows to pictures, each with all that was said about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.captioning.config import CaptioningConfig, CaptioningDataConfig
from pipelines.engine.core.paths import home
from pipelines.engine.data import images, loading
from pipelines.engine.data.inputs import read_inputs
from pipelines.engine.data.sources.missing import is_missing
from pipelines.engine.data.sources.rows import Row
from pipelines.engine.data.splits import Splits


@dataclass(frozen=True)
class Picture:
    """One usable record; ``place`` (file:line) is for messages and tables.

    ``digest`` tells pictures apart, wherever their files are.
    """

    file: Path
    digest: str
    captions: tuple[str, ...]
    place: str


def load(config: CaptioningConfig) -> Splits:
    """Read every source of the config; a picture ends up on one side only.

    Raises:
        UserError: a source cannot be read, has too many unusable rows, or is too small.
    """
    data = config.data
    rows = _Rows(data, home() / "pictures")
    splits = loading.load(
        data,
        loading.RecordSpec[Picture](
            columns=[data.image, data.caption],
            parse=rows.parse,
            content=lambda p: (p.digest, *p.captions),
            exclude=lambda p: not p.captions,
            key=(lambda p: p.digest) if data.apart == "picture" else _said,
            merge=_together,
        ),
        seed=config.seed,
    )
    names = ("train", "validation", "test")
    splits.report["captions"] = {n: sum(len(p.captions) for p in getattr(splits, n)) for n in names}
    return splits


def load_inputs(config: CaptioningConfig, source: str, report: dict[str, Any]) -> Sequence[Picture]:
    """Read the pictures of new data, which need no captions.

    Raises:
        UserError: the source cannot be read, or has too many unusable rows.
    """
    data = config.data
    rows = _Rows(data, home() / "pictures")

    def parser(captioned: bool) -> loading.RowParser[Picture]:
        return loading.RowParser(
            columns=[data.image, data.caption] if captioned else [data.image],
            parse=rows.parse if captioned else rows.parse_picture,
            content=lambda p: (p.digest, *p.captions),
            exclude=lambda p: captioned and not p.captions,
        )

    return _together(read_inputs(source, data, parser, report))


def _said(picture: Picture) -> str:
    return "\n".join(sorted({caption.casefold() for caption in picture.captions}))


def _together(pictures: Sequence[Picture]) -> list[Picture]:
    """Rows with the same picture are one record, with what the first says and the others add."""
    found: dict[str, Picture] = {}
    for picture in pictures:
        first = found.get(picture.digest)
        if first is not None:
            more = [text for text in picture.captions if text not in first.captions]
            picture = replace(first, captions=(*first.captions, *dict.fromkeys(more)))
        found[picture.digest] = picture
    return list(found.values())


class _Rows:
    """Rows to records. A file that is in several rows is looked at once.

    Args:
        folder: where pictures are kept that come in a data set and have no file of their own.
    """

    def __init__(self, data: CaptioningDataConfig, folder: Path) -> None:
        self._data, self._folder = data, folder
        self._known: dict[Path, str | tuple[Path, str]] = {}

    def parse(self, row: Row) -> Picture | str:
        captions = _texts(row.fields, self._data.caption)
        if isinstance(captions, str):
            return captions
        found = self._picture(row)
        if isinstance(found, str):
            return found
        kept = tuple(text for text in captions if len(text) <= self._data.max_characters)
        return Picture(*found, kept, row.place)

    def parse_picture(self, row: Row) -> Picture | str:
        """Parse a row without a caption."""
        found = self._picture(row)
        return found if isinstance(found, str) else Picture(*found, (), row.place)

    def _picture(self, row: Row) -> tuple[Path, str] | str:
        column = self._data.image
        value = row.fields[column]
        if isinstance(value, bytes):
            if (why := images.find_defect(value)) is not None:
                return why
            return images.store(value, self._folder), images.digest(value)
        if not isinstance(value, str):
            return f"{column!r} is not the name of a file"
        if not value.strip():
            return f"{column!r} is empty"
        path = (row.folder or Path()) / value.strip()
        if path not in self._known:
            self._known[path] = _file(path)
        return self._known[path]


def _file(path: Path) -> tuple[Path, str] | str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return "no such picture"
    except (OSError, ValueError):
        return "a picture's file cannot be read"
    return images.find_defect(raw) or (path.resolve(), images.digest(raw))


def _texts(fields: Mapping[str, Any], column: str) -> Sequence[str] | str:
    """The captions of a row, tidied; or why there are none."""
    value = fields[column]
    several = value if isinstance(value, list) else [value]
    several = [text for text in several if not is_missing(text)]
    if not all(isinstance(text, str) for text in several):
        return f"{column!r} is not text"
    texts = [" ".join(text.split()) for text in several]
    return texts or f"{column!r} is empty"
