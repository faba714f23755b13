"""JSON Lines (``.jsonl``): one object a line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.opening import open_decompressed
from pipelines.engine.data.sources.rows import Row, Unusable, require_columns


def read_jsonl(path: Path, name: str, columns: Sequence[str]) -> Iterator[Row | Unusable]:
    """Yield the objects of a JSON Lines file; blank lines are skipped."""
    names: set[str] = set()
    complete = False
    with open_decompressed(path) as file:
        for line, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            place = f"{name}:{line}"
            if line == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                record = json.loads(raw.decode("utf-8", errors="surrogateescape"))
            except json.JSONDecodeError as error:
                yield Unusable(f"not JSON ({error.msg})", place)
                continue
            except (ValueError, RecursionError):
                yield Unusable("not JSON that can be read (too long a number, or too deep)", place)
                continue
            if not isinstance(record, dict):
                yield Unusable("not a JSON object", place)
                continue
            names.update(record)
            if missing := [c for c in columns if record.get(c) is None]:
                yield Unusable(f"no {missing[0]!r}", place)
                continue
            complete = True
            yield Row(record, place, path.parent)
    if not names:
        raise UserError(f"{path}: the file holds no JSON object")
    if not complete:
        require_columns(str(path), columns, sorted(names))
