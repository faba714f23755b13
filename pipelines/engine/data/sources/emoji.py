"""Emoji as pictures with names: the glyphs of a font, and what people call them.

The pictures are those of a colour bitmap font (Noto Color Emoji: 136 × 128 pixels, PNG), the names
are Unicode's, in the languages that the Python package ``emoji`` has them in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.locate import find_debian_file
from pipelines.engine.data.sources.rows import Row, require_columns

#: Of 20 combinations, so many are held out: for validation and for the test.
_VALIDATION, _TEST, _OF = 1, 2, 20
SPLITS = ("train", "validation", "test")
#: The five skin tones, and what says that a character is a picture, which a glyph does not need.
_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
_AS_PICTURE = "\ufe0f"


class Emoji(NamedTuple):
    """One emoji: what it is written as, its name, and its picture as PNG."""

    characters: str
    name: str
    picture: bytes


def languages() -> list[str]:
    import emoji

    return list(emoji.LANGUAGES)


def read(font: Path, language: str, split: str) -> Iterator[Emoji]:
    """The emoji of a split that the font has, in the order of the package.

    Held out are combinations: somebody who does something in one of five skin tones, or two people
    in two of them. The same in other tones, and the tone with others, may be in training: what is
    asked for is a name that has not been seen, made of parts that have. All else is in training.

    Args:
        split: one of `SPLITS`; which one an emoji is in depends on its characters only.

    Raises:
        UserError: the font has no colour bitmaps.
    """
    import emoji

    glyphs = _Glyphs(font)
    emoji.config.load_language(language)
    for characters, about in emoji.EMOJI_DATA.items():
        if about["status"] != emoji.STATUS["fully_qualified"] or _split(characters) != split:
            continue
        picture = glyphs.picture(characters)
        if picture is not None and language in about:
            name = about[language].strip(":").replace("_", " ")
            yield Emoji(characters, name, picture)


def _split(characters: str) -> str:
    if not _TONES & set(characters):
        return "train"
    place = int.from_bytes(hashlib.sha256(characters.encode()).digest()[:4], "big") % _OF
    if place < _TEST:
        return "test"
    return "validation" if place < _TEST + _VALIDATION else "train"


class _Glyphs:
    """The bitmaps of a font by characters, several of which may be one glyph (a ligature)."""

    def __init__(self, font: Path) -> None:
        from fontTools.ttLib import TTFont, TTLibError

        try:
            self._font = TTFont(font, lazy=True)
            self._characters: dict[int, str] = self._font.getBestCmap()
            self._bitmaps = self._font["CBDT"].strikeData[0]
            self._ligatures = dict(self._read_ligatures())
        except (TTLibError, KeyError, OSError) as error:
            raise UserError(f"{font}: not a font with colour bitmaps: {error}") from None

    def _read_ligatures(self) -> Iterator[tuple[tuple[str, ...], str]]:
        for lookup in self._font["GSUB"].table.LookupList.Lookup:
            for table in lookup.SubTable:
                found: dict[str, Any] = getattr(table, "ligatures", {})
                for first, several in found.items():
                    for one in several:
                        yield (first, *one.Component), one.LigGlyph

    def picture(self, characters: str) -> bytes | None:
        for text in (characters, characters.replace(_AS_PICTURE, "")):
            names = tuple(self._characters.get(ord(c), "") for c in text)
            name = names[0] if len(names) == 1 else self._ligatures.get(names)
            if name in self._bitmaps:
                return bytes(self._bitmaps[name].imageData)
        return None


#: Debian's font of emoji.
FONT = "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"


def read_source(source: str, columns: Sequence[str]) -> Iterator[Row]:
    language, _, split = source.removeprefix("emoji:").partition("@")
    if language not in languages():
        known = ", ".join(languages())
        raise UserError(f"data: {source}: which language? write it as emoji:en@train, of {known}")
    if split not in SPLITS:
        known = ", ".join(f"emoji:{language}@{s}" for s in SPLITS)
        raise UserError(f"data: {source}: no such split; there are: {known}")
    require_columns(source, columns, ["image", "caption", "emoji"])
    font = find_debian_file(FONT)
    if font is None:
        raise UserError(
            f"data: {source}: no pictures of emoji found; `make emoji` fetches them (Debian's "
            "fonts-noto-color-emoji, no root needed), or choose "
            "CONFIG=configs/captioning/flickr8k.yaml"
        )
    for i, one in enumerate(read(font, language, split)):
        fields = {"image": one.picture, "caption": one.name, "emoji": one.characters}
        yield Row(fields, f"emoji:{language}@{split}[{i}] {one.characters}")
