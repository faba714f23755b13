"""The ``unfold`` command: one module a command, put together here."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

# Before anything imports TensorFlow: its start-up messages are not for users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pipelines.cli import (
    compare,
    demo,
    drift,
    evaluate,
    explain,
    export,
    image,
    lab,
    predict,
    promote,
    report,
    serve,
    sweep,
    track,
    train,
    ui,
)
from pipelines.cli.options import Parser
from pipelines.cli.process import finish
from pipelines.engine.core.console import Console

#: In the order of ``unfold --help``. Each module adds its options with ``add_parser(commands)``,
#: and sets a function ``run(args, console)``, which imports TensorFlow once it is needed.
_COMMANDS = (
    train,
    evaluate,
    predict,
    explain,
    drift,
    report,
    export,
    promote,
    track,
    serve,
    image,
    compare,
    sweep,
    demo,
    lab,
    ui,
)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and end this process with its exit code.

    Args:
        arguments: Those of this process by default.
    """
    console = Console()

    def work() -> None:
        argv = sys.argv[1:] if arguments is None else arguments
        args = make_parser().parse_args(argv, argparse.Namespace(argv=argv))
        args.run_command(args, console)

    finish(work, console)


def make_parser() -> Parser:
    """Create the parser of all commands."""
    parser = Parser(prog="unfold", description="Recurrent networks for text and series.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser
