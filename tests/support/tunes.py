"""Folk tunes in ABC notation for tests."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

#: Headers, to be formatted with the metre and the key.
HEAD = "X:1\nT:A Tune\nM:{}\nL:1/8\nK:{}\n"
JIG = HEAD.format("6/8", "G") + "D|GAB c2d|e3 g2e|dBG A2G|E3 D2:|\n"
FULL = "GAB c2d|e3 g2e|dBG A2G|"  # three bars of 6/8


def jig(music: str) -> str:
    """Return a tune in 6/8 in G with these lines of music."""
    return HEAD.format("6/8", "G") + music + "\n"


def reel(music: str, key: str = "D") -> str:
    """Return a tune in 4/4 with these lines of music."""
    return HEAD.format("4/4", key) + music + "\n"


@cache
def corpus() -> tuple[str, ...]:
    """Return the tunes that music21 contains, as they are in its files."""
    spec = importlib.util.find_spec("music21")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "corpus"
    return tuple(
        tune
        for name in ("ryansMammoth", "oneills1850", "airdsAirs")
        for path in sorted((folder / name).glob("*.abc"))
        for tune in re.split(r"(?m)^(?=X:)", path.read_text(encoding="utf-8"))[1:]
    )
