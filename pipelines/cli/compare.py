"""``unfold compare``."""

from __future__ import annotations

import argparse

from pipelines.cli import worker
from pipelines.cli.options import Commands, add_command, add_config, add_json, add_set
from pipelines.cli.output import print_json
from pipelines.cli.selection import config_overrides
from pipelines.engine.config import loader as configs
from pipelines.engine.core.commands import command
from pipelines.engine.core.console import Console
from pipelines.engine.data.preview import check_sources
from pipelines.engine.tasks.catalog import find_config, get_config


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, "compare", run, "Train a config's variants side by side.")
    add_config(parser)
    add_set(parser)
    parser.add_argument(
        "--seeds", nargs="+", type=int, metavar="N", help="default: the config's, and the next two"
    )
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="these; all by default")
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Train the variants, and print a table of their scores."""
    file, overrides = find_config(args.task, args.config), config_overrides(args)
    check_sources(configs.load(file, get_config(args.task), overrides).data)
    from pipelines.workflows import compare

    result = compare.compare(
        args.task,
        file,
        overrides,
        args.seeds,
        args.only,
        console,
        worker=worker.COMMAND,
    )
    if args.json:
        print_json(result.json())
        return
    console.table(result.title, result.columns, result.rows)
    if result.best is not None:
        promote = command("promote", args.task, run=result.best.runs[0])
        print(f"best: {result.best.name}; {promote}")
    print(result.folder)
