"""Read new data as a whole, to compare it with that of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pipelines.engine.config.schema import DataConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.data import loading
from pipelines.engine.data.loading import Record, RowParser
from pipelines.engine.data.sources.reading import read as read_rows
from pipelines.engine.data.sources.rows import RowReport

R = TypeVar("R", bound=Record)
D = TypeVar("D", bound=DataConfig)


def read_inputs(
    source: str, data: DataConfig, parser: Callable[[bool], RowParser[R]], report: dict[str, Any]
) -> Sequence[R]:
    """Read the records of a source, which need no labels, without splitting them.

    Args:
        source: A file, or any other source.
        data: The ``data`` section of the config, which says how it is read.
        parser: Returns how rows become records, with labels or without.
        report: Gets the counts of its rows, and notes.

    Raises:
        UserError: The source cannot be read, or lacks a column of the input.
    """
    labelled = parser(True)
    chosen = labelled if has_columns(source, labelled.columns, data) else parser(False)
    data = where_possible(source, chosen.columns, data, report)
    return loading.record_store(data)(loading.read(source, chosen, data, report))


def where_possible(source: str, columns: Sequence[str], data: D, report: dict[str, Any]) -> D:
    """Return the ``data`` section without ``where`` if the source lacks its columns, with a note.

    It chooses rows of the source of training; new data need not have its columns.
    """
    if not data.where or has_columns(source, [*columns, *data.where], data):
        return data
    if has_columns(source, columns, data):  # else reading it will say what is wrong
        names = ", ".join(repr(name) for name in data.where)
        report.setdefault("notes", []).append(
            f"{source}: has no column {names}, so that data.where is not applied"
        )
    return data.model_copy(update={"where": {}})


def has_columns(source: str, columns: Sequence[str], data: DataConfig) -> bool:
    """Return whether a source has a row with all of these columns."""
    try:
        return next(read_rows(source, columns, RowReport(), data.format), None) is not None
    except UserError:
        return False
