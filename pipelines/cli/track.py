"""``unfold track``."""

from __future__ import annotations

import argparse

from pipelines.cli.options import Commands, add_command, add_run
from pipelines.cli.selection import find_run
from pipelines.engine.core.console import Console
from pipelines.engine.runs import mlflow_store
from pipelines.engine.training import devices


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    summary = "Send a run to MLflow that could not be sent before."
    add_run(add_command(commands, "track", run, summary))


def run(args: argparse.Namespace, console: Console) -> None:
    """Send a run to MLflow."""
    trained = find_run(args)
    devices.select("cpu")
    from pipelines.workflows.train import track

    track(trained, console)
    console.say(f"run {trained.id} is in {mlflow_store.shown_uri()}")
