"""``unfold predict --file``: answer every row of a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.cli.options import Parser
from pipelines.cli.output import print_json
from pipelines.cli.selection import find_request
from pipelines.engine.core.commands import option
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.training import devices
from pipelines.workflows.predict_file import check_job, predict_file, summary


def add_options(parser: Parser) -> None:
    """Add the options of files."""
    parser.add_argument(
        "--file", metavar="IN", help="answer each row of a table; for captioning also of a folder"
    )
    parser.add_argument(
        "--out", metavar="OUT", type=Path, help="where to: a .csv, .tsv, .jsonl or .parquet file"
    )
    parser.add_argument(
        "--column", metavar="NAME", help="the column that holds the inputs; default: the config's"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def is_wanted(args: argparse.Namespace) -> bool:
    """Return whether an option of files is given."""
    return args.overwrite or any(v is not None for v in (args.file, args.out, args.column))


def run(args: argparse.Namespace, console: Console) -> None:
    """Write the answers to a file, and print how many there are."""
    if args.file is None or args.out is None:
        both = f"{option('file', 'IN')} {option('out', 'OUT')}"
        raise UserError(f"give a file of inputs and one of predictions: {both}")
    if args.input:
        raise UserError(f"{option('file', args.file)}: give inputs or a file of them, not both")
    for name, path in vars(args).items():
        if name.startswith("write_") and path is not None:
            raise UserError(f"--{name.removeprefix('write_')}: for one input, not for a --file")
    # How this file is written, which need not be how the data of training is.
    trained, config = find_request(args, console, sections=("data.format",))
    job = check_job(config, args.file, args.out, column=args.column, overwrite=args.overwrite)
    devices.select("cpu")
    result = predict_file(trained, config, job, console)
    if args.json:
        print_json(result)
        return
    for line in result["first_unusable"]:
        console.warn(line)
    print(summary(result))
