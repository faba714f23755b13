"""The ``unfold`` command. It parses, calls the runner and prints; nothing else."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

# Before anything imports TensorFlow: its start-up messages are not for users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pipelines.cli import worker
from pipelines.cli.process import finish
from pipelines.engine.config import loader as configs
from pipelines.engine.config import schema
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs import tracking
from pipelines.engine.runs.run import Run, publish, publish_folder
from pipelines.engine.tasks.catalog import NAMES, get_config
from pipelines.engine.training import cluster, devices
from pipelines.serving.config import ServingConfig

#: Starts this command in a process of its own.
_COMMAND = (sys.executable, "-m", "pipelines.cli")


def main(arguments: list[str] | None = None) -> NoReturn:
    console = Console()

    def work() -> None:
        given = sys.argv[1:] if arguments is None else arguments
        args = _parser().parse_args(given, argparse.Namespace(given=given))
        args.command(args, console)

    finish(work, console)


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

    def pick_run(sub: Any, default: str = "the latest finished run") -> None:
        sub.add_argument("--run", metavar="ID", help=f"default: {default}")
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
    sub.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 of several is")
    sub.add_argument("--processes", metavar="N", type=int, help="how many train together")
    sub.add_argument("--process-id", metavar="I", type=int, help="which one this is, from 0")
    sub.add_argument("--json", action="store_true", help="one JSON object on standard output")

    sub = command("evaluate", _evaluate, "Score a trained run on its test split.")
    pick_run(sub)
    overrides(sub)

    sub = command("predict", _predict, "Answer one or more inputs with a trained run.")
    sub.add_argument("input", nargs="+", metavar="INPUT", help="'-' reads a line each from stdin")
    pick_run(sub)
    overrides(sub)
    for name in _writes():
        what = {
            t: get_config(t).output_files[name] for t in NAMES if name in get_config(t).output_files
        }
        summary = "; ".join(f"{task}: {text}" for task, text in what.items())
        sub.add_argument(f"--{name}", dest=f"write_{name}", metavar="FILE", type=Path, help=summary)

    sub = command("explain", _explain, "Show what a trained run does with an input, step by step.")
    sub.add_argument("input", metavar="INPUT", help="as for predict")
    pick_run(sub)
    overrides(sub)

    sub = command("export", _export, "Copy a SavedModel to exports/TASK/VERSION.")
    pick_run(sub, default="the champion; without one, the latest finished run")

    sub = command("promote", _promote, "Make a run's model the champion, which export takes.")
    sub.add_argument("--run", metavar="ID", help="default: the latest finished run")
    sub.add_argument("--force", action="store_true", help="also where the champion is better")
    sub.add_argument("--json", action="store_true", help="one JSON object on standard output")

    sub = command("track", _track, "Send a run to MLflow that could not be sent before.")
    sub.add_argument("--run", metavar="ID", help="default: the latest finished run")

    sub = command("serve", _serve, "Serve exported models over HTTP, and gRPC.", task=False)
    sub.add_argument("names", nargs="*", metavar="NAME", help="models; all exported by default")
    sub.add_argument("--config", metavar="FILE", help="default: configs/serving.yaml")
    sub.add_argument("--host", help="default: the config's, which is this machine only")
    sub.add_argument("--port", type=int, help="default: the config's, which is 8501")
    sub.add_argument("--grpc-port", type=int, help="speak gRPC too; default: the config's, or not")
    overrides(sub)

    sub = command("compare", _compare, "Train a config's variants side by side.")
    sub.add_argument("--config", metavar="FILE", help="default: configs/TASK/default.yaml")
    overrides(sub)
    sub.add_argument(
        "--seeds", nargs="+", type=int, metavar="N", help="default: the config's, and the next two"
    )
    sub.add_argument("--only", nargs="+", metavar="VARIANT", help="these; all by default")
    sub.add_argument("--json", action="store_true", help="one JSON object on standard output")

    sub = command("sweep", _sweep, "Search for the best keys of a config.")
    sub.add_argument("--config", metavar="FILE", help="default: configs/TASK/default.yaml")
    sub.add_argument("--space", metavar="FILE", help="default: sweeps/ beside the config")
    overrides(sub)
    sub.add_argument("--trials", type=_count, metavar="N", help="in all; default: the space's")
    sub.add_argument("--workers", type=_count, default=1, metavar="N", help="trials at a time")
    sub.add_argument(
        "--storage", metavar="URL", help="a database, or a journal file, that workers share"
    )
    sub.add_argument("--json", action="store_true", help="one JSON object on standard output")

    sub = command("demo", _demo, "Try every task on a web page.", task=False)
    sub.add_argument("--host", default="127.0.0.1")
    sub.add_argument("--port", type=int, default=7860)

    sub = command("lab", _lab, "Measure the chapter, and write it down.", task=False)
    sub.add_argument("--fast", action="store_true", help="a tenth of the work, to see it run")
    sub.add_argument("--only", nargs="+", metavar="NAME", help="these experiments; all by default")
    sub.add_argument("--seed", type=int, default=1, help="of all draws (default 1)")

    sub = command("ui", _ui, "Open the runs in the MLflow UI.", task=False)
    sub.add_argument("--host", default="127.0.0.1")
    sub.add_argument("--port", type=int, default=5000)
    return parser


def _train(args: argparse.Namespace, console: Console) -> None:
    place = cluster.Location.of(args.coordinator, args.processes, args.process_id)
    resumed = None
    if args.resume is not None:
        if args.config is not None or args.set:
            raise UserError("--resume takes the config of the run: leave out --config and --set")
        resumed = Run.find(args.task, args.resume)
        config = resumed.config()
    else:
        file = configs.find_config(args.task, args.config)
        config = configs.load(file, get_config(args.task), args.set)
    if place is not None and config.train.distribute != "jax":
        raise UserError("several processes train together with: --set train.distribute=jax")
    if (
        place is not None
        and (code := cluster.stand_by(place, [*_COMMAND, *args.given])) is not None
    ):
        sys.exit(code)
    met: list[cluster.Cluster] = []
    where = _choose_device(
        config.device,
        console,
        config.train.distribute,
        lambda: met.append(cluster.join(place)) if place is not None else None,
    )
    together = met[0] if met else None
    from pipelines.workflows import train  # Keras fixes the backend

    if together is not None and together.number:
        train.follow(config, together)
        return
    if resumed is not None:
        run = train.resume(resumed, where, console, together)
    else:
        run = train.train(config, where, console, together)
    scores = run.info["scores"]
    if args.json:
        _print_json({"run": run.id, "scores": scores, "folder": str(run.folder)})
    else:
        _print_scores(console, run.id, scores, run.info["verdict"])


def _evaluate(args: argparse.Namespace, console: Console) -> None:
    run = _find_run(args)
    config = run.config(args.set)
    _choose_device(config.device, console)
    from pipelines.workflows.evaluate import evaluate

    result = evaluate(run, config)
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
    _check_texts(inputs)
    files = {n: p for n in _writes() if (p := getattr(args, f"write_{n}")) is not None}
    kind = get_config(args.task)
    for name in files:
        if name not in kind.output_files:
            raise UserError(f"--{name}: {args.task} writes no such file")
        if len(inputs) > 1:
            raise UserError(f"--{name}: one file, but {len(inputs)} inputs")
    run, config = _for_request(args)
    from pipelines.workflows.predict import predict

    predictions = predict(run, config, inputs, files)
    if args.json:
        answers = [p.json for p in predictions]
        _print_json(answers[0] if len(answers) == 1 else {"predictions": answers})
        return
    for prediction in predictions:
        console.table(prediction.title, prediction.columns, prediction.rows)


def _check_texts(inputs: list[str]) -> None:
    for number, text in enumerate(inputs, 1):
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise UserError(f"input {number}: not text in UTF-8")


def _for_request(args: argparse.Namespace) -> tuple[Run, schema.Experiment]:
    """The run that is asked, with what a request can choose; on the CPU."""
    request_keys = get_config(args.task).request_keys
    for pair in args.set:
        if pair.partition("=")[0] not in request_keys:
            keys = ", ".join(request_keys) or "none"
            raise UserError(f"--set {pair}: a request of {args.task} can choose: {keys}")
    run = _find_run(args)
    config = run.config(args.set)
    devices.select("cpu")
    return run, config


def _explain(args: argparse.Namespace, console: Console) -> None:
    _check_texts([args.input])
    run, config = _for_request(args)
    from pipelines.workflows.predict import explain

    data, files = explain(run, config, args.input)
    if args.json:
        _print_json(data | {"run": run.id, "files": [str(path) for path in files]})
    else:
        print(*files, sep="\n")


def _writes() -> list[str]:
    """The files that some task's prediction can be written to."""
    return sorted({name for task in NAMES for name in get_config(task).output_files})


def _export(args: argparse.Namespace, console: Console) -> None:
    """The champion; without one, or where a run or a config is named, what `_find_run` finds."""
    from pipelines.engine.runs import registry

    champion = None
    if args.run is None and args.config is None:
        try:
            champion = registry.champion(args.task)
        except UserError as error:
            raise UserError(f"{error}; export a run of your choice: --run ID") from None
    if champion is not None:
        run_id, what = champion.run, f"the champion, version {champion.version}"
        with registry.savedmodel(args.task, champion) as source:
            folder = publish_folder(args.task, source)
    else:
        run = _find_run(args)
        run_id = run.id
        what = "as asked for" if args.run or args.config else "the latest; there is no champion"
        folder = publish(run)
    console.say(f"run {run_id}: {what}")
    if args.json:
        _print_json({"run": run_id, "champion": champion is not None, "folder": str(folder)})
    else:
        print(folder)


def _promote(args: argparse.Namespace, console: Console) -> None:
    from pipelines.engine.runs import registry

    run = Run.find(args.task, args.run)
    said = registry.promote(run, force=args.force)
    if args.json:
        version = run.info["mlflow"]["model_version"]
        _print_json({"run": run.id, "version": version, "said": said})
    else:
        print(said)


def _track(args: argparse.Namespace, console: Console) -> None:
    run = Run.find(args.task, args.run)
    devices.select("cpu")
    from pipelines.workflows.train import track

    track(run, console)
    console.say(f"run {run.id} is in {tracking.shown_uri()}")


def _serve(args: argparse.Namespace, console: Console) -> None:
    keys = ("host", "port", "grpc_port")
    chosen = [f"{key}={v}" for key in keys if (v := getattr(args, key)) is not None]
    file = configs.find_file(Path("configs/serving.yaml"), args.config)
    config = configs.load(file, ServingConfig, [*args.set, *chosen])
    devices.select("cpu")
    from pipelines.serving.server import run  # TensorFlow takes seconds to import

    run(args.names, config)


def _compare(args: argparse.Namespace, console: Console) -> None:
    from pipelines.workflows import compare

    file = configs.find_config(args.task, args.config)
    found = compare.compare(
        args.task, file, args.set, args.seeds, args.only, console, worker=worker.COMMAND
    )
    if args.json:
        _print_json(found.json())
    else:
        console.table(found.title, found.columns, found.rows)
        if found.best is not None:
            print(f"best: {found.best.name}; make promote-{args.task} RUN={found.best.runs[0]}")
        print(found.folder)


def _sweep(args: argparse.Namespace, console: Console) -> None:
    from pipelines.workflows import search_space, sweep

    file = configs.find_config(args.task, args.config)
    found = sweep.sweep(
        args.task,
        file,
        search_space.find_space(file, args.space),
        args.set,
        console,
        worker=worker.COMMAND,
        trials=args.trials,
        workers=args.workers,
        storage=args.storage,
    )
    if args.json:
        _print_json(found.json())
    else:
        console.table(found.title, found.columns, found.rows)
        print(f"train the best: {found.command}" if found.best else found.folder)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text!r}")
    return int(text)


def _demo(args: argparse.Namespace, console: Console) -> None:
    devices.select("cpu")
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the demo needs gradio: install it with pip install 'unfold[demo]'")
    from pipelines.demo.page import launch  # TensorFlow takes seconds to import

    console.say(f"http://{args.host}:{args.port}")
    launch(args.host, args.port)


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


def _choose_device(device: Any, console: Console, *divided: Any) -> dict[str, str]:
    where = devices.select(device, *divided)
    console.say(f"backend {where['backend']}, device {where['device']}")
    return where


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _print_scores(
    console: Console, title: str, scores: dict[str, float], verdict: list[str]
) -> None:
    console.table(title, ["metric", "test"], [[k, f"{v:.4f}"] for k, v in scores.items()])
    for sentence in verdict:
        print(sentence)
