"""Emoji as pictures with names: read from a font, split by combination."""

from __future__ import annotations

import io

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib import TTFont
from PIL import Image

from pipelines.engine.core.errors import UserError
from pipelines.engine.data import images
from pipelines.engine.data.sources import emoji, locate
from pipelines.engine.data.sources.reading import read
from pipelines.engine.data.sources.rows import RowReport


def rows(source: str, *columns: str) -> list[dict]:
    problems = RowReport()
    found = [dict(row.fields) for row in read(source, columns, problems)]
    assert problems.examples == []
    return found


def error(source: str, *columns: str) -> str:
    with pytest.raises(UserError) as caught:
        rows(source, *(columns or ["image", "caption"]))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def font():
    found = locate.find_debian_file(emoji.FONT)
    if found is None:
        pytest.skip("no pictures of emoji; `make emoji` fetches them")
    return found


def test_held_out_are_combinations_of_what_is_in_training(font):
    splits = {s: list(emoji.read(font, "en", s)) for s in emoji.SPLITS}
    train, validation, test = ({e.name for e in splits[s]} for s in emoji.SPLITS)
    assert len(train) > 3_000
    assert len(test) > 150
    assert len(validation) > 60
    assert not train & (validation | test)
    assert not validation & test
    known = {word for name in train for word in name.split()}
    assert all(word in known for name in test | validation for word in name.split())
    assert all("skin tone" in name for name in test)


def test_pictures_are_those_of_the_characters(font):
    found = {e.characters: e for e in emoji.read(font, "en", "train")}
    for characters, name, colour in (
        ("🟥", "red square", (220, 60, 40)),
        ("🟦", "blue square", (30, 120, 230)),
        ("🖤", "black heart", (60, 60, 60)),
    ):
        assert found[characters].name == name
        assert images.find_defect(found[characters].picture) is None
        with Image.open(io.BytesIO(found[characters].picture)) as image:
            middle = image.convert("RGBA").getpixel((image.width // 2, image.height // 2))
        assert all(abs(a - b) < 60 for a, b in zip(middle[:3], colour, strict=True)), name
    assert len({e.picture for e in found.values()}) > 0.99 * len(found)
    # Several characters that are one picture.
    assert found["👩‍🚀"].name == "woman astronaut"


def test_names_are_in_many_languages(font):
    assert len(emoji.languages()) > 5
    german = {e.characters: e.name for e in emoji.read(font, "de", "train")}
    assert german["🖤"] == "schwarzes herz"


def test_rows_of_emoji(font):
    found = rows("emoji:en@validation", "image", "caption", "emoji")
    assert len(found) == len(list(emoji.read(font, "en", "validation")))
    assert all(row["image"].startswith(b"\x89PNG") for row in found)
    assert "no column 'name'" in error("emoji:en@test", "name")


def test_a_source_that_there_is_not(monkeypatch, tmp_path):
    assert "which language? write it as emoji:en@train" in error("emoji:xx@train")
    assert "emoji:en@validation, emoji:en@test" in error("emoji:en")
    assert "no such split" in error("emoji:en@dev")
    monkeypatch.setattr(locate, "DEBIAN_ROOTS", (tmp_path,))
    message = error("emoji:en@train")
    assert "`make emoji` fetches them" in message
    assert message.endswith("CONFIG=configs/captioning/flickr8k.yaml")


def test_a_font_without_pictures(tmp_path):
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef"])
    builder.setupCharacterMap({})
    builder.setupPost()
    builder.save(tmp_path / "plain.ttf")
    assert "CBDT" not in TTFont(tmp_path / "plain.ttf")
    (tmp_path / "text.ttf").write_text("no font")
    for name in ("plain.ttf", "text.ttf", "gone.ttf"):
        with pytest.raises(UserError, match=f"{name}: not a font with colour bitmaps"):
            list(emoji.read(tmp_path / name, "en", "train"))
