"""The run, config and device that a command works with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipelines.api import Model
from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs.model_names import check_name
from pipelines.engine.runs.origin import Origin
from pipelines.engine.runs.run import Run, other_models
from pipelines.engine.tasks.catalog import get_config
from pipelines.engine.training import devices


def config_overrides(args: argparse.Namespace) -> list[str]:
    """Return the overrides of ``--set`` and, as it is a key of the config too, of ``--name``."""
    if args.name is None:
        return list(args.set)
    return [*args.set, f"registered_model='{args.name}'"]  # quoted: a name may be digits


def find_run(args: argparse.Namespace) -> Run:
    """Find the run of ``--run``, or the latest finished one of a model.

    ``--config`` limits the search to runs of configs with the same name, and of the config's model.
    """
    if args.name is not None:
        check_name(args.task, args.name)
    config_name, model = None, args.name
    if getattr(args, "config", None) is not None:
        config = configs.load(Path(args.config), get_config(args.task))
        config_name = config.name
        if args.run is None and model is None:
            model = config.model_name
    return Run.find(args.task, args.run, config_name, model)


def say_origin(args: argparse.Namespace, console: Console, origin: Origin, reason: str) -> None:
    """Say which run of which model answers, and which models the user could choose instead."""
    chosen = args.name or args.run or getattr(args, "config", None)
    others = "" if chosen else other_models(args.task, origin.model)
    console.say(origin.describe(reason) + others)


def find_answering_run(args: argparse.Namespace, console: Console) -> Run:
    """Find a run as `find_run` does, and say which one it is."""
    run = find_run(args)
    say_origin(args, console, Origin.of(run), "as chosen" if args.run else "the latest")
    return run


def find_request(
    args: argparse.Namespace, console: Console, sections: tuple[str, ...] = ()
) -> tuple[Run, Experiment]:
    """Find the run that answers a request, and its config with ``--set``.

    The run is reported on standard error.

    Args:
        args: The arguments of the command.
        console: Where the run is reported.
        sections: Sections whose keys the request can choose, beside those of every request.

    Raises:
        UserError: ``--set`` names a key that a request cannot choose.
    """
    request_keys = (*get_config(args.task).request_keys, *(f"{s}.*" for s in sections))
    for pair in args.set:
        key = pair.partition("=")[0]
        if key not in request_keys and f"{key.rpartition('.')[0]}.*" not in request_keys:
            keys = ", ".join(request_keys) or "none"
            raise UserError(f"--set {pair}: a request of {args.task} can choose: {keys}")
    run = find_answering_run(args, console)
    return run, run.config(args.set)


def find_model(args: argparse.Namespace, console: Console) -> Model:
    """Find the run and the config of a request as `find_request` does."""
    return Model(*find_request(args, console))


def select_device(device: Any, console: Console, *distribution: Any) -> dict[str, str]:
    """Select a device (see `devices.select`) and print which one it is."""
    selected = devices.select(device, *distribution)
    console.say(f"backend {selected['backend']}, device {selected['device']}")
    return selected
