"""MIDI files and sheet music of tunes."""

from __future__ import annotations

import importlib.util
import random
import re
from pathlib import Path

import pytest

from pipelines.engine.core.errors import UserError
from pipelines.generation import playback, tunes
from tests.support.tunes import JIG, corpus, jig, reel


def midi_notes(path: Path) -> list[tuple[tuple[int, ...], float]]:
    from music21 import converter

    return [
        (tuple(p.midi for p in thing.pitches), float(thing.quarterLength))
        for thing in converter.parse(path).stripTies().flatten().notes
    ]


def test_midi_has_pitches_and_lengths(tmp_path):
    path = tmp_path / "tune.mid"
    # F and C are sharp in D; ^G lasts for the bar, a natural until the next one.
    playback.write_midi(reel("D,F c>d ^GG [DA]2|=Fffg- g2 a2|FG,, A4 c'2|]"), path)
    notes = midi_notes(path)
    assert notes == [
        ((50,), 0.5), ((66,), 0.5), ((73,), 0.75), ((74,), 0.25), ((68,), 0.5), ((68,), 0.5),
        ((62, 69), 1), ((65,), 0.5), ((77,), 0.5), ((77,), 0.5), ((79,), 1.5), ((81,), 1),
        ((66,), 0.5), ((43,), 0.5), ((69,), 2), ((85,), 1),
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["tune.mid"]


def test_tied_accidental_lasts_over_the_bar_line(tmp_path):
    path = tmp_path / "tune.mid"
    playback.write_midi(reel("ABcd efg^G-|G2 GA Bcde|A8|", key="C"), path)
    assert midi_notes(path)[7:9] == [((68,), 1.5), ((67,), 0.5)]


@pytest.mark.parametrize(
    ("key", "sharp", "flat"),
    [("G", "F", ""), ("Gm", "", "BE"), ("A Mixolydian", "FC", ""), ("Ddor", "", ""),
     ("Hp", "FC", ""), ("Eb", "", "BEA"), ("F#m", "FCG", ""), ("E Minor", "F", ""),
     ("Glyd clef=bass", "FC", "")],
)  # fmt: skip
def test_key_signatures(key, sharp, flat, tmp_path):
    path = tmp_path / "tune.mid"
    playback.write_midi(reel("CDEF GABc|CDEF GABc|", key), path)
    plain = dict(zip("CDEFGAB", (60, 62, 64, 65, 67, 69, 71), strict=True))
    expected = [plain[note] + (note in sharp) - (note in flat) for note in plain]
    assert [pitch for (pitch,), _ in midi_notes(path)[:7]] == expected


def test_midi_of_real_tunes_agrees_with_music21(tmp_path):
    """Both parsers agree on tunes without the notation that music21 skips."""
    from music21 import converter

    path = tmp_path / "tune.mid"
    plain = [
        t
        for t in corpus()
        if not re.search(r"[H-Zh-y~\[{<>^_=!-]|[A-G]::|\(\d", tunes.music_lines(t))
    ]
    for text in random.Random(2).sample(plain, 5):
        playback.write_midi(text, path)
        theirs = [n.pitch.midi for n in converter.parseData(text, format="abc").flatten().notes]
        assert [pitch for (pitch,), _ in midi_notes(path)] == theirs


@pytest.mark.parametrize("write", [playback.write_midi, playback.write_score])
def test_no_file_is_written_for_an_invalid_tune(write, tmp_path):
    with pytest.raises(UserError, match=r"^tune\.out: the text is not a tune .*: does not begin"):
        write("prose", tmp_path / "tune.out")
    assert list(tmp_path.iterdir()) == []


def test_missing_verovio_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="make setup EXTRAS=music"):
        playback.write_score(JIG, tmp_path / "tune.svg")


def test_score_shows_every_note(tmp_path):
    pytest.importorskip("verovio")
    path = tmp_path / "tune.svg"
    # A line break `!` at the end of a line makes Verovio end its process.
    playback.write_score(jig("D|GAB !f!c2d|(e3 [gb]2)e!\ndBG A>{c}AG|E3 D2:|"), path)
    svg = path.read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "A Tune" in svg
    assert len(re.findall(r'class="note["\s]', svg)) == 19


def test_verovio_crash_is_reported_in_one_line(tmp_path, monkeypatch):
    pytest.importorskip("verovio")
    monkeypatch.setattr(playback, "_RENDER_SCRIPT", "import os; os.abort()")
    with pytest.raises(UserError, match=r"^tune\.svg: Verovio cannot draw the tune$"):
        playback.write_score(JIG, tmp_path / "tune.svg")
    assert list(tmp_path.iterdir()) == []
