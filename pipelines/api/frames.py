"""Predictions of the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.engine.config.schema import Experiment, as_text
from pipelines.engine.core.errors import UserError
from pipelines.engine.tasks.base import Task

if TYPE_CHECKING:
    import pandas as pd

#: Added to the name of an answer's column if the table has a column of this name.
_SUFFIX = "_predicted"


def to_pandas(table: Any) -> pd.DataFrame:
    """Return a table as a DataFrame of pandas, which is not the table itself."""
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        return table.copy()
    return pd.DataFrame({name: list(table[name]) for name in table.columns})


def inputs_of(
    task: Task, config: Experiment, frame: pd.DataFrame, column: str | None
) -> tuple[list[str], list[str | None]]:
    """Return the usable inputs of a table, and for each row why it cannot be used.

    Args:
        task: The task of the run.
        config: Its config.
        frame: The table.
        column: The column that holds the inputs; None for that of the config.

    Raises:
        UserError: There is no such column, or the task's inputs are not in one column.
    """
    name = _column(config, column)
    columns = [as_text(label) for label in frame.columns]
    if columns.count(name) != 1:
        found = ", ".join(repr(label) for label in columns) or "none"
        several = "no column" if name not in columns else "several columns"
        raise UserError(
            f"the table has {several} {name!r}; its columns are: {found[:200]}; name the column of "
            "inputs with column='NAME'"
        )
    examples: list[str] = []
    errors: list[str | None] = []
    for cell in frame.iloc[:, columns.index(name)].tolist():
        try:
            examples.append(task.cell_input(name, cell, Path()))
        except UserError as error:
            errors.append(str(error))
        else:
            errors.append(None)
    return examples, errors


def _column(config: Experiment, column: str | None) -> str:
    needed = config.input_columns
    if len(needed) > 1:
        raise UserError(
            f"{config.task} reads whole tables ({', '.join(needed)}) and not their rows; write the "
            "table to a file and predict its path"
        )
    if column is None and not needed:
        raise UserError(f"{config.task} has no usual column of inputs; name it with column='NAME'")
    return needed[0] if column is None else column


def add_answers(
    frame: pd.DataFrame, columns: dict[str, type], rows: Sequence[Sequence[Any]]
) -> None:
    """Add the columns of answers to a table.

    Args:
        frame: The table.
        columns: The names and types of the columns.
        rows: Their values for each row of the table.
    """
    import pandas as pd

    for i, (name, kind) in enumerate(columns.items()):
        while name in frame.columns:
            name += _SUFFIX
        values = [row[i] for row in rows]
        frame[name] = pd.Series(values, frame.index, float if kind is float else object)
