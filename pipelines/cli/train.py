"""``unfold train``."""

from __future__ import annotations

import argparse
import sys

from pipelines import api
from pipelines.cli.options import Commands, add_command, add_config, add_json, add_set
from pipelines.cli.output import print_json, print_scores
from pipelines.cli.selection import config_overrides, select_device
from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.preview import check_sources
from pipelines.engine.runs.model_names import require_free
from pipelines.engine.runs.run import REPORT, Run
from pipelines.engine.tasks.catalog import find_config, get_config
from pipelines.engine.training import cluster

#: Starts this command in a process of its own.
_COMMAND = (sys.executable, "-m", "pipelines.cli")


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(commands, "train", run, "Train, evaluate and track a model.")
    add_config(parser)
    add_set(parser)
    parser.add_argument("--resume", metavar="RUN", help="continue an interrupted run")
    parser.add_argument(
        "--coordinator", metavar="HOST:PORT", help="the address of process 0 of several"
    )
    parser.add_argument("--processes", metavar="N", type=int, help="how many train together")
    parser.add_argument("--process-id", metavar="I", type=int, help="which one this is, from 0")
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> None:
    """Train, and print the test scores; one of several processes only if it is process 0."""
    location = cluster.Location.resolve(args.coordinator, args.processes, args.process_id)
    resumed = None
    if args.resume is not None:
        if args.config is not None or args.name is not None or args.set:
            raise UserError(
                "--resume takes the config of the run: leave out --config, --name and --set"
            )
        resumed = Run.find(args.task, args.resume)
        config = resumed.config()
    else:
        file = find_config(args.task, args.config)
        config = configs.load(file, get_config(args.task), config_overrides(args))
    if location is not None:
        model = _train_together(config, resumed, location, args.argv, console)
    elif resumed is not None:
        model = api.resume(resumed.id, console=console)
    else:
        model = api.train(config, console=console)
    if model is None:  # one of several processes, and not the main one
        return
    if args.json:
        page = model.folder / REPORT
        result: dict[str, object] = {"run": model.run, "scores": model.scores}
        result["folder"] = str(model.folder)
        result["report"] = str(page) if page.exists() else None
        print_json(result | {"model": model.name})
    else:
        print_scores(console, model.run, model.scores, model.verdict)


def _train_together(
    config: Experiment,
    resumed: Run | None,
    location: cluster.Location,
    arguments: list[str],
    console: Console,
) -> api.Model | None:
    """Train as one of several processes; only the main one has a model in the end."""
    if resumed is None:
        require_free(config)
    check_sources(config.data)
    if config.train.distribute != "jax":
        raise UserError("several processes train together with: --set train.distribute=jax")
    if (code := cluster.supervise(location, [*_COMMAND, *arguments])) is not None:
        sys.exit(code)
    selected = select_device(
        config.device, console, config.train.distribute, lambda: cluster.join(location)
    )
    from pipelines.workflows import train  # Keras fixes the backend

    joined = cluster.joined()
    if joined is not None and joined.process_id:
        train.train_as_worker(config, joined)
        return None
    if resumed is not None:
        return api.Model(train.resume(resumed, selected, console, joined))
    return api.Model(train.train(config, selected, console, joined))
