"""``unfold explain``."""

from __future__ import annotations

import argparse

from pipelines.api.model import check_utf8
from pipelines.cli.options import Commands, add_command, add_run_of_config, add_set
from pipelines.cli.output import print_json
from pipelines.cli.selection import find_model
from pipelines.engine.core.console import Console


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    summary = "Show what a trained run does with an input, step by step."
    parser = add_command(commands, "explain", run, summary)
    parser.add_argument("input", metavar="INPUT", help="as for predict")
    add_run_of_config(parser)
    add_set(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Write the pages of an explanation, and print their paths."""
    check_utf8([args.input])
    model = find_model(args, console)
    explained = model.explain(args.input)
    files = explained.save()
    if args.json:
        print_json(explained.json | {"run": model.run, "files": [str(path) for path in files]})
    else:
        print(*files, sep="\n")
