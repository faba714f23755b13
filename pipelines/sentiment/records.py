"""From rows to labelled texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.engine.config.schema import as_list, as_text
from pipelines.engine.core.errors import UserError
from pipelines.engine.data import loading
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
    counts = {name: Counter(r.label for r in split) for name, split in _named(splits)}
    splits.report["labels"] = dict(sorted(counts["train"].items()))
    if notes := notes_on_classes(counts):
        splits.report["notes"] = notes
    return splits


def _named(splits: Splits) -> Iterator[tuple[str, Sequence[LabelledText]]]:
    for name in ("train", "validation", "test"):
        yield name, getattr(splits, name)


def notes_on_classes(counts: Mapping[str, Counter[str]]) -> list[str]:
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


def _parse(row: Row, data: SentimentDataConfig) -> LabelledText | str:
    if reason := unusable_text(row, data):
        return reason
    label, reason = named_label(row.fields[data.label], data)
    return reason or LabelledText(row.fields[data.text], label, row.place)


def unusable_text(row: Row, data: SentimentDataConfig) -> str:
    """Return why the text of a row cannot be used; empty if it can."""
    text = row.fields[data.text]
    if is_missing(text):
        return "empty text"
    return "" if isinstance(text, str) else f"{data.text!r} is not text"


def named_label(value: object, data: SentimentDataConfig) -> tuple[str, str]:
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


def _check(splits: Mapping[str, Sequence[LabelledText]], data: SentimentDataConfig) -> None:
    labels = {r.label for r in splits["train"]}
    everything = Counter(r.label for split in splits.values() for r in split)
    check_many_labels(everything, data)
    if len(labels) < 2:
        found = f"only the label {next(iter(labels))!r}" if labels else "no rows"
        raise UserError(
            f"{', '.join(as_list(data.source))}: training needs at least two classes; after "
            f"splitting there are {found} in {len(splits['train'])} training rows (column "
            f"{data.label!r})"
        )
    for name in ("validation", "test"):
        check_known({r.label for r in splits[name]}, labels, name)


def check_many_labels(everything: Counter[str], data: SentimentDataConfig) -> None:
    """Raise a `UserError` if nearly every row has a label of its own."""
    if data.labels is None and len(everything) > max(_MANY_LABELS, everything.total() / 2):
        raise UserError(
            f"{', '.join(as_list(data.source))}: the column {data.label!r} has {len(everything):,} "
            f"different labels in {everything.total():,} rows: is this a class column? Name the "
            "right one with data.label, or list the labels in data.labels"
        )


def check_known(found: set[str], known: set[str], split: str) -> None:
    """Raise a `UserError` if a label of a split does not occur in training."""
    if unknown := sorted(found - known):
        raise UserError(
            f"data.{split}: label {unknown[0]!r} does not occur in training; there are: "
            + ", ".join(sorted(known))
        )


def labels_of(records: Sequence[LabelledText]) -> list[str]:
    """The classes, in the order of their names."""
    return sorted({r.label for r in records})
