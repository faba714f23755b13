"""From rows to pairs of texts."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.engine.data import loading
from pipelines.engine.data.sources.missing import is_missing
from pipelines.engine.data.sources.rows import Row
from pipelines.engine.data.splits import Splits
from pipelines.translation.config import TranslationConfig, TranslationDataConfig


@dataclass(frozen=True)
class Pair:
    """One usable record; ``place`` (file:line) is for messages and tables."""

    input: str
    output: str
    place: str


def load(config: TranslationConfig) -> Splits:
    """Read every source of the config; pairs with the same input end up on one side only.

    Raises:
        UserError: a source cannot be read, has too many unusable rows, or is too small.
    """
    data = config.data
    return loading.load(
        data,
        loading.RecordSpec[Pair](
            columns=[data.input, data.output],
            parse=lambda row: _parse(row, data),
            content=lambda pair: (pair.input, pair.output),
            exclude=lambda pair: max(len(pair.input), len(pair.output)) > data.max_characters,
            key=lambda pair: pair.input.casefold(),
        ),
        seed=config.seed,
    )


def _parse(row: Row, data: TranslationDataConfig) -> Pair | str:
    sides = []
    for column in (data.input, data.output):
        text = row.fields[column]
        if is_missing(text):
            return f"{column!r} is empty"
        if not isinstance(text, str):
            return f"{column!r} is not text"
        sides.append(" ".join(text.split()))
    return Pair(sides[0], sides[1], row.place)
