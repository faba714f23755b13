"""Checks of generated tunes: validity, complete bars, and copying from the training data."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.generation.abc_notation import (
    FIELD,
    LENGTH,
    PITCH,
    Bar,
    InvalidTuneError,
    parse,
    split_lines,
)

#: Melody tokens: notes, rests and bar lines. Ornaments, words and slurs are ignored.
_MELODY = re.compile(rf"{PITCH}{LENGTH}(?:\s*[<>]+)?|[zx]{LENGTH}|\|[|:\[\]\s]*|::")
_NOT_MELODY = re.compile(r"\"[^\"\n]*\"|![^!\n]*!|\{[^}\n]*\}|\[[A-Za-z]:[^\]\n]*\]|%.*")


@dataclass(frozen=True)
class TuneReport:
    """The result of checking a text.

    Attributes:
        valid: Whether the text is a valid tune.
        reason: Why it is not; empty for a valid tune.
        bars: Number of bars, 0 for an invalid tune.
        complete_bars: Number of bars whose notes and rests add up to the metre.
    """

    valid: bool
    reason: str = ""
    bars: int = 0
    complete_bars: int = 0

    @property
    def all_bars_complete(self) -> bool:
        """Whether the tune is valid and every bar is complete."""
        return self.valid and self.complete_bars == self.bars


def check(text: str) -> TuneReport:
    """Check whether a text is a valid tune and count its complete bars.

    A valid tune begins with ``X:``, has the headers ``M:`` (a metre, without which bars cannot be
    checked; ``M:none`` is not accepted) and ``K:``, which ends the headers, followed by at least
    `abc_notation.MIN_NOTES` notes, at least one bar line, and nothing that is not ABC, such as a
    line of prose after the tune. music21 must be able to read it, too.

    A bar is complete if its notes and rests are as long as the metre requires. The first and the
    last bar of a part and the first bar of an ending may be shorter, because of pick-ups. Parts end
    at repeats, double bars and the fields ``M:``, ``P:``, ``T:`` and ``V:``.
    """
    try:
        bars = parse_strictly(text)
    except InvalidTuneError as error:
        return TuneReport(False, str(error))
    return TuneReport(True, bars=len(bars), complete_bars=sum(bar.is_complete for bar in bars))


def parse_strictly(text: str) -> list[Bar]:
    """Parse a tune that music21 can read, too.

    Raises:
        InvalidTuneError: The text is not a valid tune.
    """
    bars = parse(text)
    _check_with_music21(text)
    return bars


def summarize(texts: Sequence[str]) -> dict[str, float]:
    """Compute validity rates of at least one text.

    Returns:
        ``parse_rate``, the share of valid tunes; ``bars_add_up_rate``, the share of texts that are
        valid and have only complete bars; ``good_bar_rate``, the share of complete bars in the
        valid tunes, 0 if there are none.
    """
    reports = [check(text) for text in texts]
    bars = sum(report.bars for report in reports)
    complete = sum(report.complete_bars for report in reports)
    return {
        "parse_rate": sum(report.valid for report in reports) / len(reports),
        "bars_add_up_rate": sum(report.all_bars_complete for report in reports) / len(reports),
        "good_bar_rate": complete / bars if bars else 0.0,
    }


def music_lines(text: str) -> str:
    """Return the lines of music, without headers, fields between the lines, and comments."""
    lines = (line.split("%")[0] for line in split_lines(text))
    return "\n".join(line for line in lines if line.strip() and not FIELD.match(line))


def melody_key(text: str) -> str:
    """Return a key that is equal for tunes with the same melody.

    Number, title, spacing, ornaments and kinds of bar lines do not affect the key.
    """
    return " ".join(_melody_tokens(text)).strip("| ")


def copied_share(texts: Sequence[str], training: Sequence[str], n: int = 8) -> float:
    """Compute the share of n-grams of melody tokens that occur in a training text.

    A token is a note as written (accidental, octave, length, ``>``), a rest, or a bar line of any
    kind.

    Args:
        texts: The tunes to check.
        training: The tunes that the model was trained on.
        n: Tokens in an n-gram.

    Returns:
        The share of all n-grams of ``texts``, repetitions included; 0 if there are none.
    """
    ngrams = [ngram for text in texts for ngram in _melody_ngrams(text, n)]
    distinct = set(ngrams)
    copied: set[tuple[str, ...]] = set()
    for text in training:
        copied |= distinct.intersection(_melody_ngrams(text, n))
    return sum(ngram in copied for ngram in ngrams) / len(ngrams) if ngrams else 0.0


def _melody_ngrams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    tokens = _melody_tokens(text)
    return zip(*(tokens[i:] for i in range(n)), strict=False)


def _melody_tokens(text: str) -> list[str]:
    tokens: list[str] = []
    for token in _MELODY.findall(_NOT_MELODY.sub(" ", music_lines(text))):
        if "|" in token or "::" in token:
            if tokens and tokens[-1] != "|":
                tokens.append("|")
        else:
            tokens.append("".join(token.split()))
    return tokens


def _check_with_music21(text: str) -> None:
    """Raise `InvalidTuneError` if music21 cannot read a tune."""
    # Importing music21 takes seconds.
    from music21.abcFormat import ABCHandler
    from music21.exceptions21 import Music21Exception

    try:
        # music21 prints warnings about what it skips.
        with contextlib.redirect_stderr(io.StringIO()):
            ABCHandler().process("\n".join(split_lines(text)))
    # music21 raises its own exceptions for errors that it checks. Others surface as ValueError
    # (int("") and unpacking), IndexError (the end of the text) and ZeroDivisionError (x/0).
    except (Music21Exception, ValueError, IndexError, ZeroDivisionError) as error:
        raise InvalidTuneError(f"music21: {error}") from None
