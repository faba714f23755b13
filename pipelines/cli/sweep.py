"""``unfold sweep``."""

from __future__ import annotations

import argparse

from pipelines.cli import worker
from pipelines.cli.options import (
    Commands,
    add_command,
    add_config,
    add_json,
    add_set,
    positive_integer,
)
from pipelines.cli.output import print_json
from pipelines.cli.selection import config_overrides
from pipelines.engine.config import loader as configs
from pipelines.engine.core.console import Console
from pipelines.engine.data.preview import check_sources
from pipelines.engine.tasks.catalog import find_config, get_config


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, "sweep", run, "Search for the best keys of a config.")
    add_config(parser)
    parser.add_argument("--space", metavar="FILE", help="default: sweeps/ beside the config")
    add_set(parser)
    parser.add_argument(
        "--trials", type=positive_integer, metavar="N", help="in all; default: the space's"
    )
    parser.add_argument(
        "--workers", type=positive_integer, default=1, metavar="N", help="trials at a time"
    )
    parser.add_argument(
        "--storage", metavar="URL", help="a database, or a journal file, that workers share"
    )
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Search, and print a table of the best trials."""
    file, overrides = find_config(args.task, args.config), config_overrides(args)
    check_sources(configs.load(file, get_config(args.task), overrides).data)
    from pipelines.workflows import search_space, sweep

    result = sweep.sweep(
        args.task,
        file,
        search_space.find_space(file, args.space),
        overrides,
        console,
        worker=worker.COMMAND,
        trials=args.trials,
        workers=args.workers,
        storage=args.storage,
    )
    if args.json:
        print_json(result.json())
        return
    console.table(result.title, result.columns, result.rows)
    print(f"train the best: {result.command}" if result.best else result.folder)
