"""Load the records of each split: read sources, parse rows, split, remove overlaps.

A task describes its records by a `RecordSpec`; everything else is the same for all tasks.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from pipelines.engine.config.folds import Fold
from pipelines.engine.config.schema import DataConfig, TextDataConfig, as_list
from pipelines.engine.core.errors import UserError
from pipelines.engine.data import disk
from pipelines.engine.data.sources.missing import label_text
from pipelines.engine.data.sources.reading import read as read_rows
from pipelines.engine.data.sources.rows import Row, RowReport
from pipelines.engine.data.splits import (
    Splits,
    digests,
    fingerprint,
    smallest_stratum,
    split_fold,
    split_shares,
)

#: A source with fewer distinct documents is split inside each document: a share of so few
#: documents would be a poor sample.
MIN_DOCUMENTS = 20


#: Keys of a report beside its sources.
REPORT_KEYS = frozenset(
    [
        "fingerprint",
        "test_fingerprint",
        "records",
        "notes",
        "cut_by_position",
        "train_dropped_as_held_out",
        "validation_dropped_as_held_out",
        "series",
        "steps",
        "begins",
        "frequencies",
    ]
)


class Record(Protocol):
    """A usable row, parsed by a task."""

    @property
    def place(self) -> str:
        """Where the record was read (``file:line``), for messages and tables."""
        ...


R = TypeVar("R", bound=Record)


@dataclass(frozen=True, kw_only=True)
class RowParser(Generic[R]):
    """How rows become records.

    Attributes:
        columns: The columns that ``parse`` reads; ``data.where`` may name others.
        parse: Returns the record of a row, or the reason why the row is unusable.
        content: What identifies a record: records with equal content are repetitions, and the
            fingerprint is computed over it.
        exclude: Whether the config leaves out a usable record.
    """

    columns: Sequence[str]
    parse: Callable[[Row], R | str]
    content: Callable[[R], Iterable[Any]]
    exclude: Callable[[R], bool] = lambda record: False


@dataclass(frozen=True, kw_only=True)
class RecordSpec(RowParser[R]):
    """How rows become records, and how records are split.

    Attributes:
        key: Records with equal keys always fall into the same split, e.g. their text.
        stratum: Every stratum is split in the same proportion.
        merge: Combines the records of a split's sources, where several rows make one record.
        cut: Returns the part of a record between two positions from 0 to 1, None if it is empty.
            If given, a source with fewer than `MIN_DOCUMENTS` documents is split inside each of
            them: the beginning is for training, then comes the validation, and the end is the
            test.
        validate: Checks the splits, by name; called before empty splits are reported.
    """

    key: Callable[[R], str]
    stratum: Callable[[R], Any] = lambda record: 0
    merge: Callable[[Sequence[R]], Sequence[R]] = lambda records: records
    cut: Callable[[R, float, float], R | None] | None = None
    validate: Callable[[Mapping[str, Sequence[R]]], None] | None = None


def load(data: DataConfig, spec: RecordSpec[R], *, seed: int) -> Splits:
    """Load the splits of a config; records with equal keys end up in one split only.

    Args:
        data: The sources, and what is held out.
        spec: The task's records.
        seed: The same seed gives the same splits.

    Raises:
        UserError: A source cannot be read, has too many unusable rows, or is too small.
    """
    report: dict[str, Any] = {}
    store = record_store(data)

    def read_all(sources: str | list[str]) -> Sequence[R]:
        found = (r for source in as_list(sources) for r in read(source, spec, data, report))
        return spec.merge(store(found))

    records = read_all(data.source)
    held_out: dict[str, Sequence[R]] = {}
    shares: dict[str, float] = {}
    for name, given in (("test", data.test), ("validation", data.validation)):
        if isinstance(given, float):
            # Both shares are of the whole source.
            shares[name] = given
        else:
            held_out[name] = read_all(given)
    fold = None if data.fold is None else Fold.parse(data.fold)
    if fold is not None:
        shares["test"] = 1 / fold.folds
    if sum(shares.values()) >= 1:
        tested = "data.test" if fold is None else "data.fold"
        raise UserError(
            f"{tested} and data.validation hold out {sum(shares.values()):.0%} of {_name(data)}: "
            "nothing is left to train on"
        )
    keys = _keys(records, spec.key)
    dropped = 0
    if fold is not None:
        splits = _divide_into_folds(records, keys, spec, data, fold, shares["validation"], seed)
    elif spec.cut is not None and any(shares.values()) and len(np.unique(keys)) < MIN_DOCUMENTS:
        # Documents that are held out whole must be removed before the others are cut.
        held_keys = np.concatenate(
            [keys[:0], *(_keys(split, spec.key) for split in held_out.values())]
        )
        remaining = disk.select(records, np.flatnonzero(~np.isin(keys, held_keys)))
        dropped = len(records) - len(remaining)
        parts = cut_by_position(remaining, shares, spec.cut)
        splits = {name: store(part) for name, part in parts.items()} | held_out
        report["cut_by_position"] = True
    else:
        rows = split_shares(keys, _strata(records, spec.stratum), shares, seed)
        splits = {name: disk.select(records, indices) for name, indices in rows.items()} | held_out
    _remove_overlap(splits, spec.key, report)
    report["train_dropped_as_held_out"] += dropped
    if spec.validate is not None:
        spec.validate(splits)
    _require_records(splits, data)
    return _report_splits(splits, spec, report)


def _divide_into_folds(
    records: Sequence[R],
    keys: np.ndarray,
    spec: RecordSpec[R],
    data: DataConfig,
    fold: Fold,
    validation: float,
    seed: int,
) -> dict[str, Sequence[R]]:
    """Return the splits of one fold; see `split_fold`.

    Raises:
        UserError: There are too few different records, or documents that would have to be cut.
    """
    if spec.cut is not None and (count := len(np.unique(keys))) < MIN_DOCUMENTS:
        raise UserError(
            f"{_name(data)}: has {count} documents, and folds need {MIN_DOCUMENTS}: fewer are "
            "split inside each document, whose end is the test; leave out the folds"
        )
    strata = _strata(records, spec.stratum)
    example, count = smallest_stratum(keys, strata)
    if count < fold.folds:
        of = f" of {spec.stratum(records[example])!r}" if len(np.unique(strata)) > 1 else ""
        remedy = f"use {count} folds or fewer" if count > 1 else "give more rows of it"
        raise UserError(
            f"{_name(data)}: has only {count} different record(s){of} for {fold.folds} folds; "
            f"{remedy}"
        )
    rows = split_fold(keys, strata, fold, validation, seed)
    return {name: disk.select(records, indices) for name, indices in rows.items()}


def _report_splits(
    splits: Mapping[str, Sequence[R]], spec: RecordSpec[R], report: dict[str, Any]
) -> Splits:
    """Count the records and compute their fingerprints."""
    names = ("train", "validation", "test")
    report["records"] = {name: len(splits[name]) for name in names}
    return Splits(
        **splits,
        fingerprint=fingerprint(
            text
            for name in names
            for record in splits[name]
            for text in (name, *spec.content(record))
        ),
        test_fingerprint=fingerprint(
            text for record in splits["test"] for text in spec.content(record)
        ),
        report=report,
    )


def record_store(data: DataConfig) -> Callable[[Iterable[R]], Sequence[R]]:
    """Return the container for records: a list, or a file with ``data.keep: disk``."""
    on_disk = isinstance(data, TextDataConfig) and data.keep == "disk"
    return disk.DiskRecords if on_disk else list


def read(
    source: str, parser: RowParser[R], data: DataConfig, report: dict[str, Any]
) -> Iterator[R]:
    """Yield the usable records of one source, and add its counts to ``report`` at the end.

    Raises:
        UserError: The source cannot be read, has too many unusable rows, or no usable one.
    """
    counts = RowReport()
    # Hashes only, because the records are not kept here.
    hashes = array("q")
    usable, filtered, excluded = 0, 0, 0
    for row in read_rows(source, [*parser.columns, *data.where], counts, data.format):
        labels = {column: label_text(row.fields[column]) for column in data.where}
        if missing := [column for column, label in labels.items() if label == ""]:
            counts.add(row.place, f"no {missing[0]!r}")
            continue
        if labels != data.where:
            filtered += 1
            continue
        record = parser.parse(row)
        if isinstance(record, str):
            counts.add(row.place, record)
        elif parser.exclude(record):
            excluded += 1
        else:
            usable += 1
            hashes.append(hash(tuple(parser.content(record))))
            yield record
    counts.check(source, data.max_bad_rows)
    if not usable:
        wanted = ", ".join(f"{column}: {value}" for column, value in data.where.items())
        why = f"none of its {counts.rows:,} rows has {wanted}" if filtered else "it has no rows"
        if excluded:
            why = f"the config leaves out {excluded:,} of its {counts.rows:,} rows"
        raise UserError(f"{source}: no usable row: {why}")
    # A folder named like a key of the report must not take the key's place.
    key = f"./{source}" if source in REPORT_KEYS else source
    report[key] = {
        "rows": counts.rows,
        "filtered_out": filtered,
        "left_out": excluded,
        "repeated": usable - len(np.unique(hashes)),
        "unusable": dict(counts.reasons),
        "first_unusable": counts.examples,
    }
    if counts.notes:
        report[key]["notes"] = counts.notes


def _strata(records: Iterable[R], stratum: Callable[[R], Any]) -> np.ndarray:
    """``<int64>[records]``: the rank of each record's stratum among all strata, sorted."""
    numbers: dict[Any, int] = {}
    strata = [numbers.setdefault(stratum(r), len(numbers)) for r in records]
    rank = np.argsort(np.argsort(list(numbers)))
    return rank[np.array(strata, np.int64)]


def _keys(records: Collection[R], key: Callable[[R], str]) -> np.ndarray:
    """``<uint64>[records]``: a hash of each record's key."""
    return digests(map(key, records), len(records))


def cut_by_position(
    records: Sequence[R], shares: Mapping[str, float], cut: Callable[[R, float, float], R | None]
) -> dict[str, list[R]]:
    """Cut every record into adjoining parts, one for each split, the test last."""
    held_out = [name for name in ("validation", "test") if shares.get(name)]
    remaining = [sum(shares[name] for name in held_out[i:]) for i in range(len(held_out))]
    # One number both ends a part and starts the next, so that no character is lost.
    edges = [0.0, *(1.0 - share for share in remaining), 1.0]
    splits: dict[str, list[R]] = {name: [] for name in ("train", *shares)}
    for record in records:
        for name, (start, end) in zip(("train", *held_out), pairwise(edges), strict=True):
            part = cut(record, start, end)
            if part is not None:
                splits[name].append(part)
    return splits


def _remove_overlap(
    splits: dict[str, Sequence[R]], key: Callable[[R], str], report: dict[str, Any]
) -> None:
    """Drop held-out records from training, and test records from validation."""
    held_keys = _keys(splits["test"], key)
    for name in ("validation", "train"):
        keys = _keys(splits[name], key)
        kept = ~np.isin(keys, held_keys)
        report[f"{name}_dropped_as_held_out"] = int((~kept).sum())
        held_keys = np.concatenate([held_keys, keys[kept]])
        splits[name] = disk.select(splits[name], np.flatnonzero(kept))


def _require_records(splits: Mapping[str, Sequence[Any]], data: DataConfig) -> None:
    if not splits["train"]:
        raise UserError(
            f"{_name(data)}: nothing is left to train on: all of it is in data.test or "
            "data.validation"
        )
    for name in ("validation", "test"):
        if not splits[name]:
            raise UserError(
                f"{_name(data)}: the {name} split is empty ({len(splits['train']):,} training "
                f"rows); give more rows, a larger data.{name}, or a source of its own"
            )


def _name(data: DataConfig) -> str:
    return ", ".join(as_list(data.source))
