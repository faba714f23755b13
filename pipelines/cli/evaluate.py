"""``unfold evaluate``."""

from __future__ import annotations

import argparse

from pipelines.api import Model
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
    model = Model(trained, config)
    scores = model.evaluate()
    if args.json:
        result = {"run": model.run, "model": model.name, "records": scores.records, **scores}
        print_json(result | ({"verdict": scores.verdict} if scores.verdict else {}))
    else:
        print_scores(console, f"{model.run} on {scores.records:,} records", scores, scores.verdict)
