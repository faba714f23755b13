"""Folk tunes: what is one, whose bars add up, what is copied; MIDI and sheet music."""

import importlib.util
import random
import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engine.core.errors import UserError
from pipelines.generation import abc_notation

HEAD = "X:1\nT:A Tune\nM:{}\nL:1/8\nK:{}\n"
JIG = HEAD.format("6/8", "G") + "D|GAB c2d|e3 g2e|dBG A2G|E3 D2:|\n"
FULL = "GAB c2d|e3 g2e|dBG A2G|"  # three bars of 6/8


def jig(music: str) -> str:
    return HEAD.format("6/8", "G") + music + "\n"


def reel(music: str, key: str = "D") -> str:
    return HEAD.format("4/4", key) + music + "\n"


@cache
def corpus() -> tuple[str, ...]:
    """The tunes that come with music21, each as it stands in its file."""
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


GOOD = {
    "plain": (JIG, 5),
    "rests and lengths": (reel("D4 z2 A/B/c|d3/2e/ f>g a4|x4 A//B//c/ d/2e/2 f z|D8|]"), 4),
    "tuplets": (reel("(3ABc (3def g2a2|(5ABcde (6ABcdef (2AB d|(3:2:3ABc (4ABcd (3:2:2A2B B|"), 3),
    "tuplet in a compound metre": (jig(FULL + "(2AB (5ABcde|"), 4),
    "broken rhythm": (reel("A>B c<d e>>f g<<a|A>(Bc)<d e>{g}f g>.a|A2>B2 c>~d e/>f/ f/<e/|"), 3),
    "grace notes": (reel("{g}A2 {/e}B2 {AB}c2 d2|A2B2 c2{efg}d2|A2B2 A2B2|"), 3),
    "chords": (reel("[DA]2 [FAd]2 [D2A2] [FA]>d|[D4A4]/ [DA]/[D/A/] A e2 z2|A2B2 A2B2|"), 3),
    "ties and slurs": (reel("(A2 B2-B2) c2-|c2 (de) f4-|f8|A2B2 A2B2|"), 4),
    "pick-ups in every part": (jig(f"D|{FULL}E3 D2:|\nB/c/|{FULL}E3 D2||\nd|{FULL}"), 14),
    "endings": (jig(f"|:{FULL}[1 G3 A2D:|[2 G3 G2||\nB|{FULL}G6-|1 G3 G2:|2 G3:|"), 12),
    "metre changes": (jig(FULL + "\nM:2/4\nA2B2|c4|\nM:3/4\nA2B2c2|[M:4/4]ABcd e4|[M:C|]A8|"), 8),
    "signs": (jig('!D.C.!uG.AB "Am"c2Td|~e3 Hg2`e|"^slow"dBG vA2G|E3 "4"D2 Hx:| % end'), 4),
    "a bar over two lines": (jig("GAB\nc2d|e3 g2\\\ne|dBG A2G|"), 3),
    "comment between lines": (jig(FULL + "\n%\n" + FULL), 6),
    "no L:": ("X:1\nM:2/4\nK:G\nABcd edcB|AGFE D4|E2F2 G4|\n", 3),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_bars_of_good_tunes_add_up(name):
    text, bars = GOOD[name]
    song = abc_notation.judge(text)
    assert song == abc_notation.Song(parses=True, bars=bars, good_bars=bars)
    assert song.adds_up


BAD_BARS = {
    "too long": (jig(FULL + "A3 B3 c|d3 e3|"), 5, 4),
    "too short": (jig(FULL + "A3 B2|d3 e3|"), 5, 4),
    "first too long": (jig("ABcdefg|" + FULL + "A3 B3|"), 5, 4),
    "last too long": (jig(FULL + "ABcdefg:|"), 4, 3),
    "bar before the last short": (jig(FULL + "A3|A3|"), 5, 4),
    "wrong metre": (reel("GAB c2d|e3 g2e|dBG A2G|E3 D3|EFG ABc|"), 5, 2),
    "triplet without its sign": (reel("ABcd efg|(3ABc defg|ABcd efg|A8|"), 4, 2),
    "no rest for the x": (reel("A2B2 c2d2 x2|ABcd efga|A8|"), 3, 2),
}


@pytest.mark.parametrize("name", BAD_BARS)
def test_bars_that_do_not_add_up_are_found(name):
    text, bars, good = BAD_BARS[name]
    song = abc_notation.judge(text)
    assert (song.parses, song.bars, song.good_bars) == (True, bars, good), song.reason
    assert not song.adds_up


NO_TUNES = {
    "empty": ("", "begin with X:"),
    "white space": (" \n\n ", "begin with X:"),
    "prose": ("The cat sat on the mat. | It purred. |", "begin with X:"),
    "prose for music": (jig("Once there was a fiddler | who played a jig |"), "no music: 'nce"),
    "prose in a bar": (jig(FULL + "and so on|"), "no music: 'nd so on"),
    "prose below": (JIG + "\nThis is a jig.\n", "text after the end"),
    "prose in the header": (JIG.replace("L:", "Some words\nL:"), "no header: 'Some words'"),
    "prose as a grace note": (jig(FULL + "{so it goes}G6|"), "no music: '{so"),
    "headers only": (HEAD.format("6/8", "G"), "0 notes only"),
    "no K:": (JIG.replace("K:G\n", ""), "no header: 'D|GAB"),
    "cut in the header": (JIG[:12], "no K:"),
    "no M:": (JIG.replace("M:6/8\n", ""), "no M:"),
    "M:none": (JIG.replace("M:6/8", "M:none"), "M:none is no metre"),
    "M:0/8": (JIG.replace("M:6/8", "M:0/8"), "M:0/8 is no metre"),
    "L:1/0": (JIG.replace("L:1/8", "L:1/0"), "L:1/0 is no length"),
    "unknown key": (JIG.replace("K:G", "K:H"), "K:H is no key"),
    "key with nine sharps": (JIG.replace("K:G", "K:G#lyd"), "K:G#lyd is no key"),
    "two tunes": (JIG + JIG, "more than one tune"),
    "no bar lines": (jig("GABc2de3g2edBGA2G"), "no bar lines"),
    "few notes": (jig("GAB|c2d e3:|"), "6 notes only"),
    "no length": (jig(FULL + "G0|"), "without length"),
    "division by zero": (jig(FULL + "G/0|"), "/0 is no length"),
    "open quote": (jig(FULL + 'G "slow|'), "no music: '\"slow"),
    "open chord": (jig(FULL + "[GB d3|"), "no music: '[GB d3"),
    "> before a bar": (jig(FULL + "A>|B|"), "a bar ends after >"),
    "> after a bar": (jig(FULL + ">A|B|"), "> is not between two notes"),
    "too low": (jig(FULL + "C,,,,,,,|"), "beyond all instruments"),
    "endless number": (jig(FULL + "A" + "1" * 5000), "no music: '111"),
}


@pytest.mark.parametrize("name", NO_TUNES)
def test_what_is_no_tune_is_told_why(name):
    text, reason = NO_TUNES[name]
    song = abc_notation.judge(text)
    assert not song.parses
    assert reason in song.reason
    assert (song.bars, song.good_bars, song.adds_up) == (0, 0, False)


def test_cut_tune_ends_in_a_short_bar():
    assert abc_notation.judge(JIG[: JIG.index("2G|")]).good_bars == 4
    cut = abc_notation.judge(JIG[: JIG.index(" A2G|")])
    assert (cut.bars, cut.good_bars) == (4, 4)


def test_what_music21_cannot_read_is_no_tune():
    # It reads the D as the start of a header, "D:: …" as every other, and M: as a metre.
    song = abc_notation.judge(jig(FULL + "E3 M::D3|"))
    assert not song.parses
    assert song.reason.startswith("music21: ")


def test_real_tunes_parse_and_add_up():
    rates = abc_notation.summary(random.Random(1).sample(corpus(), 60))
    assert rates["parse_rate"] >= 0.95
    assert rates["bars_add_up_rate"] >= 0.85
    assert rates["good_bar_rate"] >= 0.98


def test_summary_counts_tunes_and_bars():
    short = BAD_BARS["too short"][0]
    rates = abc_notation.summary([JIG, short, "prose", JIG])
    assert rates == {"parse_rate": 0.75, "bars_add_up_rate": 0.5, "good_bar_rate": 14 / 15}
    assert abc_notation.summary(["prose"])["good_bar_rate"] == 0


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_any_text_can_be_judged(text):
    for whole in (text, HEAD.format("4/4", "D") + text, jig(FULL + text)):
        song = abc_notation.judge(whole)
        assert song.parses == (not song.reason)
        abc_notation.melody_key(whole)


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_mutilated_tunes_can_be_judged(rng, cut):
    text = rng.choice(corpus())
    text = text[: rng.randrange(len(text))] if cut else text
    signs = "ABCDGabcgzx|:[](){}<>/\\^_=,'\"!.~ 0123456789\nMKLVXTh-%é"
    for _ in range(rng.choice([1, 3, 20])):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(signs) + text[at + rng.choice([0, 1]) :]
    song = abc_notation.judge(text)
    assert 0 <= song.good_bars <= song.bars
    assert song.adds_up <= song.parses


def test_nothing_is_printed(capfd):
    for text in [*corpus()[::200], jig(FULL + '"a"b"|d3 c3"G6|')]:
        assert abc_notation.judge(text)
    assert capfd.readouterr() == ("", "")


def test_body_is_the_music_alone():
    text = jig("GAB c2d|% half\nw:la la\nP:B\ne3 g2e:|\n%%staffsep 3")
    assert abc_notation.body(text) == "GAB c2d|\ne3 g2e:|"


def test_one_key_for_a_tune_that_only_looks_different():
    same = "X:77\nT:Another Name\nT:or two\nM:6/8\nK:G\n"
    same += "|:D|{a}GAB\t(c2d)|\ne3g2 e |!f!dBG ~A2G||E3 D2|]"
    assert abc_notation.melody_key(same) == abc_notation.melody_key(JIG)
    assert abc_notation.melody_key(JIG).startswith("D | G A B c2 d | e3 ")
    for other in ("GAB c2e", "GAB c2d'", "GAB c2=d", "GAB c>d"):
        assert abc_notation.melody_key(JIG.replace("GAB c2d", other)) != abc_notation.melody_key(
            JIG
        )


def test_copied_share():
    other = reel("^f=gab c'd'e'f'|_B,2C,2 D,4|z2A4z2|f3e d3c|")
    assert abc_notation.copied_share([JIG], [JIG]) == 1
    assert abc_notation.copied_share([JIG], [JIG.replace("X:1\nT:A Tune", "X:2\nT:Other")]) == 1
    assert abc_notation.copied_share([JIG], [other]) == 0
    assert (
        abc_notation.copied_share([], [JIG])
        == abc_notation.copied_share(["X:1\nK:G\nABc|"], [JIG])
        == 0
    )
    # Runs of 2 in `A B c d`: AB, Bc, cd; the first two are there.
    assert abc_notation.copied_share(["ABcd"], ["gABc", "dc"], n=2) == pytest.approx(2 / 3)
    # Runs do not go on from one training text to the next.
    assert abc_notation.copied_share(["ABcd"], ["AB", "cd"], n=3) == 0


def midi_notes(path: Path) -> list[tuple[tuple[int, ...], float]]:
    from music21 import converter

    return [
        (tuple(p.midi for p in thing.pitches), float(thing.quarterLength))
        for thing in converter.parse(path).stripTies().flatten().notes
    ]


def test_midi_has_the_pitches_and_lengths(tmp_path):
    path = tmp_path / "tune.mid"
    # F and C are sharp in D; ^G lasts for the bar, a natural until the next one.
    abc_notation.write_midi(reel("D,F c>d ^GG [DA]2|=Fffg- g2 a2|FG,, A4 c'2|]"), path)
    notes = midi_notes(path)
    assert notes == [
        ((50,), 0.5), ((66,), 0.5), ((73,), 0.75), ((74,), 0.25), ((68,), 0.5), ((68,), 0.5),
        ((62, 69), 1), ((65,), 0.5), ((77,), 0.5), ((77,), 0.5), ((79,), 1.5), ((81,), 1),
        ((66,), 0.5), ((43,), 0.5), ((69,), 2), ((85,), 1),
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["tune.mid"]


def test_tied_accidental_is_held_over_the_bar_line(tmp_path):
    path = tmp_path / "tune.mid"
    abc_notation.write_midi(reel("ABcd efg^G-|G2 GA Bcde|A8|", key="C"), path)
    assert midi_notes(path)[7:9] == [((68,), 1.5), ((67,), 0.5)]


@pytest.mark.parametrize(
    ("key", "sharp", "flat"),
    [("G", "F", ""), ("Gm", "", "BE"), ("A Mixolydian", "FC", ""), ("Ddor", "", ""),
     ("Hp", "FC", ""), ("Eb", "", "BEA"), ("F#m", "FCG", ""), ("E Minor", "F", ""),
     ("Glyd clef=bass", "FC", "")],
)  # fmt: skip
def test_keys(key, sharp, flat, tmp_path):
    path = tmp_path / "tune.mid"
    abc_notation.write_midi(reel("CDEF GABc|CDEF GABc|", key), path)
    plain = dict(zip("CDEFGAB", (60, 62, 64, 65, 67, 69, 71), strict=True))
    expected = [plain[note] + (note in sharp) - (note in flat) for note in plain]
    assert [pitch for (pitch,), _ in midi_notes(path)[:7]] == expected


def test_midi_of_real_tunes_is_what_music21_makes_of_them(tmp_path):
    """Two readers agree, where music21's has none of its known gaps."""
    from music21 import converter

    path = tmp_path / "tune.mid"
    plain = [
        t
        for t in corpus()
        if not re.search(r"[H-Zh-y~\[{<>^_=!-]|[A-G]::|\(\d", abc_notation.body(t))
    ]
    for text in random.Random(2).sample(plain, 5):
        abc_notation.write_midi(text, path)
        theirs = [n.pitch.midi for n in converter.parseData(text, format="abc").flatten().notes]
        assert [pitch for (pitch,), _ in midi_notes(path)] == theirs


@pytest.mark.parametrize("write", [abc_notation.write_midi, abc_notation.write_score])
def test_no_file_of_what_is_no_tune(write, tmp_path):
    with pytest.raises(UserError, match=r"^tune\.out: the text is no tune .*: does not begin"):
        write("prose", tmp_path / "tune.out")
    assert list(tmp_path.iterdir()) == []


def test_without_verovio_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="make setup EXTRAS=music"):
        abc_notation.write_score(JIG, tmp_path / "tune.svg")


def test_score_shows_every_note(tmp_path):
    pytest.importorskip("verovio")
    path = tmp_path / "tune.svg"
    # A line break `!` at the end of a line makes Verovio end its process.
    abc_notation.write_score(jig("D|GAB !f!c2d|(e3 [gb]2)e!\ndBG A>{c}AG|E3 D2:|"), path)
    svg = path.read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "A Tune" in svg
    assert len(re.findall(r'class="note["\s]', svg)) == 19


def test_verovio_that_dies_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("verovio")
    monkeypatch.setattr(abc_notation, "_DRAW", "import os; os.abort()")
    with pytest.raises(UserError, match=r"^tune\.svg: Verovio cannot draw the tune$"):
        abc_notation.write_score(JIG, tmp_path / "tune.svg")
    assert list(tmp_path.iterdir()) == []
