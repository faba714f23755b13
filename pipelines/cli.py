"""The ``unfold`` command. It parses, calls the runner and prints; nothing else."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

# Before anything imports TensorFlow: its start-up messages are not for users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pipelines import config as configs
from pipelines import devices, tracking
from pipelines.console import Console
from pipelines.errors import TrainingError, UserError
from pipelines.runs import Run, publish
from pipelines.tasks import NAMES, get_config

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> NoReturn:
    console = Console()
    try:
        args = _parser().parse_args(arguments)
        args.command(args, console)
    except UserError as error:
        console.error(str(error))
        sys.exit(2)
    except TrainingError as error:
        console.error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}  (see: {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="unfold", description="Recurrent networks for text and series.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, function: Any, summary: str, *, task: bool = True) -> Any:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=function)
        if task:
            sub.add_argument("task", metavar="TASK", help=f"one of: {', '.join(NAMES)}")
        return sub

    def pick_run(sub: Any) -> None:
        sub.add_argument("--run", metavar="ID", help="default: the latest finished run")
        sub.add_argument("--config", metavar="FILE", help="the latest run of this config")
        sub.add_argument("--json", action="store_true", help="one JSON object on standard output")

    def overrides(sub: Any) -> None:
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="override a config key"
        )

    sub = command("train", _train, "Train, evaluate and track a model.")
    sub.add_argument("--config", metavar="FILE", help="default: configs/TASK/default.yaml")
    overrides(sub)
    sub.add_argument("--resume", metavar="RUN", help="continue an interrupted run")
    sub.add_argument("--json", action="store_true", help="one JSON object on standard output")

    sub = command("evaluate", _evaluate, "Score a trained run on its test split.")
    pick_run(sub)
    overrides(sub)

    sub = command("predict", _predict, "Answer one or more inputs with a trained run.")
    sub.add_argument("input", nargs="+", metavar="INPUT", help="'-' reads a line each from stdin")
    pick_run(sub)
    overrides(sub)
    for name in _writes():
        what = {t: get_config(t).writes[name] for t in NAMES if name in get_config(t).writes}
        summary = "; ".join(f"{task}: {text}" for task, text in what.items())
        sub.add_argument(f"--{name}", dest=f"write_{name}", metavar="FILE", type=Path, help=summary)

    sub = command("export", _export, "Copy a run's SavedModel to exports/TASK/VERSION.")
    pick_run(sub)

    sub = command("track", _track, "Send a run to MLflow that could not be sent before.")
    sub.add_argument("--run", metavar="ID", help="default: the latest finished run")

    sub = command("lab", _lab, "Measure the chapter, and write it down.", task=False)
    sub.add_argument("--fast", action="store_true", help="a tenth of the work, to see it run")
    sub.add_argument("--only", nargs="+", metavar="NAME", help="these experiments; all by default")
    sub.add_argument("--seed", type=int, default=1, help="of all draws (default 1)")

    sub = command("ui", _ui, "Open the runs in the MLflow UI.", task=False)
    sub.add_argument("--host", default="127.0.0.1")
    sub.add_argument("--port", type=int, default=5000)
    return parser


def _train(args: argparse.Namespace, console: Console) -> None:
    if args.resume is not None:
        if args.config is not None or args.set:
            raise UserError("--resume takes the config of the run: leave out --config and --set")
        resumed = Run.find(args.task, args.resume)
        where = _choose_device(resumed.config().device, console)
        run = _runner().resume(resumed, where, console)
    else:
        file = configs.find(args.task, args.config)
        config = configs.load(file, get_config(args.task), args.set)
        where = _choose_device(config.device, console)
        run = _runner().train(config, where, console)
    scores = run.info["scores"]
    if args.json:
        _print_json({"run": run.id, "scores": scores, "folder": str(run.folder)})
    else:
        _print_scores(console, run.id, scores, run.info["verdict"])


def _evaluate(args: argparse.Namespace, console: Console) -> None:
    run = _find_run(args)
    config = run.config(args.set)
    _choose_device(config.device, console)
    result = _runner().evaluate(run, config)
    if args.json:
        _print_json(result)
    else:
        scores = {k: v for k, v in result.items() if isinstance(v, float)}
        title = f"{run.id} on {result['records']:,} records"
        _print_scores(console, title, scores, result.get("verdict", []))


def _predict(args: argparse.Namespace, console: Console) -> None:
    inputs = args.input
    if inputs == ["-"]:
        inputs = sys.stdin.buffer.read().decode(errors="surrogateescape")
        inputs = inputs.removesuffix("\n").split("\n")
    for number, text in enumerate(inputs, 1):
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise UserError(f"input {number}: not text in UTF-8")
    files = {n: p for n in _writes() if (p := getattr(args, f"write_{n}")) is not None}
    kind = get_config(args.task)
    for name in files:
        if name not in kind.writes:
            raise UserError(f"--{name}: {args.task} writes no such file")
        if len(inputs) > 1:
            raise UserError(f"--{name}: one file, but {len(inputs)} inputs")
    for pair in args.set:
        if pair.partition("=")[0] not in kind.at_request:
            keys = ", ".join(kind.at_request) or "none"
            raise UserError(f"--set {pair}: a request of {args.task} can choose: {keys}")
    run = _find_run(args)
    config = run.config(args.set)
    devices.select("cpu")
    predictions = _runner().predict(run, config, inputs, files)
    if args.json:
        answers = [p.json for p in predictions]
        _print_json(answers[0] if len(answers) == 1 else {"predictions": answers})
        return
    for prediction in predictions:
        console.table(prediction.title, prediction.columns, prediction.rows)


def _writes() -> list[str]:
    """The files that some task's prediction can be written to."""
    return sorted({name for task in NAMES for name in get_config(task).writes})


def _export(args: argparse.Namespace, console: Console) -> None:
    run = _find_run(args)
    folder = publish(run)
    if args.json:
        _print_json({"run": run.id, "folder": str(folder)})
    else:
        print(folder)


def _track(args: argparse.Namespace, console: Console) -> None:
    run = Run.find(args.task, args.run)
    devices.select("cpu")
    _runner().track(run, console)
    console.say(f"run {run.id} is in {tracking.store_uri()}")


def _lab(args: argparse.Namespace, console: Console) -> None:
    devices.select("cpu")
    from pipelines.lab.run import run  # once the backend is settled

    print(run(console, only=args.only, fast=args.fast, seed=args.seed))


def _ui(args: argparse.Namespace, console: Console) -> None:
    tracking.serve_ui(args.host, args.port, console)


def _find_run(args: argparse.Namespace) -> Run:
    """The run asked for; with a config, the latest finished run of a config of that name."""
    name = None
    if args.config is not None:
        name = configs.load(Path(args.config), get_config(args.task)).name
    return Run.find(args.task, args.run, name)


def _choose_device(device: Any, console: Console) -> dict[str, str]:
    where = devices.select(device)
    console.say(f"backend {where['backend']}, device {where['device']}")
    return where


def _runner() -> Any:
    """Keras takes seconds to import and fixes the backend: only once both are settled."""
    from pipelines import runner

    return runner


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _print_scores(
    console: Console, title: str, scores: dict[str, float], verdict: list[str]
) -> None:
    console.table(title, ["metric", "test"], [[k, f"{v:.4f}"] for k, v in scores.items()])
    for sentence in verdict:
        print(sentence)


if __name__ == "__main__":
    main()
