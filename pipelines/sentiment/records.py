"""From rows to labelled texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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

    @property
    def labels(self) -> list[str]:
        """The label, as the only one."""
        return [self.label]


@dataclass(frozen=True)
class MultiLabelText:
    """One usable record with any number of different labels, sorted."""

    text: str
    labels: list[str]
    place: str


Record = LabelledText | MultiLabelText


def load(config: SentimentConfig) -> Splits:
    """Read every source of the config; equal texts end up on one side only.

    Raises:
        UserError: a source cannot be read, has too many unusable rows, or is too small.
    """
    data = config.data
    splits = loading.load(data, _spec(data), seed=config.seed)
    counts = {
        name: Counter(label for r in getattr(splits, name) for label in r.labels)
        for name in ("train", "validation", "test")
    }
    splits.report["labels"] = dict(sorted(counts["train"].items()))
    if notes := _notes_on_classes(counts):
        splits.report["notes"] = notes
    return splits


def load_inputs(config: SentimentConfig, source: str, report: dict[str, Any]) -> Sequence[Record]:
    """Read the texts of new data; where there are no labels, they are empty.

    Raises:
        UserError: the source cannot be read, or has too many unusable rows.
    """
    data = config.data
    spec = _spec(data)

    def parser(labelled: bool) -> loading.RowParser[Any]:
        if labelled:
            return loading.RowParser(columns=spec.columns, parse=spec.parse, content=spec.content)
        return loading.RowParser(
            columns=[data.text],
            parse=lambda row: _unlabelled(row, data),
            content=lambda r: r.text,
        )

    return read_inputs(source, data, parser, report)


def _unlabelled(row: Row, data: SentimentDataConfig) -> LabelledText | str:
    return _unusable_text(row, data) or LabelledText(row.fields[data.text], "", row.place)


def _spec(data: SentimentDataConfig) -> loading.RecordSpec[Any]:
    return (_multi_label if data.multi_label else _single_label)(data)


def _single_label(data: SentimentDataConfig) -> loading.RecordSpec[LabelledText]:
    def parse(row: Row) -> LabelledText | str:
        if reason := _unusable_text(row, data):
            return reason
        label, reason = _named_label(row.fields[data.label], data)
        return reason or LabelledText(row.fields[data.text], label, row.place)

    return loading.RecordSpec(
        columns=[data.text, data.label],
        parse=parse,
        content=lambda r: (r.label, r.text),
        key=lambda r: r.text,
        stratum=lambda r: r.label,
        validate=lambda splits: _check(splits, data, least=2),
    )


def _multi_label(data: SentimentDataConfig) -> loading.RecordSpec[MultiLabelText]:
    counts: Counter[str] = Counter()

    def parse(row: Row) -> MultiLabelText | str:
        if reason := _unusable_text(row, data):
            return reason
        values = _listed(row.fields[data.label], data.separator)
        if values is None:
            return "no label"
        found = [_named_label(value, data) for value in values]
        if reason := next((reason for _, reason in found if reason), ""):
            return reason
        labels = sorted({label for label, _ in found})
        counts.update(labels)
        return MultiLabelText(row.fields[data.text], labels, row.place)

    return loading.RecordSpec(
        columns=[data.text, data.label],
        parse=parse,
        content=lambda r: (*r.labels, r.text),
        key=lambda r: r.text,
        # Combinations may all be different. With its rarest label as the stratum, a text with a
        # rare one stays in training; all rows are counted before the first one is split.
        stratum=lambda r: min(r.labels, key=lambda label: (counts[label], label), default=""),
        validate=lambda splits: _check(splits, data, least=1),
    )


def _listed(value: Any, separator: str) -> list[Any] | None:
    """Return the entries of a list of labels; None if the list is missing."""
    if isinstance(value, list | tuple | np.ndarray):
        return list(value)
    if isinstance(value, str) and not value.strip():
        return []
    text = label_text(value)
    if not text:
        return None if text == "" else [value]
    return [part for part in text.split(separator) if part.strip()]


def _notes_on_classes(counts: Mapping[str, Counter[str]]) -> list[str]:
    """Return warnings about classes that are too rare to be learned or scored.

    Args:
        counts: Texts of each class, by split.
    """
    train = counts["train"]
    found = {"only one training text": [label for label in sorted(train) if train[label] == 1]}
    for split in ("validation", "test"):
        found[f"no {split} text"] = [label for label in sorted(train) if not counts[split][label]]
    notes = []
    for problem, labels in found.items():
        if labels:
            shown = ", ".join(map(repr, labels[:_SHOWN_LABELS]))
            more = f" and {len(labels) - _SHOWN_LABELS:,} more" * (len(labels) > _SHOWN_LABELS)
            notes.append(f"{problem} of the class {shown}{more}")
    return notes


#: Classes that a warning names.
_SHOWN_LABELS = 5


def _unusable_text(row: Row, data: SentimentDataConfig) -> str:
    """Return why the text of a row cannot be used; empty if it can."""
    text = row.fields[data.text]
    if is_missing(text):
        return "empty text"
    return "" if isinstance(text, str) else f"{data.text!r} is not text"


def _named_label(value: object, data: SentimentDataConfig) -> tuple[str, str]:
    """Return the name of a label, and why it cannot be used; one of the two is empty."""
    label, written = label_text(value), as_text(value)
    if label is None:
        return "", f"{data.label!r} is not a label"
    if not label and data.labels is not None and written in data.labels:
        label = written  # a class that the config calls None, or nan
    if not label:
        return "", "no label"
    if data.labels is None:
        return label, ""
    return (
        (data.labels[label], "") if label in data.labels else ("", f"unknown label {label[:40]!r}")
    )


#: More labels than this are not classes if most rows have a label of their own.
_MANY_LABELS = 20


def _check(
    splits: Mapping[str, Sequence[Record]], data: SentimentDataConfig, *, least: int
) -> None:
    """Check that there are enough labels, and in training all of them.

    Args:
        least: Labels that training needs.
    """
    source = ", ".join(as_list(data.source))
    labels = {label for r in splits["train"] for label in r.labels}
    everything = Counter(label for split in splits.values() for r in split for label in r.labels)
    rows = sum(map(len, splits.values()))
    if data.labels is None and len(everything) > max(_MANY_LABELS, rows / 2):
        raise UserError(
            f"{source}: the column {data.label!r} has {len(everything):,} different labels in "
            f"{rows:,} rows: is this a class column? Name the right one with data.label, or list "
            "the labels in data.labels"
        )
    if len(labels) < least:
        found = "no labels" if splits["train"] else "no rows"
        if labels:
            found = f"only the label {next(iter(labels))!r}"
        raise UserError(
            f"{source}: training needs at least {_NUMBERS[least]}; after splitting there are "
            f"{found} in {len(splits['train'])} training rows (column {data.label!r})"
        )
    for name in ("validation", "test"):
        if unknown := sorted({label for r in splits[name] for label in r.labels} - labels):
            raise UserError(
                f"data.{name}: label {unknown[0]!r} does not occur in training; there are: "
                + ", ".join(sorted(labels))
            )


_NUMBERS = {1: "one label", 2: "two classes"}


def labels_of(records: Sequence[Record]) -> list[str]:
    """The classes, in the order of their names."""
    return sorted({label for r in records for label in r.labels})
