"""Tables of a run that grow by a few rows an epoch."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from typing import Any

from pipelines.engine.core.files import write_text
from pipelines.engine.core.tables import Table
from pipelines.engine.runs.run import Run

#: The tables of what a model answered after each epoch, and of how gradients came back.
EXAMPLES, FLOW = "examples_by_epoch", "gradient_flow"


def keep_by_epoch(run: Run, name: str, epoch: int, table: Table) -> None:
    """Add the rows of an epoch to a table; once, also where an epoch was done again."""
    before = [row for row in read_table(run, name)[1:] if int(row[0]) < epoch]
    now = [[epoch, *row] for row in table.rows]
    write_table(run, name, [["epoch", *table.columns], *before, *now])


def read_table(run: Run, name: str) -> list[list[str]]:
    """The rows of a table, its columns first; none if there is no such table."""
    path = run.folder / "tables" / f"{name}.csv"
    if not path.exists():
        return []
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def write_table(run: Run, name: str, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(run.folder / "tables" / f"{name}.csv", text.getvalue())
