"""Tables of a run, as CSV files in its folder ``tables/``."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from typing import Any

from pipelines.engine.core.files import write_text
from pipelines.engine.core.tables import Table
from pipelines.engine.runs.run import Run

#: Names of the tables of example outputs and of gradient norms after each epoch, and of the layers.
EXAMPLES, FLOW, LAYERS = "examples_by_epoch", "gradient_flow", "layers"


def add_epoch(run: Run, name: str, epoch: int, table: Table) -> None:
    """Add the rows of an epoch to a table; those of an epoch that is repeated are replaced."""
    earlier = [row for row in read_table(run, name)[1:] if int(row[0]) < epoch]
    rows = [[epoch, *row] for row in table.rows]
    write_table(run, name, [["epoch", *table.columns], *earlier, *rows])


def read_table(run: Run, name: str) -> list[list[str]]:
    """Return the rows of a table, its column names first; empty if there is no such table."""
    path = run.folder / "tables" / f"{name}.csv"
    if not path.exists():
        return []
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def write_table(run: Run, name: str, rows: Sequence[Sequence[Any]]) -> None:
    """Write the rows of a table, its column names first."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(run.folder / "tables" / f"{name}.csv", text.getvalue())
