"""JSON Lines (``.jsonl``): one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.opening import open_text
from pipelines.engine.data.sources.rows import Row, UnusableRow, require_columns


def read_jsonl(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row | UnusableRow]:
    """Yield the objects of a JSON Lines file; blank lines are skipped."""
    names: set[str] = set()
    complete = False
    with open_text(path) as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            place = f"{name}:{line}"
            record = parse_object(text)
            if isinstance(record, str):
                yield UnusableRow(record, place)
                continue
            names.update(record)
            if (reason := find_repeated(record, columns)) is not None:
                complete = True
                yield UnusableRow(reason, place)
                continue
            if missing := [c for c in columns if record.get(c) is None]:
                yield UnusableRow(f"no {missing[0]!r}", place)
                continue
            complete = True
            yield Row(record, place, path.parent)
    if not names:
        raise UserError(f"{path}: the file holds no JSON object")
    if not complete:
        require_columns(str(path), columns, sorted(names))


def parse_object(text: str) -> dict[str, Any] | str:
    """Return the object of a line, or why there is none."""
    try:
        # Files that were joined have byte order marks inside.
        record = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg})"
    except (ValueError, RecursionError):
        return "not JSON that can be read (too long a number, or too deep)"
    return record if isinstance(record, dict) else "not a JSON object"


def find_repeated(record: dict[str, Any], columns: Sequence[str]) -> str | None:
    """Return why a row cannot be used in which one of the keys ``columns`` occurs several times."""
    repeated = record.repeated if isinstance(record, _Repeating) else ()
    unclear = next((column for column in columns if column in repeated), None)
    return None if unclear is None else f"the key {unclear!r} occurs several times"


class _Repeating(dict[str, Any]):
    """An object in which keys occur several times; it has the last values, as JSON readers do."""

    repeated: frozenset[str]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) == len(pairs):
        return record
    repeating = _Repeating(record)
    names = [name for name, _ in pairs]
    repeating.repeated = frozenset(name for name in record if names.count(name) > 1)
    return repeating
