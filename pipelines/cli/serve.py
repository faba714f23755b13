"""``unfold serve``."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.cli.options import Commands, add_command, add_set
from pipelines.engine.config import loader as configs
from pipelines.engine.core.commands import command
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs.model_names import tasks_of
from pipelines.engine.tasks.catalog import task_names
from pipelines.engine.training import devices
from pipelines.serving import startup
from pipelines.serving.config import ServingConfig

#: Options that set the config key of the same name.
_KEYS = ("host", "port", "grpc_port")


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    summary = "Serve exported models over HTTP, and gRPC."
    parser = add_command(commands, "serve", run, summary, task=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models; all exported by default")
    parser.add_argument("--config", metavar="FILE", help="default: configs/serving.yaml")
    parser.add_argument("--host", help="default: the config's, which is this machine only")
    parser.add_argument("--port", type=int, help="default: the config's, which is 8501")
    parser.add_argument(
        "--grpc-port", type=int, help="speak gRPC too; default: the config's, or not"
    )
    add_set(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Serve until the process is stopped.

    Raises:
        UserError: A model has no export, or the server cannot start.
    """
    for name in args.names:
        require_export(name)
    chosen = [f"{key}={v}" for key in _KEYS if (v := getattr(args, key)) is not None]
    file = configs.find_file(Path("configs/serving.yaml"), args.config)
    config = configs.load(file, ServingConfig, [*args.set, *chosen])
    startup.exported_models()
    addresses = startup.open_addresses(config)
    devices.select("cpu")
    from pipelines.serving import server  # TensorFlow takes seconds to import

    server.run(args.names, config, addresses)


def require_export(name: str) -> None:
    """Check that a model has a version in ``exports/``; otherwise say how to make one."""
    root = startup.exports_folder()
    is_folder = "/" not in name and not name.startswith(".")
    if is_folder and any((root / name).glob("[0-9]*/saved_model.pb")):
        return
    problem = f"no export of {name!r} in {root}"
    if name in task_names():
        raise UserError(f"{problem}: {command('export', name)}")
    if tasks := tasks_of(name):
        raise UserError(f"{problem}: {command('export', tasks[0], name=name)}")
    raise UserError(f"{problem}; there are: {', '.join(startup.exported_models())}")
