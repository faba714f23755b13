"""Command-line options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs.model_names import check_form
from pipelines.engine.tasks.catalog import get_config, task_names

#: What `argparse.ArgumentParser.add_subparsers` returns.
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are shown as those of a config are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}  (see: {self.prog} --help)")


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace, Console], None],
    summary: str,
    *,
    task: bool = True,
) -> Parser:
    """Add a command to the parser.

    Args:
        commands: Where it is added.
        name: The word that calls it.
        run: Called with the parsed arguments.
        summary: One sentence for ``--help``.
        task: Whether its first argument is the name of a task.
    """
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run_command=run)
    if task:
        summary = f"one of: {', '.join(task_names())}"
        parser.add_argument("task", metavar="TASK", type=_task_name, help=summary)
    return parser


def _task_name(text: str) -> str:
    get_config(text)  # raises a UserError if there is no such task
    return text


def add_config(parser: Parser) -> None:
    """Add ``--config`` and ``--name`` of a command that starts from a config."""
    parser.add_argument("--config", metavar="FILE", help="default: configs/TASK/default.yaml")
    add_name(parser, "the config's registered_model, or the task")


def add_name(parser: Parser, default: str) -> None:
    """Add ``--name``, the name of a model."""
    parser.add_argument(
        "--name", type=_model_name, help=f"the name of the model; default: {default}"
    )


def _model_name(text: str) -> str:
    try:
        check_form(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def add_set(parser: Parser) -> None:
    """Add ``--set``, which may be given several times."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a config key"
    )


def add_run(parser: Parser, default: str = "the latest finished run") -> None:
    """Add ``--run`` and ``--name``."""
    parser.add_argument("--run", metavar="ID", help=f"default: {default} of the model")
    add_name(parser, "the task, or that of the chosen run or config")


def add_run_of_config(parser: Parser, **default: Any) -> None:
    """Add ``--run``, and ``--config`` to choose the latest run of a config (see `find_run`)."""
    add_run(parser, **default)
    parser.add_argument("--config", metavar="FILE", help="the latest run of this config")
    add_json(parser)


def add_json(parser: Parser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def positive_integer(text: str) -> int:
    """Parse the value of an option that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)
