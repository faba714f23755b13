"""Features of encoded texts: their lengths, their tokens, and how many are unknown."""

from __future__ import annotations

import numpy as np

from pipelines.engine.config.schema import TokenLevel
from pipelines.engine.data.ragged import Ragged
from pipelines.engine.tasks.comparable import Feature, Wording
from pipelines.engine.text.vocabulary import RESERVED, UNKNOWN, Vocabulary

#: The plural of a token, by its level.
UNITS: dict[TokenLevel, str] = {
    "character": "characters",
    "word": "words",
    "subword": "sub-words",
}


def length_feature(rows: Ragged, subject: str, unit: str) -> Feature:
    """Return the number of tokens of each row."""
    wording = Wording(subject, "shorter", "longer", unit)
    return Feature(rows.lengths.astype(np.float64), wording)


def token_features(
    rows: Ragged,
    vocabulary: Vocabulary,
    unit: str,
    *,
    has_unknown: bool = True,
    groups: np.ndarray | None = None,
) -> dict[str, Feature]:
    """Return which tokens the rows have, and the share of unknown ones in each.

    Args:
        rows: The ids of each text, or of a piece of one.
        vocabulary: What the ids stand for.
        unit: What a token is, in the plural.
        has_unknown: Whether there can be unknown tokens.
        groups: ``<int>[rows]``, the text of each piece; by default each row is a text.
    """
    row_of = np.repeat(np.arange(len(rows)), rows.lengths)
    text_of = row_of if groups is None else groups[row_of]

    def name(category: str) -> str:
        number = int(category) - RESERVED
        return repr(vocabulary.vocabulary[number].strip()) if number >= 0 else "unknown ones"

    tokens = Feature(np.asarray(rows.values), Wording(unit.capitalize(), categories=name), text_of)
    if not has_unknown:
        return {"vocabulary": tokens}
    filled = rows.lengths > 0
    unknown = np.bincount(row_of, weights=rows.values == UNKNOWN, minlength=len(rows))
    shares = unknown[filled] / rows.lengths[filled]
    wording = Wording(f"Unknown {unit}", "rarer", "more frequent", "%")
    where = None if groups is None else groups[filled]
    return {"vocabulary": tokens, "unknown_words": Feature(shares, wording, where)}
