"""Checks of tunes: music21, rates over several texts, melody keys and copying."""

from __future__ import annotations

import random

import pytest

from pipelines.generation import tunes
from tests.support.tunes import FULL, JIG, corpus, jig, reel


def test_text_that_music21_cannot_read_is_invalid():
    # It reads the D as the start of a header, "D:: …" as every other, and M: as a metre.
    report = tunes.check(jig(FULL + "E3 M::D3|"))
    assert not report.valid
    assert report.reason.startswith("music21: ")


def test_real_tunes_are_valid_and_their_bars_complete():
    rates = tunes.summarize(random.Random(1).sample(corpus(), 60))
    assert rates["parse_rate"] >= 0.95
    assert rates["bars_add_up_rate"] >= 0.85
    assert rates["good_bar_rate"] >= 0.98


def test_summary_counts_tunes_and_bars():
    short = jig(FULL + "A3 B2|d3 e3|")
    rates = tunes.summarize([JIG, short, "prose", JIG])
    assert rates == {"parse_rate": 0.75, "bars_add_up_rate": 0.5, "good_bar_rate": 14 / 15}
    assert tunes.summarize(["prose"])["good_bar_rate"] == 0


def test_nothing_is_printed(capfd):
    for text in [*corpus()[::200], jig(FULL + '"a"b"|d3 c3"G6|')]:
        assert tunes.check(text)
    assert capfd.readouterr() == ("", "")


def test_music_lines_leave_out_fields_and_comments():
    text = jig("GAB c2d|% half\nw:la la\nP:B\ne3 g2e:|\n%%staffsep 3")
    assert tunes.music_lines(text) == "GAB c2d|\ne3 g2e:|"


def test_melody_key_ignores_layout_and_ornaments():
    same = "X:77\nT:Another Name\nT:or two\nM:6/8\nK:G\n"
    same += "|:D|{a}GAB\t(c2d)|\ne3g2 e |!f!dBG ~A2G||E3 D2|]"
    assert tunes.melody_key(same) == tunes.melody_key(JIG)
    assert tunes.melody_key(JIG).startswith("D | G A B c2 d | e3 ")
    for other in ("GAB c2e", "GAB c2d'", "GAB c2=d", "GAB c>d"):
        assert tunes.melody_key(JIG.replace("GAB c2d", other)) != tunes.melody_key(JIG)


def test_copied_share():
    other = reel("^f=gab c'd'e'f'|_B,2C,2 D,4|z2A4z2|f3e d3c|")
    assert tunes.copied_share([JIG], [JIG]) == 1
    assert tunes.copied_share([JIG], [JIG.replace("X:1\nT:A Tune", "X:2\nT:Other")]) == 1
    assert tunes.copied_share([JIG], [other]) == 0
    assert tunes.copied_share([], [JIG]) == tunes.copied_share(["X:1\nK:G\nABc|"], [JIG]) == 0
    # Runs of 2 in `A B c d`: AB, Bc, cd; the first two are there.
    assert tunes.copied_share(["ABcd"], ["gABc", "dc"], n=2) == pytest.approx(2 / 3)
    # Runs do not go on from one training text to the next.
    assert tunes.copied_share(["ABcd"], ["AB", "cd"], n=3) == 0
