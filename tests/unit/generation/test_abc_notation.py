"""Parsing of tunes: valid and invalid texts, complete and incomplete bars."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.generation import tunes
from tests.support.tunes import FULL, HEAD, JIG, corpus, jig, reel

VALID = {
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


@pytest.mark.parametrize("name", VALID)
def test_bars_of_valid_tunes_are_complete(name):
    text, bars = VALID[name]
    report = tunes.check(text)
    assert report == tunes.TuneReport(valid=True, bars=bars, complete_bars=bars)
    assert report.all_bars_complete


INCOMPLETE = {
    "too long": (jig(FULL + "A3 B3 c|d3 e3|"), 5, 4),
    "too short": (jig(FULL + "A3 B2|d3 e3|"), 5, 4),
    "first too long": (jig("ABcdefg|" + FULL + "A3 B3|"), 5, 4),
    "last too long": (jig(FULL + "ABcdefg:|"), 4, 3),
    "bar before the last short": (jig(FULL + "A3|A3|"), 5, 4),
    "wrong metre": (reel("GAB c2d|e3 g2e|dBG A2G|E3 D3|EFG ABc|"), 5, 2),
    "triplet without its sign": (reel("ABcd efg|(3ABc defg|ABcd efg|A8|"), 4, 2),
    "no rest for the x": (reel("A2B2 c2d2 x2|ABcd efga|A8|"), 3, 2),
}


@pytest.mark.parametrize("name", INCOMPLETE)
def test_incomplete_bars_are_counted(name):
    text, bars, good = INCOMPLETE[name]
    report = tunes.check(text)
    assert (report.valid, report.bars, report.complete_bars) == (True, bars, good), report.reason
    assert not report.all_bars_complete


INVALID = {
    "empty": ("", "begin with X:"),
    "white space": (" \n\n ", "begin with X:"),
    "prose": ("The cat sat on the mat. | It purred. |", "begin with X:"),
    "prose for music": (jig("Once there was a fiddler | who played a jig |"), "not music: 'nce"),
    "prose in a bar": (jig(FULL + "and so on|"), "not music: 'nd so on"),
    "prose below": (JIG + "\nThis is a jig.\n", "text after the end"),
    "prose in the header": (JIG.replace("L:", "Some words\nL:"), "not a header: 'Some words'"),
    "prose as a grace note": (jig(FULL + "{so it goes}G6|"), "not music: '{so"),
    "headers only": (HEAD.format("6/8", "G"), "only 0 notes"),
    "no K:": (JIG.replace("K:G\n", ""), "not a header: 'D|GAB"),
    "cut in the header": (JIG[:12], "no K:"),
    "no M:": (JIG.replace("M:6/8\n", ""), "no M:"),
    "M:none": (JIG.replace("M:6/8", "M:none"), "M:none is not a metre"),
    "M:0/8": (JIG.replace("M:6/8", "M:0/8"), "M:0/8 is not a metre"),
    "L:1/0": (JIG.replace("L:1/8", "L:1/0"), "L:1/0 is not a length"),
    "unknown key": (JIG.replace("K:G", "K:H"), "K:H is not a key"),
    "key with nine sharps": (JIG.replace("K:G", "K:G#lyd"), "K:G#lyd is not a key"),
    "two tunes": (JIG + JIG, "more than one tune"),
    "no bar lines": (jig("GABc2de3g2edBGA2G"), "no bar lines"),
    "few notes": (jig("GAB|c2d e3:|"), "only 6 notes"),
    "no length": (jig(FULL + "G0|"), "no length"),
    "division by zero": (jig(FULL + "G/0|"), "/0 is not a length"),
    "open quote": (jig(FULL + 'G "slow|'), "not music: '\"slow"),
    "open chord": (jig(FULL + "[GB d3|"), "not music: '[GB d3"),
    "> before a bar": (jig(FULL + "A>|B|"), "a bar ends after >"),
    "> after a bar": (jig(FULL + ">A|B|"), "> is not between two notes"),
    "too low": (jig(FULL + "C,,,,,,,|"), "outside the MIDI range"),
    "endless number": (jig(FULL + "A" + "1" * 5000), "not music: '111"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_tunes_are_reported_with_a_reason(name):
    text, reason = INVALID[name]
    report = tunes.check(text)
    assert not report.valid
    assert reason in report.reason
    assert (report.bars, report.complete_bars, report.all_bars_complete) == (0, 0, False)


def test_last_bar_of_a_truncated_tune_may_be_short():
    assert tunes.check(JIG[: JIG.index("2G|")]).complete_bars == 4
    cut = tunes.check(JIG[: JIG.index(" A2G|")])
    assert (cut.bars, cut.complete_bars) == (4, 4)


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_any_text_can_be_checked(text):
    for whole in (text, HEAD.format("4/4", "D") + text, jig(FULL + text)):
        report = tunes.check(whole)
        assert report.valid == (not report.reason)
        tunes.melody_key(whole)


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_corrupted_tunes_can_be_checked(rng, cut):
    text = rng.choice(corpus())
    text = text[: rng.randrange(len(text))] if cut else text
    signs = "ABCDGabcgzx|:[](){}<>/\\^_=,'\"!.~ 0123456789\nMKLVXTh-%é"
    for _ in range(rng.choice([1, 3, 20])):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(signs) + text[at + rng.choice([0, 1]) :]
    report = tunes.check(text)
    assert 0 <= report.complete_bars <= report.bars
    assert report.all_bars_complete <= report.valid
