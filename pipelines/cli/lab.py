"""``unfold lab``."""

from __future__ import annotations

import argparse

from pipelines.cli.options import Commands, add_command
from pipelines.engine.core.console import Console
from pipelines.engine.training import devices


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    summary = "Measure the chapter's claims and write a report."
    parser = add_command(commands, "lab", run, summary, task=False)
    parser.add_argument("--fast", action="store_true", help="a tenth of the work, to see it run")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="these experiments; all by default"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all draws (default 1)")


def run(args: argparse.Namespace, console: Console) -> None:
    """Run the experiments, and print the path of the report."""
    devices.select("cpu")
    from pipelines.lab import run as lab  # Keras fixes the backend

    print(lab.run(console, only=args.only, fast=args.fast, seed=args.seed))
