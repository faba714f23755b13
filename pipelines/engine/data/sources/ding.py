"""Pairs of sentences and phrases from a dictionary in the format of Ding.

A line has two languages, ``Haus {n}; Heim {n} | Das Haus brennt. :: house; home | The house is on
fire.``: both sides have as many entries, divided by ``|``, and an entry has synonyms, divided by
``;``. Remarks stand in brackets of four kinds, abbreviations between slashes. Most of it is for
looking words up; :func:`pairs` keeps what could stand in a text of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources import locate
from pipelines.engine.data.sources.opening import read_lines
from pipelines.engine.data.sources.rows import Row, require_columns


class Pair(NamedTuple):
    """Two texts that mean the same, and the line (from 1) where they were found.

    ``kind`` is ``sentence`` or ``phrase``.
    """

    line: int
    left: str
    right: str
    kind: str


_BRACKET = re.compile(r"[][{}()<>]")
_REMARK = re.compile(r"\{I\}|\[I\]|\(I\)|<I>".replace("I", r"[^][{}()<>]*"))
_TAG = re.compile(r"\[([^][]*)\]")
#: Nobody speaks like this any more, or should in a class.
_UNFIT = frozenset({"vulg.", "slang", "obs.", "archaic", "dated", "veraltet", "altertümlich"})
#: A phrase of these subjects is the name of a species, a disease or a part of a machine.
_SUBJECTS = frozenset(
    f"{subject}."
    for subject in (
        *("anat", "astron", "biochem", "biol", "bot", "chem", "electr", "geol", "mach", "math"),
        *("med", "min", "myc", "ornith", "pharm", "phys", "statist", "techn", "textil", "zool"),
    )
)
_ABBREVIATION = re.compile(r"(?<!\S)/[^/\s]+/(?=[\s;]|$)")
_SPACE_BEFORE_MARK = re.compile(r"\s+(?=[.,!?:](?:\s|$))")
#: Single words after a slash, up to a mark or the end: however many words the first alternative
#: has, it stays as it is. Units have fewer letters (``km/h``).
_ALTERNATIVES = re.compile(r"(?:\s*/\s*[^\W\d_][\w'-]{2,})+(?=[.,!?]|$)")
#: What stands for something else: any person or thing, a form of the word, another alternative.
_SHORTHAND = re.compile(r"[/~=+#*|_\\…]|\.\.|\b(?:etw|jd[mns]?|sb|sth)\b")
_SENTENCE = re.compile(r"[\"'„“‚»«]?[A-ZÄÖÜÉ0-9].*[.!?][\"'“”»«]?")
_END = re.compile(r"(?<!\d)[.!?](?=\W|$)")
#: Forms of a verb, from a table of them: ``auf den Tisch legend``, ``putting on the table``.
_PARTICIPLES = re.compile(r"(?:^|\s)[a-zäöüß]+nd\n[a-z]+ing\b")
#: In a phrase: any abbreviation, any quoted title, and words after which it would go on.
_NO_PHRASE = re.compile(
    r"\w\.|[.!?:]$|[\"„“”]|(?:^|\s)'|\s(?:as|at|between|by|for|from|into|of|than|to|upon|with)$"
)


def pairs(lines: Iterable[str]) -> Iterator[Pair]:
    """The pairs of a dictionary, in its order, each of them once.

    Only the first synonyms of an entry are taken for each other. Sentences are all that there are
    if both languages have as many: they are written in one order.
    """
    seen: set[tuple[str, str]] = set()
    for number, line in enumerate(lines, 1):
        left, divider, right = line.partition("::")
        if line.startswith("#") or not divider or left.count("|") != right.count("|"):
            continue
        for entry in zip(left.split("|"), right.split("|"), strict=True):
            ones, others = (_without_remarks(side).split(";") for side in entry)
            count = len(ones) if len(ones) == len(others) else 1
            for i, found in enumerate(zip(ones[:count], others[:count], strict=True)):
                # Most of a dictionary is single words; no pair has one.
                if any(len(text.split(maxsplit=1)) < 2 for text in found):
                    continue
                one, other = map(_tidy, found)
                kind = _kind(one, other)
                if kind is None or (one, other) in seen or _UNFIT & _tags("".join(entry)):
                    continue
                if kind == "sentence" or not (i or _SUBJECTS & _tags(line)):
                    seen.add((one, other))
                    yield Pair(number, one, other, kind)


def _tags(text: str) -> set[str]:
    return set(_TAG.findall(text))


def _tidy(text: str) -> str:
    """A text without abbreviations, alternatives and the gaps that remarks have left."""
    text = _SPACE_BEFORE_MARK.sub("", " ".join(_ABBREVIATION.sub("", text).split()))
    return _ALTERNATIVES.sub("", text).replace("’", "'")


def _without_remarks(entry: str) -> str:
    """The text outside all brackets; nothing if they do not pair."""
    found = 1
    while found:  # from the inside out
        entry, found = _REMARK.subn("", entry)
    return "" if _BRACKET.search(entry) else entry


def _kind(left: str, right: str) -> str | None:
    """What two texts are; None if that is nothing to learn from."""
    both = f"{left}\n{right}"
    if left == right or _SHORTHAND.search(both):
        return None
    words = sorted(len(text.split()) for text in (left, right))
    sentences = [bool(_SENTENCE.fullmatch(text)) for text in (left, right)]
    if all(sentences):
        # As many ends on both sides: else one of them has a second translation.
        ends = {len(_END.findall(text)) for text in (left, right)}
        return "sentence" if words[0] >= 2 and len(ends) == 1 else None
    if words[0] < 2 or words[1] < 3:
        return None
    # A text beside one more than three times as long is explained, not translated.
    letters = sorted((len(left), len(right)))
    if letters[1] > 3 * letters[0] or _PARTICIPLES.search(both):
        return None
    return None if any(_NO_PHRASE.search(text) for text in (left, right)) else "phrase"


#: The folder of Debian's dictionaries.
_DICTIONARIES = "usr/share/trans"


def read(source: str, columns: Sequence[str]) -> Iterator[Row]:
    name = source.removeprefix("ding:")
    left, _, right = name.partition("-")
    if not (left.isalpha() and right.isalpha() and left != right):
        raise UserError(f"data: {source}: which dictionary? write it as ding:de-en")
    require_columns(source, columns, [left, right, "kind"])
    path = locate.find_debian_file(f"{_DICTIONARIES}/{name}")
    if path is None:
        raise UserError(
            f"data: {source}: not found; `make dictionary` fetches it (Debian's trans-de-en, no "
            "root needed), or choose CONFIG=configs/translation/multi30k-en-de.yaml"
            if name == "de-en"
            else f"data: {source}: not found in "
            + " or ".join(str(root / _DICTIONARIES) for root in locate.DEBIAN_ROOTS)
        )
    for pair in pairs(read_lines(path)):
        fields = {left: pair.left, right: pair.right, "kind": pair.kind}
        yield Row(fields, f"{name}:{pair.line}")
