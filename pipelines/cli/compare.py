"""``unfold compare``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

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
from pipelines.engine.core.commands import command, settings
from pipelines.engine.core.console import Console
from pipelines.engine.data.preview import check_sources
from pipelines.engine.tasks.catalog import find_config, get_config

if TYPE_CHECKING:
    from pipelines.workflows.comparison import Variant


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, "compare", run, "Train a config's variants side by side.")
    add_config(parser)
    add_set(parser)
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        metavar="N",
        help="default: the config's, and the next two; of folds, the config's",
    )
    parser.add_argument(
        "--folds", type=_folds, metavar="K", help="cross-validate: each of K parts is the test once"
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
        args.folds,
        args.only,
        console,
        worker=worker.COMMAND,
    )
    if args.json:
        print_json(result.json())
        return
    console.table(result.title, result.columns, result.rows)
    if result.best is not None:
        print(f"best: {result.best.name}; {_next_command(args, result.best)}")
    print(result.folder)


def _next_command(args: argparse.Namespace, best: Variant) -> str:
    """Return the command that makes a model of the best variant."""
    if args.folds is None:
        return command("promote", args.task, run=best.runs[0])
    # Each run of a cross-validation was tested on other records.
    train = command("train", args.task, config=args.config, name=args.name)
    return f"{train} {settings([*args.set, *get_config(args.task).variants[best.name]])}"


def _folds(text: str) -> int:
    folds = positive_integer(text)
    if folds < 2:
        raise argparse.ArgumentTypeError(
            "must be at least 2: one fold is tested on, the others are trained on"
        )
    return folds
