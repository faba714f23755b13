"""``unfold demo``."""

from __future__ import annotations

import argparse
import importlib.util

from pipelines.cli.options import Commands, add_command
from pipelines.engine.core.addresses import listen
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.training import devices


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, "demo", run, "Try every task on a web page.", task=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7860)


def run(args: argparse.Namespace, console: Console) -> None:
    """Open the page.

    Raises:
        UserError: Gradio is not installed, or the address is unavailable.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the demo needs the package gradio, which this installs: make demo")
    listen(args.host, args.port).close()
    devices.select("cpu")
    from pipelines.demo.page import launch  # TensorFlow takes seconds to import

    console.say(f"http://{args.host}:{args.port}")
    launch(args.host, args.port)
