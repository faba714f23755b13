"""``unfold promote``."""

from __future__ import annotations

import argparse

from pipelines.cli.options import Commands, add_command, add_json, add_run
from pipelines.cli.output import print_json
from pipelines.cli.selection import find_answering_run
from pipelines.engine.core.console import Console


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    summary = "Make a run the champion of its model, which export takes."
    parser = add_command(commands, "promote", run, summary)
    add_run(parser)
    parser.add_argument("--force", action="store_true", help="even if the champion is better")
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Promote a run, and print how it compares with the champion before."""
    from pipelines.engine.runs import registry

    trained = find_answering_run(args, console)
    message = registry.promote(trained, force=args.force)
    if args.json:
        version = trained.info.mlflow.model_version
        print_json(
            {"run": trained.id, "model": trained.model_name, "version": version, "said": message}
        )
    else:
        print(message)
