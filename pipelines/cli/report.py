"""``unfold report``."""

from __future__ import annotations

import argparse

from pipelines.cli.options import Commands, add_command, add_run_of_config
from pipelines.cli.output import print_json
from pipelines.cli.selection import find_answering_run
from pipelines.engine.core.console import Console


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    summary = "Write the page about a finished run again."
    add_run_of_config(add_command(commands, "report", run, summary))


def run(args: argparse.Namespace, console: Console) -> None:
    """Write the report of a run, and print its path."""
    trained = find_answering_run(args, console)
    from pipelines.workflows.report import write

    page = write(trained, console)
    if args.json:
        print_json({"run": trained.id, "model": trained.model_name, "report": str(page)})
    else:
        print(page)
