"""What a vocabulary does not cover, in sentences for a run's report."""

from __future__ import annotations

from pipelines.engine.config.schema import TokenLevel
from pipelines.engine.core.wording import count
from pipelines.engine.data.ragged import Ragged
from pipelines.engine.text.vocabulary import UNKNOWN, Vocabulary


def coverage(vocabulary: Vocabulary, rows: Ragged, level: TokenLevel, records: str) -> str:
    """Say how much a vocabulary knows, and which share of some texts is unknown to it.

    Args:
        vocabulary: learned from the training split.
        rows: the ids of other texts.
        level: the unit of a token.
        records: what the texts are, e.g. ``test texts``.
    """
    if level == "subword":
        return (
            "It reads any text, but it learned its sub-words from the training texts: text in "
            "another language or script becomes many short ones, which were not tested."
        )
    noun = "character" if level == "character" else "word"
    unknown = float((rows.values == UNKNOWN).mean()) if len(rows.values) else 0.0
    return (
        f"It knows {count(len(vocabulary.vocabulary), noun)}, all from the training texts; of the "
        f"{records}, {unknown:.1%} of the {noun}s are unknown to it. It is not meant for other "
        "languages."
    )
