"""The generated tables of keys."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from pipelines.engine.config import reference
from pipelines.engine.config.schema import BaseConfig, CoercedStr, Fraction, Sources


class Inner(BaseConfig):
    """An inner section.

    More about it.
    """

    size: int = Field(3, ge=1, le=5000)
    """How ``large``: see ``data.md#sizes``
    or a|b."""


class Outer(BaseConfig):
    """The whole."""

    source: Sources
    """Where from."""
    rate: float | None = Field(0.5, gt=0)
    """How fast."""
    share: Fraction | CoercedStr = 0.1
    """How much."""
    kinds: list[Literal["a", "b"]] = Field(["a"])
    """Which."""
    names: dict[CoercedStr, list[Annotated[int, Field(ge=2)]]] = Field({})
    """By name."""
    on: bool = True
    """Whether."""
    inner: Inner = Inner()
    optional: Inner | None = None
    """Perhaps."""


def test_tables_show_key_type_default_and_meaning():
    rows = reference.render(Outer).strip().splitlines()
    assert rows == [
        "| Key | Type | Default | Meaning |",
        "|---|---|---|---|",
        "| `source` | text or list of text | required | Where from. |",
        "| `rate` | number > 0 or `null` | `0.5` | How fast. |",
        "| `share` | number ≥ 0.0 and < 1.0 or text | `0.1` | How much. |",
        '| `kinds` | list of `a`, `b` | `["a"]` | Which. |',
        "| `names` | mapping of text to list of integer ≥ 2 | `{}` | By name. |",
        "| `on` | `true`, `false` | `true` | Whether. |",
        "| `optional` | section or `null` | `null` | Perhaps. |",
        "| `inner.size` | integer ≥ 1 and ≤ 5,000 | `3` "
        "| How `large`: see [data.md](data.md#sizes) or a\\|b. |",
        "| `optional.size` | integer ≥ 1 and ≤ 5,000 | `3` "
        "| How `large`: see [data.md](data.md#sizes) or a\\|b. |",
    ]


def test_sections_have_the_summary_of_their_class():
    summaries = {section.name: section.summary for section in reference.sections(Outer)}
    assert summaries == {
        "": "The whole.",
        "inner": "An inner section.",
        "optional": "An inner section.",
    }


def test_only_what_is_between_the_markers_changes():
    page = "# A\n\n<!-- keys: x -->\nold\n<!-- end of keys -->\n\nText.\n"
    new = reference.update(page, {"x": Outer})
    assert new.startswith("# A\n\n<!-- keys: x -->\n")
    assert new.endswith("<!-- end of keys -->\n\nText.\n")
    assert "old" not in new
    assert "| `on` |" in new
    assert reference.update(new, {"x": Outer}) == new
    with pytest.raises(KeyError, match="x"):
        reference.update(page, {})


def test_a_key_without_a_description_is_refused():
    class Undescribed(BaseConfig):
        size: int = 1

    with pytest.raises(ValueError, match="size: the field has no docstring"):
        reference.render(Undescribed)
