"""Answer every row of a file, and write the answers to another."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core import signals
from pipelines.engine.core.commands import flag, option, settings
from pipelines.engine.core.console import Console, ProgressBar
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import require_writable
from pipelines.engine.data.parts import Parts
from pipelines.engine.data.sources.tables import InputTable, open_table
from pipelines.engine.data.table_writers import (
    TableWriter,
    WrittenRow,
    check_ending,
    table_writer,
)
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.base import FileInput, FileInputs
from pipelines.workflows.loaded_model import LoadedModel

#: Inputs in a part of the file.
_PART = 512
#: Inputs without an answer that are shown.
_SHOWN = 5
#: The column that says why a row has no answer.
_ERROR = "error"
#: Added to the name of an answer's column if the input has a column of this name.
_SUFFIX = "_predicted"
#: Counted up when the same job gives other parts.
_VERSION = 1


@dataclass(frozen=True)
class FileJob:
    """A file of inputs that has been checked, and where its answers go.

    Attributes:
        table: The inputs.
        column: The column that holds them.
        out: The file of predictions.
    """

    table: InputTable
    column: str
    out: Path


@dataclass
class _Counts:
    """The rows written so far."""

    inputs: int = 0
    rows: int = 0
    unusable: int = 0
    first_unusable: list[str] = field(default_factory=list)

    def add(self, given: FileInput, error: str | None, rows: int) -> None:
        self.inputs += 1
        self.rows += rows
        if error is not None:
            self.unusable += 1
            if len(self.first_unusable) < _SHOWN:
                self.first_unusable.append(f"{given.place}: {error}")


def check_job(
    config: Experiment, source: str, out: Path, *, column: str | None, overwrite: bool
) -> FileJob:
    """Check a file of inputs and the file of predictions, without importing TensorFlow.

    Args:
        config: The config of the run.
        source: The file, folder or pattern of inputs.
        out: The file of predictions.
        column: The column that holds the inputs, by default the config's.
        overwrite: Whether ``out`` may exist.

    Raises:
        UserError: The input cannot be read or lacks a column, or the output cannot be written.
    """
    _check_output(out, source, overwrite=overwrite)
    columns = _input_columns(config, column)
    advice = f"; name the column of inputs: {option('column', 'NAME')}"
    table = open_table(
        source,
        columns,
        config.data.format,
        pictures=config.input_files,
        advice=advice if len(columns) == 1 else "",
    )
    require_writable(out.absolute().parent, "the folder of predictions")
    return FileJob(table, columns[0], out)


def _check_output(out: Path, source: str, *, overwrite: bool) -> None:
    check_ending(out)
    if out.is_dir():
        raise UserError(f"{out}: a folder, not a file")
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise UserError(f"{out}: the input; name another file with {option('out', 'FILE')}")
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists already; to replace it: {flag('overwrite')}")


def _input_columns(config: Experiment, column: str | None) -> list[str]:
    """Return the columns that are needed, where ``column`` replaces that of the config."""
    columns = config.input_columns
    if column is not None and len(columns) > 1:
        raise UserError(
            f"{option('column', column)}: {config.task} reads several columns; name each by its "
            f"key, e.g. {settings([f'data.{config.data.column_keys[0]}=NAME'])}"
        )
    if column is None and not columns:
        raise UserError(
            f"{config.task} has no usual column of inputs; name it: {option('column', 'NAME')}"
        )
    return columns if column is None else [column]


def predict_file(run: Run, config: Experiment, job: FileJob, console: Console) -> dict[str, Any]:
    """Answer every row of a file with the run's SavedModel.

    An interrupted job goes on where it stopped if it is started again with the same input, run and
    settings; the file is the same as without an interruption.

    Args:
        run: A run with an export.
        config: The run's config.
        job: The files, from `check_job`.
        console: Where progress is shown.

    Returns:
        The run, the files, counts of inputs and of those without an answer, and notes.
    """
    result = answer_table(LoadedModel.of(run, config), job, console)
    return {"run": run.id, "model": run.model_name, **result}


def answer_table(model: LoadedModel, job: FileJob, console: Console) -> dict[str, Any]:
    """Answer every row of a file with a loaded model; see `predict_file`."""
    task, config, table = model.task, model.config, job.table
    given = task.file_inputs(config, table, job.column)
    answers = task.answer_columns(config, model.served) | {_ERROR: str}
    columns, names, renamed = _name_columns(job.out, given.columns, list(answers))
    kinds = dict(zip(names, answers.values(), strict=True))
    writer = table_writer(job.out, table, columns, kinds)
    notes = [*table.notes, *given.notes, *renamed]
    for note in notes:
        console.say(note)
    key = {
        "version": _VERSION,
        "input": _digest(str(table.path.absolute()), table.digest()),
        "run": model.run,
        "settings": _digest(configs.dump(config), job.column),
        "format": job.out.suffix.lower(),
    }
    counts = _write(model, given, writer, Parts(job.out, key), console)
    return {
        "file": str(table.path),
        "out": str(job.out),
        "inputs": counts.inputs,
        "rows": counts.rows,
        "columns": [*columns, *names],
        "unusable": counts.unusable,
        "first_unusable": counts.first_unusable,
        "notes": notes,
    }


def _write(
    model: LoadedModel, given: FileInputs, writer: TableWriter, parts: Parts, console: Console
) -> _Counts:
    """Answer the inputs that have no part yet, and write the whole file."""
    signals.install()
    with parts.opened():
        if parts.changed:
            console.say(f"{parts.out}: starts anew, with another {' and '.join(parts.changed)}")
        counts = _Counts(**parts.progress)
        if counts.inputs:
            console.say(f"{parts.out}: goes on after {counts.inputs:,} of {given.count:,} inputs")
        rest = islice(given.inputs, counts.inputs, None)
        try:
            with console.progress("predict", given.count, "inputs", done=counts.inputs) as bar:
                while part := list(islice(rest, _PART)):
                    rows = list(_answer(model, part, counts, bar))
                    parts.add(functools.partial(writer.write, rows), vars(counts))
            parts.finish(writer.join)
        except (KeyboardInterrupt, OSError):
            done = parts.progress.get("inputs", 0)
            console.say(
                f"{parts.out}: not complete; the same command goes on after {done:,} of "
                f"{given.count:,} inputs"
            )
            raise
    return counts


def _answer(
    model: LoadedModel, part: Sequence[FileInput], counts: _Counts, bar: ProgressBar
) -> Iterator[WrittenRow]:
    """Yield the rows of some inputs in their order, and count them."""

    def advance(count: int) -> None:
        bar.advance(count, steps=count)
        signals.check()

    usable = [given.example for given in part if given.error is None]
    if len(usable) < len(part):
        advance(len(part) - len(usable))
    predictions = iter(model.predict_all(usable, advance))
    none = [None] * len(model.task.answer_columns(model.config, model.served))
    for given in part:
        prediction = None if given.error is not None else next(predictions)
        error = given.error if prediction is None else prediction.error
        found: list[list[Any]] = [none]
        if prediction is not None and error is None:
            found = model.task.answer_rows(model.config, prediction)
        counts.add(given, error, len(found))
        for answers in found:
            yield WrittenRow(given.cells, [*answers, error], given.text)


def _name_columns(
    out: Path, columns: Sequence[str], answers: Sequence[str]
) -> tuple[list[str], list[str], list[str]]:
    """Return the names of the input's columns and of the answers', and notes on changed ones.

    A delimited file may repeat the name of a column, others may not.
    """
    notes, kept = [], list(columns)
    if out.suffix.lower() not in (".csv", ".tsv"):
        kept = []
        for name in columns:
            kept.append(_free_name(name, "_2", [*kept, *columns] if name in kept else []))
            if kept[-1] != name:
                notes.append(f"the input has several columns {name!r}; one is now {kept[-1]!r}")
    names = []
    for name in answers:
        names.append(_free_name(name, _SUFFIX, kept))
        if names[-1] != name:
            notes.append(f"the input has a column {name!r}; that of the answers is {names[-1]!r}")
    return kept, names, notes


def _free_name(name: str, suffix: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += suffix
    return name


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()


def summary(result: Mapping[str, Any]) -> str:
    """Return a sentence on the result of `predict_file`."""
    answered = result["inputs"] - result["unusable"]
    text = f"{result['out']}: {answered:,} of {result['inputs']:,} inputs answered"
    if not result["inputs"]:
        text = f"{result['out']}: the input has no rows, and the output only a header"
    if result["unusable"]:
        text += (
            f"; {result['unusable']:,} cannot be used (see the column {result['columns'][-1]!r})"
        )
    return text
