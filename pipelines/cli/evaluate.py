"""``unfold evaluate``."""

from __future__ import annotations

import argparse

from pipelines.cli.options import Commands, add_command, add_run_of_config, add_set
from pipelines.cli.output import print_json, print_scores
from pipelines.cli.selection import find_answering_run, select_device
from pipelines.engine.core.console import Console


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, "evaluate", run, "Score a trained run on its test split.")
    add_run_of_config(parser)
    add_set(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Print the scores of a run."""
    trained = find_answering_run(args, console)
    config = trained.config(args.set)
    select_device(config.device, console)
    from pipelines.workflows.evaluate import evaluate

    result = evaluate(trained, config)
    if args.json:
        print_json(result)
    else:
        scores = {k: v for k, v in result.items() if isinstance(v, float)}
        title = f"{trained.id} on {result['records']:,} records"
        print_scores(console, title, scores, result.get("verdict", []))
