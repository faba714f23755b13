"""``unfold export``."""

from __future__ import annotations

import argparse

from pipelines.cli.options import Commands, add_command, add_run_of_config
from pipelines.cli.output import print_json
from pipelines.cli.selection import find_run
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs.publishing import publish, publish_folder


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, "export", run, "Copy a SavedModel to exports/TASK/VERSION.")
    add_run_of_config(parser, default="the champion; without one, the latest finished run")


def run(args: argparse.Namespace, console: Console) -> None:
    """Export the champion, or the run that ``--run`` or ``--config`` selects.

    Without a champion, the latest finished run is exported.
    """
    from pipelines.engine.runs import registry

    champion = None
    if args.run is None and args.config is None:
        try:
            champion = registry.champion(args.task)
        except UserError as error:
            raise UserError(f"{error}; export a run of your choice: --run ID") from None
    if champion is not None:
        run_id, reason = champion.run, f"the champion, version {champion.version}"
        with registry.savedmodel(args.task, champion) as source:
            folder = publish_folder(args.task, source)
    else:
        trained = find_run(args)
        run_id = trained.id
        is_selected = args.run or args.config
        reason = "as selected" if is_selected else "the latest; there is no champion"
        folder = publish(trained)
    console.say(f"run {run_id}: {reason}")
    if args.json:
        print_json({"run": run_id, "champion": champion is not None, "folder": str(folder)})
    else:
        print(folder)
