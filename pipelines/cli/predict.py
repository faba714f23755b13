"""``unfold predict``."""

from __future__ import annotations

import argparse
import codecs
import sys
from pathlib import Path

from pipelines.api.model import check_utf8
from pipelines.cli import predict_file
from pipelines.cli.options import Commands, add_command, add_run_of_config, add_set
from pipelines.cli.output import print_json
from pipelines.cli.selection import find_model
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.tasks.catalog import get_config, task_names


def add_parser(commands: Commands) -> None:
    """Add the command and its options, one for each file that some task can write."""
    parser = add_command(commands, "predict", run, "Answer one or more inputs with a trained run.")
    given = parser.add_argument(
        "input", nargs="+", metavar="INPUT", help="'-' reads one input per line from stdin"
    )
    given.required = False  # nargs="*" would find none after an option
    predict_file.add_options(parser)
    add_run_of_config(parser)
    add_set(parser)
    for name in _output_files():
        configs = {task: get_config(task) for task in task_names()}
        summaries = [
            f"{task}: {config.output_files[name]}"
            for task, config in configs.items()
            if name in config.output_files
        ]
        parser.add_argument(
            f"--{name}",
            dest=f"write_{name}",
            metavar="FILE",
            type=Path,
            help="; ".join(summaries),
        )


def run(args: argparse.Namespace, console: Console) -> None:
    """Print a table for each input, or all answers as JSON."""
    if predict_file.is_wanted(args):
        predict_file.run(args, console)
        return
    inputs = args.input
    if not inputs:
        raise UserError("give an INPUT, or --file and --out  (see: unfold predict --help)")
    if inputs == ["-"]:
        inputs = split_lines(sys.stdin.buffer.read())
    check_utf8(inputs)
    files = {n: p for n in _output_files() if (p := getattr(args, f"write_{n}")) is not None}
    for name in files:
        if name not in get_config(args.task).output_files:
            raise UserError(f"--{name}: {args.task} writes no such file")
        if len(inputs) > 1:
            raise UserError(f"--{name}: one file, but {len(inputs)} inputs")
    model = find_model(args, console)
    predictions = model.predict(inputs)
    for prediction in predictions:
        if prediction.error is not None:
            raise UserError(prediction.error)
    for name, path in files.items():
        model.write(predictions[0], name, path)
    if args.json:
        answers = [prediction.json for prediction in predictions]
        print_json(answers[0] if len(answers) == 1 else {"predictions": answers})
        return
    for prediction in predictions:
        console.table(prediction.title, prediction.columns, prediction.rows)


def split_lines(data: bytes) -> list[str]:
    """Return the lines of a text without a byte-order mark or the ``\\r`` of Windows' line ends."""
    text = data.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _output_files() -> list[str]:
    """Return the names of the files that some task can write its prediction to."""
    return sorted({name for task in task_names() for name in get_config(task).output_files})
