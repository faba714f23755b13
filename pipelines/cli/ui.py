"""``unfold ui``."""

from __future__ import annotations

import argparse

from pipelines.cli.options import Commands, add_command
from pipelines.engine.core.console import Console
from pipelines.engine.runs import mlflow_store


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, "ui", run, "Open the runs in the MLflow UI.", task=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)


def run(args: argparse.Namespace, console: Console) -> None:
    """Serve the MLflow UI until the process is stopped."""
    mlflow_store.serve_ui(args.host, args.port, console)
