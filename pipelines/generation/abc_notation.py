"""A strict parser for folk tunes in ABC notation (standard 2.1).

The bars are parsed here because music21 is too lenient to count them exactly: it skips what it does
not know (prose becomes notes), ignores a ``>`` before a slur or a grace note, inline fields and
accidentals that last for a bar, and takes the end of ``D::`` for a header.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

#: Minimum number of notes in a tune: two bars of quavers in a jig.
MIN_NOTES = 12

#: Patterns of a pitch and of a length, without groups.
PITCH = r"(?:\^{1,2}|_{1,2}|=)?[A-Ga-g][,']*"
LENGTH = r"(?:\d{1,3}(?:/{1,5}\d{0,3})?|/{1,5}\d{0,3})?"
_DECORATION = "[.~HKLMOPSTUVkuv]"
#: Tokens of a line of music (ABC standard 2.1, section 4). The first alternative that matches wins,
#: so inline fields and endings come before chords and bar lines, which start with the same bracket.
_TOKEN = re.compile(
    rf"""
      (?P<skip> [\s`\\]+ | "[^"]*" | !(?:\d|[A-Za-z.]+[()]?|[<>][()])! | ! | y\d* | [()](?!\d)
              | \{{/?(?:{_DECORATION}|{PITCH}{LENGTH}|[()<>\s-])*\}}
              | Hx(?![\d/])  # a fermata over the bar line
              | {_DECORATION} )
    | (?P<inline> \[ (?P<name>[A-Za-z]) : (?P<value>[^\]]*) \] )
    | (?P<ending> \[\d+(?:[,-]\d+)* | (?<=[|:])\d+(?:[,-]\d+)* )
    | (?P<bar> \[\|\] | \.?:*\[?\|+\]?:* | :{{2,}} )
    | (?P<chord> \[ (?P<inside>(?:{_DECORATION}|{PITCH}{LENGTH}-?|[()\s]|"[^"]*")+) \]
                 (?P<times>{LENGTH}) )
    | (?P<note> (?P<pitch>{PITCH}) (?P<length>{LENGTH}) )
    | (?P<rest> [zx] (?P<pause>{LENGTH}) )
    | (?P<broken> >{{1,3}}(?!>) | <{{1,3}}(?!<) )
    | (?P<tuplet> \( (?P<p>[2-9])(?!\d) (?: :(?P<q>\d?) (?: :(?P<r>\d{{0,2}}) )? )? )
    | (?P<tie> - )
    """,
    re.VERBOSE | re.ASCII,
)
_INSIDE = re.compile(rf"(?P<pitch>{PITCH})(?P<length>{LENGTH})")
#: A field between lines of music, but not ``E:|``.
FIELD = re.compile(r"([A-Za-z+]):(?![|:])(.*)")
_HEADER = re.compile(r"([A-Za-z+]):(.*)")
_KEY = re.compile(
    r"([A-G])([#b]?)(?: ?(maj|min|mix|ion|dor|phr|lyd|aeo|loc|m)[a-z]*)?(?=$|[ \t=^_])", re.I
)
_SHARPS = {"lyd": 1, "maj": 0, "ion": 0, "mix": -1, "dor": -2, "min": -3, "m": -3, "aeo": -3}
_SHARPS |= {"phr": -4, "loc": -5}
_SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
#: p notes in the time of q, for tuplets that do not give q. Tuplets of 5, 7 and 9 notes take the
#: time of three notes in compound metres and of two in simple ones (ABC 2.1, section 4.13).
_DEFAULT_TUPLET_TIMES = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}


class InvalidTuneError(Exception):
    """The text is not a valid tune. The message gives the reason."""


@dataclass
class Sound:
    """A note, a chord or a rest.

    Attributes:
        pitches: MIDI note numbers; empty for a rest.
        length: In whole notes.
        tied: Whether the sound is tied to the next one.
    """

    pitches: tuple[int, ...]
    length: Fraction
    tied: bool = False


@dataclass(frozen=True)
class Bar:
    """The sounds between two bar lines.

    Attributes:
        sounds: Notes, chords and rests in order.
        metre: The expected length, in whole notes.
        at_edge: Whether the bar begins or ends a part. Such a bar may be shorter than the metre,
            because of pick-ups.
    """

    sounds: tuple[Sound, ...]
    metre: Fraction
    at_edge: bool

    @property
    def is_complete(self) -> bool:
        """Whether the notes and rests are as long as the metre requires."""
        length = sum((sound.length for sound in self.sounds), Fraction())
        return length == self.metre or (self.at_edge and length < self.metre)


def split_lines(text: str) -> list[str]:
    """Split a text into lines, without blank lines at its beginning and end."""
    return text.replace("\r\n", "\n").strip().split("\n")


def parse(text: str) -> list[Bar]:
    """Parse one tune into its bars.

    Args:
        text: Headers starting with ``X:`` and ending with ``K:``, then lines of music.

    Returns:
        The bars in the order of the text; repeats are not expanded.

    Raises:
        InvalidTuneError: The text is not exactly one valid tune.
    """
    parser = _TuneParser()
    in_header, ended = True, False
    for number, raw_line in enumerate(split_lines(text)):
        line = raw_line.split("%")[0].strip()
        if number == 0 and not re.fullmatch(r"X:\s*\d+", line):
            raise InvalidTuneError("does not begin with X: and a number")
        field = (_HEADER if in_header else FIELD).match(line)
        if not line:
            # An empty line ends a tune; a line with only a comment does not.
            ended = ended or not (in_header or raw_line.strip())
        elif ended:
            raise InvalidTuneError("text after the end of the tune")
        elif field:
            if number and field[1] == "X":
                raise InvalidTuneError("more than one tune")
            parser.parse_field(field[1], field[2].strip())
            in_header = in_header and field[1] != "K"
        elif in_header:
            raise InvalidTuneError(f"not a header: {line[:40]!r}")
        else:
            parser.parse_line(line)
    if in_header:
        raise InvalidTuneError("no K:")
    return parser.finish()


class _TuneParser:
    """Parse a tune line by line, keeping what fields, ties and tuplets imply for later notes."""

    def __init__(self) -> None:
        self.bars: list[Bar] = []
        self.sounds: list[Sound] = []  # of the current bar
        self.metre: Fraction | None = None
        self.compound = False
        self.unit_length: Fraction | None = None  # L:
        self.key_signature: dict[str, int] = {}
        self.accidentals: dict[str, int] = {}  # of the current bar
        self.tied_accidentals: dict[str, int] = {}  # of the previous bar, for a note tied to it
        self.at_edge = True  # the current bar begins a part
        self.bar_lines = self.notes = 0
        self.broken_factor: Fraction | None = None  # for the note after > or <
        self.tuplet_factor, self.tuplet_notes = Fraction(1), 0

    def parse_field(self, name: str, value: str) -> None:
        """Apply a header or an inline field; fields that do not affect the bars are ignored."""
        if name == "M":
            self._set_metre(value)
        elif name == "L":
            match = re.fullmatch(r"(\d{1,3})/(\d{1,3})", value)
            if not match or not int(match[1]) or not int(match[2]):
                raise InvalidTuneError(f"L:{value} is not a length")
            self.unit_length = Fraction(int(match[1]), int(match[2]))
        elif name == "K":
            self._set_key(value)
        elif name in "PTV":
            self._end_part()

    def _set_metre(self, value: str) -> None:
        match = re.fullmatch(
            r"(\d{1,2})/(1|2|4|8|16|32)", {"C": "4/4", "C|": "2/2"}.get(value, value)
        )
        if not match or not int(match[1]):
            raise InvalidTuneError(f"M:{value} is not a metre")
        self._end_part()
        top, bottom = int(match[1]), int(match[2])
        self.metre = Fraction(top, bottom)
        self.compound = bottom >= 8 and top % 3 == 0

    def _set_key(self, value: str) -> None:
        if self.metre is None:
            raise InvalidTuneError("no M: before K:")
        if self.unit_length is None:
            self.unit_length = Fraction(1, 16 if self.metre < Fraction(3, 4) else 8)
        if value in ("HP", "Hp"):  # bagpipes
            sharps = 2
        elif match := _KEY.match(value):
            sharps = "FCGDAEB".index(match[1].upper()) - 1
            sharps += {"": 0, "#": 7, "b": -7}[match[2].lower()]
            sharps += _SHARPS[(match[3] or "maj").lower()]
        else:
            raise InvalidTuneError(f"K:{value} is not a key")
        if abs(sharps) > 7:
            raise InvalidTuneError(f"K:{value} is not a key")
        order, sign = ("fcgdaeb", 1) if sharps > 0 else ("beadgcf", -1)
        self.key_signature = dict.fromkeys(order[: abs(sharps)], sign)

    def parse_line(self, line: str) -> None:
        """Parse a line of music."""
        position = 0
        while position < len(line):
            match = _TOKEN.match(line, position)
            if not match:
                raise InvalidTuneError(f"not music: {line[position : position + 20]!r}")
            self._parse_token(match)
            position = match.end()

    def _parse_token(self, match: re.Match[str]) -> None:
        if match["inline"]:
            self.parse_field(match["name"], match["value"].strip())
        elif match["bar"]:
            self.bar_lines += 1
            self._end_bar(at_edge=match["bar"] not in ("|", ".|"))
        elif match["ending"]:
            self.at_edge = self.at_edge or not self.sounds
        elif match["chord"]:
            notes = list(_INSIDE.finditer(re.sub(r'"[^"]*"', "", match["inside"])))
            if not notes:
                raise InvalidTuneError(f"no notes in {match['chord']!r}")
            length = _parse_length(notes[0]["length"]) * _parse_length(match["times"])
            self._add_sound(tuple(self._parse_pitch(note["pitch"]) for note in notes), length)
        elif match["note"]:
            self._add_sound((self._parse_pitch(match["pitch"]),), _parse_length(match["length"]))
        elif match["rest"]:
            self._add_sound((), _parse_length(match["pause"]))
        elif match["broken"]:
            self._apply_broken_rhythm(match["broken"])
        elif match["tuplet"]:
            p = int(match["p"])
            q = int(match["q"] or _DEFAULT_TUPLET_TIMES.get(p, 3 if self.compound else 2))
            self.tuplet_factor, self.tuplet_notes = Fraction(q, p), int(match["r"] or p)
        elif match["tie"] and self.sounds:
            self.sounds[-1].tied = True

    def _add_sound(self, pitches: tuple[int, ...], length: Fraction) -> None:
        assert self.unit_length is not None  # set at K:
        length *= self.unit_length
        if self.tuplet_notes:
            self.tuplet_notes -= 1
            length *= self.tuplet_factor
        if self.broken_factor is not None:
            length *= self.broken_factor
            self.broken_factor = None
        if not length:
            raise InvalidTuneError("a note has no length")
        self.notes += len(pitches) > 0
        self.tied_accidentals = {}
        self.sounds.append(Sound(pitches, length))

    def _apply_broken_rhythm(self, signs: str) -> None:
        if not self.sounds or self.broken_factor is not None:
            raise InvalidTuneError(f"{signs} is not between two notes")
        short = Fraction(1, 2 ** len(signs))
        left, self.broken_factor = (2 - short, short) if signs[0] == ">" else (short, 2 - short)
        self.sounds[-1].length *= left

    def _parse_pitch(self, text: str) -> int:
        """Return the MIDI note number of a note, given the key and the accidentals so far."""
        letter = text.lstrip("^_=")[0]
        step = letter.lower()
        sign = text[: text.index(letter)]
        if sign:
            # An accidental lasts to the end of the bar, in all octaves (ABC 2.1, section 11.3).
            self.accidentals[step] = sign.count("^") - sign.count("_")
        pitch = 60 + _SEMITONES[step] + 12 * (letter.islower() + text.count("'"))
        accidentals = self.key_signature | self.tied_accidentals | self.accidentals
        pitch += accidentals.get(step, 0) - 12 * text.count(",")
        if not 0 <= pitch <= 127:
            raise InvalidTuneError(f"{text} is outside the MIDI range")
        return pitch

    def _end_bar(self, at_edge: bool) -> None:
        if self.broken_factor is not None:
            raise InvalidTuneError("a bar ends after > or <")
        if self.sounds:
            assert self.metre is not None  # checked at K:
            self.bars.append(Bar(tuple(self.sounds), self.metre, at_edge or self.at_edge))
            self.at_edge = False
            self.tied_accidentals = self.accidentals if self.sounds[-1].tied else {}
        elif at_edge and self.bars:
            # The part ended with the previous bar line.
            self.bars[-1] = replace(self.bars[-1], at_edge=True)
        self.at_edge = self.at_edge or at_edge
        self.sounds = []
        self.accidentals = {}

    def _end_part(self) -> None:
        if self.sounds or self.bars:
            self._end_bar(at_edge=True)

    def finish(self) -> list[Bar]:
        """Return the bars.

        Raises:
            InvalidTuneError: The tune has no bar lines, or fewer than `MIN_NOTES` notes.
        """
        self._end_bar(at_edge=True)
        if self.notes < MIN_NOTES:
            raise InvalidTuneError(f"only {self.notes} notes")
        if not self.bar_lines:
            raise InvalidTuneError("no bar lines")
        return self.bars


def _parse_length(text: str) -> Fraction:
    """Parse a length such as ``3/2``, ``/``, ``//`` or ``3/``, in units of ``L:``."""
    top, slashes, bottom = re.fullmatch(r"(\d*)(/*)(\d*)", text).groups()  # type: ignore[union-attr]
    divisor = int(bottom) if bottom else 2 ** len(slashes)
    if not divisor:
        raise InvalidTuneError(f"{text} is not a length")
    return Fraction(int(top or 1), divisor)
