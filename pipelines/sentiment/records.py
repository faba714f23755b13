"""From rows to labelled texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.engine.config.schema import as_list, as_text
from pipelines.engine.core.errors import UserError
from pipelines.engine.data import loading
from pipelines.engine.data.inputs import read_inputs
from pipelines.engine.data.sources.missing import is_missing, label_text
from pipelines.engine.data.sources.rows import Row
from pipelines.engine.data.splits import Splits
from pipelines.sentiment.config import SentimentConfig, SentimentDataConfig


@dataclass(frozen=True)
class LabelledText:
    """One usable record; ``place`` (file:line) is for messages and tables."""

    text: str
    label: str
    place: str


def load(config: SentimentConfig) -> Splits:
    """Read every source of the config; equal texts end up on one side only.

    Raises:
        UserError: a source cannot be read, has too many unusable rows, or is too small.
    """
    data = config.data
    splits = loading.load(
        data,
        loading.RecordSpec[LabelledText](
            columns=[data.text, data.label],
            parse=lambda row: _parse(row, data),
            content=lambda r: (r.label, r.text),
            key=lambda r: r.text,
            stratum=lambda r: r.label,
            validate=lambda splits: _check(splits, data),
        ),
        seed=config.seed,
    )
    splits.report["labels"] = dict(sorted(Counter(r.label for r in splits.train).items()))
    return splits


def load_inputs(
    config: SentimentConfig, source: str, report: dict[str, Any]
) -> Sequence[LabelledText]:
    """Read the texts of new data; where there are no labels, they are empty.

    Raises:
        UserError: the source cannot be read, or has too many unusable rows.
    """
    data = config.data

    def parser(labelled: bool) -> loading.RowParser[LabelledText]:
        return loading.RowParser(
            columns=[data.text, data.label] if labelled else [data.text],
            parse=lambda row: _parse(row, data) if labelled else _parse_text(row, data),
            content=lambda r: (r.label, r.text),
        )

    return read_inputs(source, data, parser, report)


def _parse_text(row: Row, data: SentimentDataConfig) -> LabelledText | str:
    text = row.fields[data.text]
    if is_missing(text):
        return "empty text"
    if not isinstance(text, str):
        return f"{data.text!r} is not text"
    return LabelledText(text, "", row.place)


def _parse(row: Row, data: SentimentDataConfig) -> LabelledText | str:
    found = _parse_text(row, data)
    if isinstance(found, str):
        return found
    label = label_text(row.fields[data.label])
    if label is None:
        return f"{data.label!r} is not a label"
    written = as_text(row.fields[data.label])
    if not label and data.labels is not None and written in data.labels:
        label = written  # a class that the config calls None, or nan
    if not label:
        return "no label"
    if data.labels is not None and label not in data.labels:
        return f"unknown label {label[:40]!r}"
    return replace(found, label=data.labels[label] if data.labels is not None else label)


#: More labels than this are not classes if most rows have a label of their own.
_MANY_LABELS = 20


def _check(splits: Mapping[str, Sequence[LabelledText]], data: SentimentDataConfig) -> None:
    labels = {r.label for r in splits["train"]}
    everything = Counter(r.label for split in splits.values() for r in split)
    if data.labels is None and len(everything) > max(_MANY_LABELS, everything.total() / 2):
        raise UserError(
            f"{', '.join(as_list(data.source))}: the column {data.label!r} has {len(everything):,} "
            f"different labels in {everything.total():,} rows: is this a class column? Name the "
            "right one with data.label, or list the labels in data.labels"
        )
    if len(labels) < 2:
        found = f"only the label {next(iter(labels))!r}" if labels else "no rows"
        raise UserError(
            f"{', '.join(as_list(data.source))}: training needs at least two classes; after "
            f"splitting there are {found} in {len(splits['train'])} training rows (column "
            f"{data.label!r})"
        )
    for name in ("validation", "test"):
        if unknown := sorted({r.label for r in splits[name]} - labels):
            raise UserError(
                f"data.{name}: label {unknown[0]!r} does not occur in training; there are: "
                + ", ".join(sorted(labels))
            )


def labels_of(records: Sequence[LabelledText]) -> list[str]:
    """The classes, in the order of their names."""
    return sorted({r.label for r in records})
