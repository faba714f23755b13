"""From rows to labelled texts: read, checked, counted, split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.config import as_text
from pipelines.data import Problems, fingerprint, read, split_shares
from pipelines.errors import UserError
from pipelines.sentiment.config import SentimentConfig, TextData
from pipelines.tasks import Splits


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
    report: dict[str, Any] = {}
    records = _read(data.source, data, report)
    held_out: dict[str, list[LabelledText]] = {}
    shares: dict[str, float] = {}
    for name, where in (("test", data.test), ("validation", data.validation)):
        if isinstance(where, str):
            held_out[name] = _read(where, data, report)
        else:
            # Both shares are of the whole source.
            shares[name] = where
    if sum(shares.values()) >= 1:
        raise UserError(
            f"data.test and data.validation hold out {sum(shares.values()):.0%} of {data.source}: "
            "nothing is left to train on"
        )
    parts = split_shares([r.text for r in records], [r.label for r in records], shares, config.seed)
    splits = {name: [records[i] for i in rows] for name, rows in parts.items()} | held_out
    _keep_apart(splits, report)
    _check(splits, data)
    report["records"] = {name: len(splits[name]) for name in ("train", "validation", "test")}
    report["labels"] = dict(sorted(Counter(r.label for r in splits["train"]).items()))
    digest = fingerprint(
        part
        for name in ("train", "validation", "test")
        for r in splits[name]
        for part in (name, r.label, r.text)
    )
    return Splits(
        splits["train"],
        splits["validation"],
        splits["test"],
        fingerprint=digest,
        report=report,
    )


def _read(source: str, data: TextData, report: dict[str, Any]) -> list[LabelledText]:
    problems = Problems()
    records, filtered = [], 0
    for row in read(source, [data.text, data.label, *data.where], problems):
        if any(as_text(row.fields[column]) != value for column, value in data.where.items()):
            filtered += 1
            continue
        text, label = row.fields[data.text], as_text(row.fields[data.label])
        if not isinstance(text, str):
            problems.add(row.place, f"{data.text!r} is not text")
        elif not text.strip():
            problems.add(row.place, "empty text")
        elif label is None:
            problems.add(row.place, f"{data.label!r} is not a label")
        elif not label:
            problems.add(row.place, "no label")
        elif data.labels is not None and label not in data.labels:
            problems.add(row.place, f"unknown label {label[:40]!r}")
        else:
            name = data.labels[label] if data.labels is not None else label
            records.append(LabelledText(text, name, row.place))
    problems.check(source, data.max_bad_rows)
    if not records:
        wanted = ", ".join(f"{column}: {value}" for column, value in data.where.items())
        why = f"none of its {problems.rows:,} rows has {wanted}" if filtered else "it has no rows"
        raise UserError(f"{source}: no usable row: {why}")
    report[source] = {
        "rows": problems.rows,
        "filtered_out": filtered,
        "unusable": dict(problems.reasons),
        "first_unusable": problems.examples,
    }
    return records


def _keep_apart(splits: dict[str, list[LabelledText]], report: dict[str, Any]) -> None:
    """Drop from training what is held out, and from validation what is in the test."""
    seen = {r.text for r in splits["test"]}
    for name in ("validation", "train"):
        kept = [r for r in splits[name] if r.text not in seen]
        report[f"{name}_dropped_as_held_out"] = len(splits[name]) - len(kept)
        seen |= {r.text for r in kept}
        splits[name] = kept


def _check(splits: dict[str, list[LabelledText]], data: TextData) -> None:
    labels = {r.label for r in splits["train"]}
    if len(labels) < 2:
        found = f"only the label {next(iter(labels))!r}" if labels else "no rows"
        raise UserError(
            f"{data.source}: training needs at least two classes; after splitting there are "
            f"{found} in {len(splits['train'])} training rows (column {data.label!r})"
        )
    for name in ("validation", "test"):
        if not splits[name]:
            raise UserError(
                f"{data.source}: the {name} split is empty ({len(splits['train']):,} training "
                f"rows); give more rows, a larger data.{name}, or a source of its own"
            )
        if unknown := sorted({r.label for r in splits[name]} - labels):
            raise UserError(
                f"data.{name}: label {unknown[0]!r} does not occur in training; there are: "
                + ", ".join(sorted(labels))
            )


def labels_of(records: Sequence[LabelledText]) -> list[str]:
    """The classes, in the order of their names."""
    return sorted({r.label for r in records})
