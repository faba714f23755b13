"""Folk tunes in ABC notation: is a text one, do its bars add up, how much of it is copied.

Bars are read here, strictly and exactly, and not from music21's tokens. music21 passes over what
it does not know (prose becomes notes), leaves out a ``>`` before a slur or a grace note, inline
fields and accidentals that last for a bar, and takes the end of ``D::`` for a header. It still
has its say in `judge` (what it cannot read is no tune), and it writes the MIDI file.

music21 and Verovio are imported where they are used: importing music21 takes seconds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import subprocess
import sys
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import write_bytes, write_text

#: Fewer notes are no tune: two bars of quavers in a jig.
LEAST_NOTES = 12

_PITCH = r"(?:\^{1,2}|_{1,2}|=)?[A-Ga-g][,']*"
_LENGTH = r"(?:\d{1,3}(?:/{1,5}\d{0,3})?|/{1,5}\d{0,3})?"
_DECORATION = "[.~HKLMOPSTUVkuv]"
#: The music of one line (ABC standard 2.1, section 4). The first that fits counts, so a field
#: and an ending stand before the chord and the bar that begin with the same bracket.
_TOKEN = re.compile(
    rf"""
      (?P<skip> [\s`\\]+ | "[^"]*" | !(?:\d|[A-Za-z.]+[()]?|[<>][()])! | ! | y\d* | [()](?!\d)
              | \{{/?(?:{_DECORATION}|{_PITCH}{_LENGTH}|[()<>\s-])*\}}
              | Hx(?![\d/])  # a fermata over the bar line
              | {_DECORATION} )
    | (?P<inline> \[ (?P<name>[A-Za-z]) : (?P<value>[^\]]*) \] )
    | (?P<ending> \[\d+(?:[,-]\d+)* | (?<=[|:])\d+(?:[,-]\d+)* )
    | (?P<bar> \[\|\] | \.?:*\[?\|+\]?:* | :{{2,}} )
    | (?P<chord> \[ (?P<inside>(?:{_DECORATION}|{_PITCH}{_LENGTH}-?|[()\s]|"[^"]*")+) \]
                 (?P<times>{_LENGTH}) )
    | (?P<note> (?P<pitch>{_PITCH}) (?P<length>{_LENGTH}) )
    | (?P<rest> [zx] (?P<pause>{_LENGTH}) )
    | (?P<broken> >{{1,3}}(?!>) | <{{1,3}}(?!<) )
    | (?P<tuplet> \( (?P<p>[2-9])(?!\d) (?: :(?P<q>\d?) (?: :(?P<r>\d{{0,2}}) )? )? )
    | (?P<tie> - )
    """,
    re.VERBOSE | re.ASCII,
)
_INSIDE = re.compile(rf"(?P<pitch>{_PITCH})(?P<length>{_LENGTH})")
#: A field between lines of music; not ``E:|``.
FIELD = re.compile(r"([A-Za-z+]):(?![|:])(.*)")
_HEADER = re.compile(r"([A-Za-z+]):(.*)")
_KEY = re.compile(
    r"([A-G])([#b]?)(?: ?(maj|min|mix|ion|dor|phr|lyd|aeo|loc|m)[a-z]*)?(?=$|[ \t=^_])", re.I
)
_SHARPS = {"lyd": 1, "maj": 0, "ion": 0, "mix": -1, "dor": -2, "min": -3, "m": -3, "aeo": -3}
_SHARPS |= {"phr": -4, "loc": -5}
_SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
#: Crotchets a minute in a MIDI file: between the paces of a reel and a jig. Q: is not read.
_TEMPO = 160
#: Samples a second.
_RATE = 22_050
#: Notes in the time of how many others where a tuplet does not say; in a compound metre
#: 5, 7 and 9 stand for three, else for two.
_TUPLETS = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}

#: What `copied_share` and `melody_key` compare. Ornaments, words and slurs are passed over.
_MELODY = re.compile(rf"{_PITCH}{_LENGTH}(?:\s*[<>]+)?|[zx]{_LENGTH}|\|[|:\[\]\s]*|::")
_NOT_MELODY = re.compile(r"\"[^\"\n]*\"|![^!\n]*!|\{[^}\n]*\}|\[[A-Za-z]:[^\]\n]*\]|%.*")


@dataclass(frozen=True)
class Song:
    """What `judge` says of a text: whether it is a tune, why not, and its bars."""

    parses: bool
    reason: str = ""
    bars: int = 0
    good_bars: int = 0

    @property
    def adds_up(self) -> bool:
        """All bars are as long as the metre says (false for what is no tune)."""
        return self.parses and self.good_bars == self.bars


@dataclass
class _Sound:
    """Notes that sound together, MIDI numbers; none for a rest. The length is in whole notes."""

    pitches: tuple[int, ...]
    length: Fraction
    tied: bool = False


@dataclass(frozen=True)
class _Bar:
    sounds: tuple[_Sound, ...]
    metre: Fraction
    #: At an end of a part (pick-ups): it may be shorter than the metre.
    at_edge: bool

    @property
    def good(self) -> bool:
        length = sum((sound.length for sound in self.sounds), Fraction())
        return length == self.metre or (self.at_edge and length < self.metre)


class _NoTuneError(Exception):
    """Says why a text is no tune."""


def judge(text: str) -> Song:
    """Whether a text is one tune in ABC notation, and how many of its bars add up.

    A tune begins with ``X:``, has the headers ``M:`` (without a metre no bar can be judged;
    ``M:none`` will not do) and ``K:``, which ends the headers, then at least `LEAST_NOTES` notes
    and one bar line, and nothing that is not ABC: not even a line of prose below it. music21 must
    read it too.

    A bar is good if its notes and rests last as long as the metre says. The first and the last
    bar of a part and the first of an ending may be shorter, as pick-ups make them; parts end at
    repeats, double bars and the fields ``M:``, ``P:``, ``T:`` and ``V:``.
    """
    try:
        bars = _read(text)
        _read_by_music21(text)
    except _NoTuneError as error:
        return Song(False, str(error))
    return Song(True, bars=len(bars), good_bars=sum(bar.good for bar in bars))


def summary(texts: Sequence[str]) -> dict[str, float]:
    """Rates over ``texts``, of which there must be some.

    ``good_bar_rate`` is the share of good bars in the texts that parse: 0 if none does.
    """
    songs = [judge(text) for text in texts]
    bars = sum(song.bars for song in songs)
    return {
        "parse_rate": sum(song.parses for song in songs) / len(songs),
        "bars_add_up_rate": sum(song.adds_up for song in songs) / len(songs),
        "good_bar_rate": sum(song.good_bars for song in songs) / bars if bars else 0.0,
    }


def body(text: str) -> str:
    """The music without headers, fields between its lines, and comments."""
    lines = (line.split("%")[0] for line in _lines(text))
    return "\n".join(line for line in lines if line.strip() and not FIELD.match(line))


def melody_key(text: str) -> str:
    """One key for a tune whatever its number, title, spacing, ornaments and kinds of bar line."""
    return " ".join(_melody(text)).strip("| ")


def copied_share(texts: Sequence[str], training: Sequence[str], n: int = 8) -> float:
    """Share of all runs of ``n`` melody tokens in ``texts`` that occur in a training text.

    A token is a note as written (accidental, octave, length, ``>``), a rest or a bar line of
    whatever kind. 0 if ``texts`` have no ``n`` tokens in a row.
    """
    runs = [run for text in texts for run in _runs(text, n)]
    wanted = set(runs)
    found: set[tuple[str, ...]] = set()
    for text in training:
        found |= wanted.intersection(_runs(text, n))
    return sum(run in found for run in runs) / len(runs) if runs else 0.0


def _runs(text: str, n: int) -> Iterator[tuple[str, ...]]:
    tokens = _melody(text)
    return zip(*(tokens[i:] for i in range(n)), strict=False)


def _melody(text: str) -> list[str]:
    tokens: list[str] = []
    for token in _MELODY.findall(_NOT_MELODY.sub(" ", body(text))):
        if "|" in token or "::" in token:
            if tokens and tokens[-1] != "|":
                tokens.append("|")
        else:
            tokens.append("".join(token.split()))
    return tokens


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").strip().split("\n")


def _read(text: str) -> list[_Bar]:
    """The bars of a tune.

    Raises:
        _NoTuneError: it is none.
    """
    reader = _Reader()
    in_header, ended = True, False
    for number, written in enumerate(_lines(text)):
        line = written.split("%")[0].strip()
        if number == 0 and not re.fullmatch(r"X:\s*\d+", line):
            raise _NoTuneError("does not begin with X: and a number")
        field = (_HEADER if in_header else FIELD).match(line)
        if not line:
            # An empty line ends a tune; a line with only a comment does not.
            ended = ended or not (in_header or written.strip())
        elif ended:
            raise _NoTuneError("text after the end of the tune")
        elif field:
            if number and field[1] == "X":
                raise _NoTuneError("more than one tune")
            reader.field(field[1], field[2].strip())
            in_header = in_header and field[1] != "K"
        elif in_header:
            raise _NoTuneError(f"no header: {line[:40]!r}")
        else:
            reader.line(line)
    if in_header:
        raise _NoTuneError("no K:")
    return reader.finish()


class _Reader:
    """Reads a tune line by line."""

    def __init__(self) -> None:
        self.bars: list[_Bar] = []
        self.sounds: list[_Sound] = []  # of the bar that is being read
        self.metre: Fraction | None = None
        self.compound = False
        self.unit: Fraction | None = None  # L:
        self.sharps: dict[str, int] = {}
        self.accidentals: dict[str, int] = {}  # of this bar
        self.tied: dict[str, int] = {}  # of the bar before, for a note tied to it
        self.edge = True  # a part begins here
        self.bar_lines = self.notes = 0
        self.broken: Fraction | None = None  # what is left for the note after > or <
        self.tuplet, self.tuplet_notes = Fraction(1), 0

    def field(self, name: str, value: str) -> None:
        if name == "M":
            self._metre(value)
        elif name == "L":
            match = re.fullmatch(r"(\d{1,3})/(\d{1,3})", value)
            if not match or not int(match[1]) or not int(match[2]):
                raise _NoTuneError(f"L:{value} is no length")
            self.unit = Fraction(int(match[1]), int(match[2]))
        elif name == "K":
            self._key(value)
        elif name in "PTV":
            self._end_part()

    def _metre(self, value: str) -> None:
        match = re.fullmatch(
            r"(\d{1,2})/(1|2|4|8|16|32)", {"C": "4/4", "C|": "2/2"}.get(value, value)
        )
        if not match or not int(match[1]):
            raise _NoTuneError(f"M:{value} is no metre")
        self._end_part()
        top, bottom = int(match[1]), int(match[2])
        self.metre = Fraction(top, bottom)
        self.compound = bottom >= 8 and top % 3 == 0

    def _key(self, value: str) -> None:
        if self.metre is None:
            raise _NoTuneError("no M: before K:")
        if self.unit is None:
            self.unit = Fraction(1, 16 if self.metre < Fraction(3, 4) else 8)
        if value in ("HP", "Hp"):  # bagpipes
            sharps = 2
        elif match := _KEY.match(value):
            sharps = "FCGDAEB".index(match[1].upper()) - 1
            sharps += {"": 0, "#": 7, "b": -7}[match[2].lower()]
            sharps += _SHARPS[(match[3] or "maj").lower()]
        else:
            raise _NoTuneError(f"K:{value} is no key")
        if abs(sharps) > 7:
            raise _NoTuneError(f"K:{value} is no key")
        order, sign = ("fcgdaeb", 1) if sharps > 0 else ("beadgcf", -1)
        self.sharps = dict.fromkeys(order[: abs(sharps)], sign)

    def line(self, line: str) -> None:
        position = 0
        while position < len(line):
            match = _TOKEN.match(line, position)
            if not match:
                raise _NoTuneError(f"no music: {line[position : position + 20]!r}")
            self._token(match)
            position = match.end()

    def _token(self, match: re.Match[str]) -> None:
        if match["inline"]:
            self.field(match["name"], match["value"].strip())
        elif match["bar"]:
            self.bar_lines += 1
            self._end_bar(edge=match["bar"] not in ("|", ".|"))
        elif match["ending"]:
            self.edge = self.edge or not self.sounds
        elif match["chord"]:
            notes = list(_INSIDE.finditer(re.sub(r'"[^"]*"', "", match["inside"])))
            if not notes:
                raise _NoTuneError(f"no notes in {match['chord']!r}")
            length = _length(notes[0]["length"]) * _length(match["times"])
            self._sound(tuple(self._pitch(note["pitch"]) for note in notes), length)
        elif match["note"]:
            self._sound((self._pitch(match["pitch"]),), _length(match["length"]))
        elif match["rest"]:
            self._sound((), _length(match["pause"]))
        elif match["broken"]:
            self._broken(match["broken"])
        elif match["tuplet"]:
            p = int(match["p"])
            q = int(match["q"] or _TUPLETS.get(p, 3 if self.compound else 2))
            self.tuplet, self.tuplet_notes = Fraction(q, p), int(match["r"] or p)
        elif match["tie"] and self.sounds:
            self.sounds[-1].tied = True

    def _sound(self, pitches: tuple[int, ...], length: Fraction) -> None:
        assert self.unit is not None  # K: has set it
        length *= self.unit
        if self.tuplet_notes:
            self.tuplet_notes -= 1
            length *= self.tuplet
        if self.broken is not None:
            length *= self.broken
            self.broken = None
        if not length:
            raise _NoTuneError("a note without length")
        self.notes += len(pitches) > 0
        self.tied = {}
        self.sounds.append(_Sound(pitches, length))

    def _broken(self, signs: str) -> None:
        if not self.sounds or self.broken is not None:
            raise _NoTuneError(f"{signs} is not between two notes")
        short = Fraction(1, 2 ** len(signs))
        left, self.broken = (2 - short, short) if signs[0] == ">" else (short, 2 - short)
        self.sounds[-1].length *= left

    def _pitch(self, written: str) -> int:
        letter = written.lstrip("^_=")[0]
        step = letter.lower()
        sign = written[: written.index(letter)]
        if sign:
            # It lasts to the end of the bar, in all octaves (ABC 2.1, section 11.3).
            self.accidentals[step] = sign.count("^") - sign.count("_")
        pitch = 60 + _SEMITONES[step] + 12 * (letter.islower() + written.count("'"))
        lasting = self.sharps | self.tied | self.accidentals
        pitch += lasting.get(step, 0) - 12 * written.count(",")
        if not 0 <= pitch <= 127:
            raise _NoTuneError(f"{written} is beyond all instruments")
        return pitch

    def _end_bar(self, edge: bool) -> None:
        if self.broken is not None:
            raise _NoTuneError("a bar ends after > or <")
        if self.sounds:
            assert self.metre is not None  # checked at K:
            self.bars.append(_Bar(tuple(self.sounds), self.metre, edge or self.edge))
            self.edge = False
            self.tied = self.accidentals if self.sounds[-1].tied else {}
        elif edge and self.bars:
            # The part ended with the bar line before this one.
            self.bars[-1] = replace(self.bars[-1], at_edge=True)
        self.edge = self.edge or edge
        self.sounds = []
        self.accidentals = {}

    def _end_part(self) -> None:
        if self.sounds or self.bars:
            self._end_bar(edge=True)

    def finish(self) -> list[_Bar]:
        self._end_bar(edge=True)
        if self.notes < LEAST_NOTES:
            raise _NoTuneError(f"{self.notes} notes only")
        if not self.bar_lines:
            raise _NoTuneError("no bar lines")
        return self.bars


def _length(written: str) -> Fraction:
    """``3/2``, ``/``, ``//``, ``3/`` as ABC means them, in units of L:."""
    top, slashes, bottom = re.fullmatch(r"(\d*)(/*)(\d*)", written).groups()  # type: ignore[union-attr]
    divisor = int(bottom) if bottom else 2 ** len(slashes)
    if not divisor:
        raise _NoTuneError(f"{written} is no length")
    return Fraction(int(top or 1), divisor)


def _read_by_music21(text: str) -> None:
    """Raises `_NoTuneError` if music21 has an error in it."""
    from music21.abcFormat import ABCHandler
    from music21.exceptions21 import Music21Exception

    try:
        # It warns of what it passes over, on the screen.
        with contextlib.redirect_stderr(io.StringIO()):
            ABCHandler().process("\n".join(_lines(text)))
    # Its own exceptions (ABCHandlerException, ABCTokenException, MeterException and others) for
    # what it checks; for what it does not: int("") and unpacking, the end of the text, and x/0.
    except (Music21Exception, ValueError, IndexError, ZeroDivisionError) as error:
        raise _NoTuneError(f"music21: {error}") from None


def write_midi(text: str, path: Path) -> None:
    """The tune as a MIDI file: every bar once, in the order of the text (repeats and voices too).

    Raises:
        UserError: the text is no tune.
    """
    sounds = _sounds(text, path)
    from music21 import chord, note, stream, tempo
    from music21.midi.translate import streamToMidiFile

    part: Any = stream.Part([tempo.MetronomeMark(number=_TEMPO)])
    for sound in sounds:
        thing = chord.Chord(sound.pitches) if sound.pitches else note.Rest()
        thing.quarterLength = 4 * sound.length
        part.append(thing)
    data = streamToMidiFile(part).writestr()
    write_bytes(path, lambda file: file.write(data))


def write_wav(text: str, path: Path) -> None:
    """The notes of `write_midi` as a WAV file, as a plucked string sounds, about.

    Raises:
        UserError: the text is no tune.
    """
    sounds = _sounds(text, path)
    pieces = []
    for sound in sounds:
        seconds = float(4 * sound.length) * 60 / _TEMPO
        at = np.arange(max(int(seconds * _RATE), 1)) / _RATE
        # Overtones fade faster; the ends are smooth, so that nothing clicks.
        shape = np.minimum(1, at / 0.005) * np.minimum(1, (seconds - at) / 0.01).clip(0)
        tone = np.zeros_like(at)
        for note in sound.pitches:
            frequency = 440 * 2 ** ((note - 69) / 12)
            for k in range(1, 6):
                tone += np.sin(2 * np.pi * k * frequency * at) * np.exp(-2 * k * at) / k**1.5
        pieces.append(tone * shape / max(len(sound.pitches), 1))
    whole = np.concatenate(pieces) if pieces else np.zeros(1)
    whole *= 0.8 / max(float(np.abs(whole).max()), 1e-9)
    data = io.BytesIO()
    with wave.open(data, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(_RATE)
        out.writeframes((32767 * whole).astype("<i2").tobytes())
    write_bytes(path, lambda file: file.write(data.getvalue()))


def _sounds(text: str, path: Path) -> list[_Sound]:
    """The notes and rests of a tune, those that are tied as one."""
    sounds: list[_Sound] = []
    for sound in (sound for bar in _tune(text, path) for sound in bar.sounds):
        if sounds and sounds[-1].tied and sounds[-1].pitches == sound.pitches:
            sounds[-1] = _Sound(sound.pitches, sounds[-1].length + sound.length, sound.tied)
        else:
            sounds.append(sound)
    return sounds


#: Draws in a process of its own: on some texts Verovio, written in C++, ends its process.
#: One page, as high as the tune.
_DRAW = """
import sys, verovio
verovio.enableLog(verovio.LOG_OFF)
kit = verovio.toolkit()
kit.setOptions({"inputFrom": "abc", "adjustPageHeight": True, "pageHeight": 60000, "scale": 40})
if not kit.loadData(sys.stdin.buffer.read().decode()):
    sys.exit("not read")
sys.stdout.buffer.write(kit.renderToSVG(1).encode())
"""


def write_score(text: str, path: Path) -> None:
    """The tune as sheet music, an SVG picture.

    Raises:
        UserError: the text is no tune, or Verovio, which draws it, is not installed or fails.
    """
    _tune(text, path)
    if importlib.util.find_spec("verovio") is None:
        raise UserError(
            f"{path.name}: sheet music needs the package verovio, which this installs: "
            "make setup EXTRAS=music"
        )
    # An old-fashioned line break at a line's end would make Verovio abort.
    lines = (
        line if FIELD.match(line) else re.sub(r"(![^!\s]+!)|!", r"\1", line)
        for line in _lines(text)
    )
    command = [sys.executable, "-c", _DRAW]
    abc = "\n".join([*lines, ""]).encode()
    try:
        drawn = subprocess.run(command, input=abc, capture_output=True, timeout=60, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise UserError(f"{path.name}: Verovio cannot draw the tune") from None
    write_text(path, drawn.stdout.decode())


def _tune(text: str, path: Path) -> list[_Bar]:
    song = judge(text)
    if not song.parses:
        raise UserError(f"{path.name}: the text is no tune in ABC notation: {song.reason}")
    return _read(text)
