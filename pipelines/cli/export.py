"""``unfold export``."""

from __future__ import annotations

import argparse

from pipelines.cli.options import Commands, add_command, add_run_of_config
from pipelines.cli.output import print_json
from pipelines.cli.selection import find_run, say_origin
from pipelines.engine.core.commands import command
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs.model_names import check_name
from pipelines.engine.runs.origin import Origin
from pipelines.engine.runs.publishing import publish, publish_folder
from pipelines.engine.runs.run import Run


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, "export", run, "Copy a SavedModel to exports/NAME/VERSION.")
    add_run_of_config(parser, default="the champion; without one, the latest finished run")


def run(args: argparse.Namespace, console: Console) -> None:
    """Export the champion of a model, or the run that ``--run`` or ``--config`` selects.

    Without a champion, the latest finished run is exported.
    """
    from pipelines.engine.runs import registry

    model = args.name or args.task
    check_name(args.task, model)
    champion = None
    if args.run is None and args.config is None:
        try:
            champion = registry.champion(args.task, model)
        except UserError as error:
            raise UserError(f"{error}; export a run of your choice: --run ID") from None
    if champion is not None:
        origin = Origin.of_champion(args.task, model, champion)
        reason = f"the champion, version {champion.version}"
        with registry.savedmodel(args.task, champion) as source:
            folder = publish_folder(source, origin)
    else:
        trained = find_run(args)
        origin = Origin.of(trained)
        is_selected = args.run or args.config
        reason = "as selected" if is_selected else "the latest; there is no champion"
        folder = publish(trained)
    say_origin(args, console, origin, reason)
    if champion is not None:
        _point_at_newer(args.task, model, champion.run, console)
    if args.json:
        result = {"run": origin.run, "champion": champion is not None, "folder": str(folder)}
        print_json(result | {"model": origin.model})
    else:
        print(folder)


def _point_at_newer(task: str, model: str, exported: str, console: Console) -> None:
    """Say so if there is a newer run than the champion that was exported."""
    try:
        latest = Run.find(task, None, model=model)
    except UserError:
        return  # the champion was trained elsewhere, or in a comparison
    if latest.id != exported:
        how = command("export", task, run=latest.id, name=model)
        console.say(f"the latest run is {latest.id}; to export it: {how}")
