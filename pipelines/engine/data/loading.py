"""From sources to the records of each split: read, counted, split, kept apart.

A task says how a row becomes a record, which records are the same, and nothing else.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np

from pipelines.engine.config.schema import DataConfig, TextDataConfig, as_list, as_text
from pipelines.engine.core.errors import UserError
from pipelines.engine.data import disk
from pipelines.engine.data.sources.reading import read as rows_of
from pipelines.engine.data.sources.rows import Problems, Row
from pipelines.engine.data.splits import Splits, digests, fingerprint, split_shares

#: With fewer distinct documents than these, a share of them says little: they are cut instead.
FEW = 20


class Record(Protocol):
    """One usable row, as a task sees it."""

    @property
    def place(self) -> str:
        """Where it was found (``file:line``), for messages and tables."""
        ...


R = TypeVar("R", bound=Record)


def load(
    data: DataConfig,
    columns: Sequence[str],
    parse: Callable[[Row], R | str],
    *,
    key: Callable[[R], str],
    stratum: Callable[[R], Any] = lambda record: 0,
    parts: Callable[[R], Iterable[str]],
    seed: int,
    leave_out: Callable[[R], bool] = lambda record: False,
    together: Callable[[Sequence[R]], Sequence[R]] = lambda records: records,
    cut: Callable[[R, float, float], R | None] | None = None,
    check: Callable[[Mapping[str, Sequence[R]]], None] | None = None,
) -> Splits:
    """Read every source of the config; records with equal keys end up on one side only.

    Args:
        columns: what ``parse`` looks at; ``data.where`` may look at others.
        parse: the record of a row, or why the row cannot be used.
        key: what makes two records the same, e.g. their text.
        stratum: shares are taken of every stratum alike.
        parts: what the fingerprint goes over; alike in two records, one repeats the other.
        leave_out: whether a record that could be used is not wanted.
        together: the records of a split's sources, where several rows are one record.
        cut: the piece of a record between two positions from 0 to 1, None if nothing is there.
            Given, a source with few documents is split inside each of them: the beginning trains,
            then comes the validation, and the end is the test.
        check: what a task demands of its splits, by name; asked before that none is empty.

    Raises:
        UserError: a source cannot be read, has too many unusable rows, or is too small.
    """
    report: dict[str, Any] = {}
    keep = keeper(data)

    def read_all(sources: str | list[str]) -> Sequence[R]:
        return together(
            keep(
                record
                for source in as_list(sources)
                for record in read(
                    source, columns, parse,
                    parts=parts, leave_out=leave_out, data=data, report=report,
                )
            )
        )  # fmt: skip

    records = read_all(data.source)
    held_out: dict[str, Sequence[R]] = {}
    shares: dict[str, float] = {}
    for name, where in (("test", data.test), ("validation", data.validation)):
        if isinstance(where, float):
            # Both shares are of the whole source.
            shares[name] = where
        else:
            held_out[name] = read_all(where)
    if sum(shares.values()) >= 1:
        raise UserError(
            f"data.test and data.validation hold out {sum(shares.values()):.0%} of {_name(data)}: "
            "nothing is left to train on"
        )
    dropped = 0
    keys = _keys(records, key)
    if cut is not None and any(shares.values()) and len(np.unique(keys)) < FEW:
        # What is held out whole has to be found before it is in pieces.
        seen = np.concatenate([keys[:0], *(_keys(split, key) for split in held_out.values())])
        whole = disk.take(records, np.flatnonzero(~np.isin(keys, seen)))
        dropped = len(records) - len(whole)
        pieces = _cut(whole, shares, cut)
        splits = {name: keep(split) for name, split in pieces.items()} | held_out
        report["cut_by_position"] = True
    else:
        numbers: dict[Any, int] = {}
        strata = [numbers.setdefault(stratum(r), len(numbers)) for r in records]
        rank = np.argsort(np.argsort(list(numbers)))
        rows = split_shares(keys, rank[np.array(strata, np.int64)], shares, seed)
        splits = {name: disk.take(records, part) for name, part in rows.items()} | held_out
    _keep_apart(splits, key, report)
    report["train_dropped_as_held_out"] += dropped
    if check is not None:
        check(splits)
    _check(splits, data)
    names = ("train", "validation", "test")
    report["records"] = {name: len(splits[name]) for name in names}
    digest = fingerprint(
        part for name in names for record in splits[name] for part in (name, *parts(record))
    )
    tested = fingerprint(part for record in splits["test"] for part in parts(record))
    return Splits(**splits, fingerprint=digest, test_fingerprint=tested, report=report)


def keeper(data: DataConfig) -> Callable[[Iterable[R]], Sequence[R]]:
    """What puts records where ``data`` keeps them."""
    on_disk = isinstance(data, TextDataConfig) and data.keep == "disk"
    return disk.DiskRecords if on_disk else list


def read(
    source: str,
    columns: Sequence[str],
    parse: Callable[[Row], R | str],
    *,
    parts: Callable[[R], Iterable[Any]],
    leave_out: Callable[[R], bool],
    data: DataConfig,
    report: dict[str, Any],
) -> Iterator[R]:
    """The usable records of one source; what was found is put into ``report`` at its end.

    Arguments as for `load`.

    Raises:
        UserError: it cannot be read, has too many unusable rows, or none that can be used.
    """
    problems = Problems()
    # Hashes, because what is read is not kept here.
    seen = array("q")
    usable, filtered, left_out = 0, 0, 0
    for row in rows_of(source, [*columns, *data.where], problems):
        if any(as_text(row.fields[column]) != value for column, value in data.where.items()):
            filtered += 1
            continue
        record = parse(row)
        if isinstance(record, str):
            problems.add(row.place, record)
        elif leave_out(record):
            left_out += 1
        else:
            usable += 1
            seen.append(hash(tuple(parts(record))))
            yield record
    problems.check(source, data.max_bad_rows)
    if not usable:
        wanted = ", ".join(f"{column}: {value}" for column, value in data.where.items())
        why = f"none of its {problems.rows:,} rows has {wanted}" if filtered else "it has no rows"
        if left_out:
            why = f"{left_out:,} of {problems.rows:,} are left out as the config says"
        raise UserError(f"{source}: no usable row: {why}")
    report[source] = {
        "rows": problems.rows,
        "filtered_out": filtered,
        "left_out": left_out,
        "repeated": usable - len(np.unique(seen)),
        "unusable": dict(problems.reasons),
        "first_unusable": problems.examples,
    }


def _keys(records: Collection[R], key: Callable[[R], str]) -> np.ndarray:
    """``<uint64>[records]``: equal where keys are equal."""
    return digests(map(key, records), len(records))


def _cut(
    records: Sequence[R], shares: Mapping[str, float], cut: Callable[[R, float, float], R | None]
) -> dict[str, list[R]]:
    """Every record in pieces that meet without a gap, the test last."""
    order = [name for name in ("validation", "test") if shares.get(name)]
    held = [sum(shares[name] for name in order[i:]) for i in range(len(order))]
    # The same number ends one piece and starts the next.
    edges = [0.0, *(1.0 - share for share in held), 1.0]
    splits: dict[str, list[R]] = {name: [] for name in ("train", *shares)}
    for record in records:
        for name, (start, end) in zip(("train", *order), pairwise(edges), strict=True):
            piece = cut(record, start, end)
            if piece is not None:
                splits[name].append(piece)
    return splits


def _keep_apart(
    splits: dict[str, Sequence[R]], key: Callable[[R], str], report: dict[str, Any]
) -> None:
    """Drop from training what is held out, and from validation what is in the test."""
    seen = _keys(splits["test"], key)
    for name in ("validation", "train"):
        keys = _keys(splits[name], key)
        kept = ~np.isin(keys, seen)
        report[f"{name}_dropped_as_held_out"] = int((~kept).sum())
        seen = np.concatenate([seen, keys[kept]])
        splits[name] = disk.take(splits[name], np.flatnonzero(kept))


def _check(splits: Mapping[str, Sequence[Any]], data: DataConfig) -> None:
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
