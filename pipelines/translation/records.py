"""From rows to pairs of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.engine.data import loading
from pipelines.engine.data.inputs import read_inputs
from pipelines.engine.data.sources.missing import is_missing
from pipelines.engine.data.sources.rows import Row
from pipelines.engine.data.splits import Splits
from pipelines.translation.config import TranslationConfig


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
            parse=lambda row: _parse(row, [data.input, data.output]),
            content=lambda pair: (pair.input, pair.output),
            exclude=lambda pair: max(len(pair.input), len(pair.output)) > data.max_characters,
            key=lambda pair: pair.input.casefold(),
        ),
        seed=config.seed,
    )


def load_inputs(config: TranslationConfig, source: str, report: dict[str, Any]) -> Sequence[Pair]:
    """Read the texts of new data; where there are no translations, they are empty.

    Raises:
        UserError: the source cannot be read, or has too many unusable rows.
    """
    data = config.data

    def parser(translated: bool) -> loading.RowParser[Pair]:
        columns = [data.input, data.output] if translated else [data.input]
        return loading.RowParser(
            columns=columns,
            parse=lambda row: _parse(row, columns),
            content=lambda pair: (pair.input, pair.output),
            exclude=lambda pair: max(len(pair.input), len(pair.output)) > data.max_characters,
        )

    return read_inputs(source, data, parser, report)


def _parse(row: Row, columns: Sequence[str]) -> Pair | str:
    sides = []
    for column in columns:
        text = row.fields[column]
        if is_missing(text):
            return f"{column!r} is empty"
        if not isinstance(text, str):
            return f"{column!r} is not text"
        sides.append(" ".join(text.split()))
    return Pair(sides[0], sides[1] if len(sides) > 1 else "", row.place)
