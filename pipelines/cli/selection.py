"""The run, config and device that a command works with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_config
from pipelines.engine.training import devices


def find_run(args: argparse.Namespace) -> Run:
    """Find the run of ``--run``, or the latest finished one.

    ``--config`` limits the search to runs of configs with the same name.
    """
    name = None
    if args.config is not None:
        name = configs.load(Path(args.config), get_config(args.task)).name
    return Run.find(args.task, args.run, name)


def prepare_request(args: argparse.Namespace) -> tuple[Run, Experiment]:
    """Find the run that answers a request, and its config with ``--set``; select the CPU.

    Raises:
        UserError: ``--set`` names a key that a request cannot choose.
    """
    request_keys = get_config(args.task).request_keys
    for pair in args.set:
        if pair.partition("=")[0] not in request_keys:
            keys = ", ".join(request_keys) or "none"
            raise UserError(f"--set {pair}: a request of {args.task} can choose: {keys}")
    run = find_run(args)
    config = run.config(args.set)
    devices.select("cpu")
    return run, config


def select_device(device: Any, console: Console, *distribution: Any) -> dict[str, str]:
    """Select a device (see `devices.select`) and print which one it is."""
    selected = devices.select(device, *distribution)
    console.say(f"backend {selected['backend']}, device {selected['device']}")
    return selected


def check_utf8(inputs: list[str]) -> None:
    """Check that inputs were valid UTF-8.

    Raises:
        UserError: One holds surrogates, by which Python keeps bytes that it cannot decode.
    """
    for number, text in enumerate(inputs, 1):
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise UserError(f"input {number}: not text in UTF-8")
