"""The commands, for every task: train, evaluate, predict, export, track, ui."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines import config as configs
from pipelines import devices
from pipelines.config import Experiment
from pipelines.console import Console
from pipelines.errors import UserError
from pipelines.files import new_folder, require_writable, write_json, write_text
from pipelines.runs import Run, home
from pipelines.tasks import Evaluation, Splits, get_config, get_task
from pipelines.tracking import Tracker, artifact_root, store_uri


def find_config(task: str, file: str | None) -> Path:
    """The named config, or the default one of the task."""
    if file is not None:
        return Path(file)
    here = Path("configs") / task / "default.yaml"
    return here if here.exists() else Path(__file__).parents[1] / here


def find_run(task: str, run: str | None, file: str | None) -> Run:
    """The run asked for; with a config, the latest finished run of a config of that name."""
    get_config(task)
    name = configs.load(find_config(task, file), get_config(task)).name if file else None
    return Run.find(task, run, name)


def run_config(run: Run, overrides: Sequence[str] = ()) -> Experiment:
    return configs.load(run.need("config.yaml"), get_config(run.task), overrides)


def train(
    task_name: str,
    *,
    file: str | None,
    overrides: Sequence[str],
    resume: str | None,
    console: Console,
) -> dict[str, Any]:
    """Train, evaluate and export one run.

    Returns:
        ``run``, ``scores`` and ``folder``, for printing.
    """
    if resume is not None:
        if file is not None or overrides:
            raise UserError("--resume takes the config of the run: leave out --config and --set")
        run = Run.find(task_name, resume)
        config = run_config(run)
        with run.held():
            if run.info["status"] == "finished":
                raise UserError(f"run {run.id} is finished; there is nothing to resume")
            return _train(task_name, config, run, console)
    config = configs.load(find_config(task_name, file), get_config(task_name), overrides)
    return _train(task_name, config, None, console)


def _train(
    task_name: str, config: Experiment, resumed: Run | None, console: Console
) -> dict[str, Any]:
    started = time.perf_counter()
    require_writable(home() / "runs" / task_name, "the runs folder")
    where = devices.select(config.device)
    task = get_task(task_name)
    console.say(f"backend {where['backend']}, device {where['device']}")
    splits = task.load(config)
    data = {"fingerprint": splits.fingerprint, **splits.report}
    _say_data(splits, console)
    if resumed is not None:
        if resumed.info["data"]["fingerprint"] != splits.fingerprint:
            raise UserError(
                f"run {resumed.id} cannot be resumed: {config.data.source} holds other records "
                "than when it started"
            )
        return _train_run(task, config, splits, resumed, console, started)
    run = Run.create(config)
    with run.held():
        run.update(data=data, **where)
        return _train_run(task, config, splits, run, console, started)


def _train_run(
    task: Any, config: Experiment, splits: Splits, run: Run, console: Console, started: float
) -> dict[str, Any]:
    console.say(f"run {run.id}  ({run.folder})")
    run.update(status="running")
    tracker = Tracker(run, config, console)
    history = _History(run)
    try:
        scores = _fit_and_score(task, config, splits, run, tracker, history, console, started)
    except KeyboardInterrupt:
        run.update(status="interrupted")
        tracker.finish(history.stages, "KILLED")
        console.say(f"interrupted; continue with: unfold train {task.name} --resume {run.id}")
        raise
    except BaseException:
        run.update(status="failed")
        tracker.finish(history.stages, "FAILED")
        raise
    return {"run": run.id, "scores": scores, "folder": str(run.folder)}


def _fit_and_score(
    task: Any,
    config: Experiment,
    splits: Splits,
    run: Run,
    tracker: Tracker,
    history: _History,
    console: Console,
    started: float,
) -> dict[str, float]:
    import keras

    from pipelines import export, figures, training

    folder = run.folder / "processor"
    if not folder.exists():
        with new_folder(folder) as work:
            task.prepare(config, splits).save(work)
    processor = task.load_processor(folder)
    training.set_precision(config.train)
    keras.utils.set_random_seed(config.seed)
    model = task.build(config, processor)
    run.update(parameters=model.count_params())
    console.say(f"{model.count_params():,} parameters")
    tracker.publish(history.stages)

    def keep(stage: str, state: training.State) -> None:
        history.set(stage, state.history)
        tracker.publish(history.stages)

    fit = training.Fitter(run.folder / "checkpoints", console, keep)
    task.warm_up(config, processor, model, splits, fit)
    state = fit(model, task.feed(config, processor, splits), task.objective(), config.train)
    history.set("train", state.history)
    _save_model(model, run.folder / "model.keras")
    evaluation = task.evaluate(config, processor, model, splits.test)
    for stage, records in history.stages.items():
        evaluation.figures[f"{stage}_curves"] = figures.learning_curves(
            records, f"{stage}: {run.id}"
        )
    save_evaluation(evaluation, run.folder)
    export.write_for_run(run, console)
    run.update(
        status="finished",
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        scores=evaluation.scores,
        best_epoch=state.best_epoch,
        train_seconds=history.seconds(),
        total_seconds=time.perf_counter() - started,
    )
    tracker.finish(history.stages, "FINISHED")
    return evaluation.scores


class _History:
    """The records of each stage's epochs, kept in ``history.json``."""

    def __init__(self, run: Run) -> None:
        self._path = run.folder / "history.json"
        self.stages: dict[str, list[dict[str, float]]] = {}
        if self._path.exists():
            self.stages = json.loads(self._path.read_text(encoding="utf-8"))

    def set(self, stage: str, records: list[dict[str, float]]) -> None:
        self.stages[stage] = records
        write_json(self._path, self.stages)

    def seconds(self) -> float:
        return sum(r["epoch_seconds"] for records in self.stages.values() for r in records)


def _say_data(splits: Splits, console: Console) -> None:
    sizes = ", ".join(f"{name} {n:,}" for name, n in splits.report["records"].items())
    console.say(f"data: {sizes}  (fingerprint {splits.fingerprint})")
    for source, found in splits.report.items():
        if isinstance(found, dict) and found.get("unusable"):
            total = sum(found["unusable"].values())
            console.warn(f"{source}: {total:,} of {found['rows']:,} rows skipped, the first:")
            for line in found["first_unusable"]:
                console.say(f"  {line}")


def _save_model(model: Any, path: Path) -> None:
    """Keras writes to a name that ends in ``.keras``; the file appears under its own name whole."""
    work = path.with_name(f".{path.name}")
    model.save(work)
    work.replace(path)


def save_evaluation(evaluation: Evaluation, folder: Path) -> None:
    from pipelines import figures

    for name, figure in evaluation.figures.items():
        figures.save(figure, folder / "figures" / f"{name}.png")
    for name, table in evaluation.tables.items():
        text = io.StringIO(newline="")
        csv.writer(text).writerows([table.columns, *table.rows])
        write_text(folder / "tables" / f"{name}.csv", text.getvalue())


def evaluate(run: Run, overrides: Sequence[str], console: Console) -> dict[str, Any]:
    """Score a run's model on its test split, or on another with ``--set data.test=FILE``."""
    config = run_config(run, overrides)
    model_file, folder = run.need("model.keras"), run.need("processor")
    devices.select(config.device)
    import keras

    task = get_task(run.task)
    splits = task.load(config)
    evaluation = task.evaluate(
        config, task.load_processor(folder), keras.models.load_model(model_file), splits.test
    )
    return {"run": run.id, "records": len(splits.test), **evaluation.scores}


def predict(run: Run, inputs: Sequence[str]) -> list[Any]:
    """Answer inputs with the run's SavedModel: exactly what a server of it answers."""
    folder = run.need("savedmodel")
    devices.select("cpu")
    from pipelines import export

    task = get_task(run.task)
    served = export.load(folder)
    return [task.predict(served, text) for text in inputs]


def export_run(run: Run, console: Console) -> Path:
    devices.select("cpu")
    from pipelines import export

    return export.publish(run)


def track(run: Run, console: Console) -> None:
    """Send a run to MLflow that could not be sent, or not whole, while it was trained."""
    devices.select("cpu")
    status = {"finished": "FINISHED", "failed": "FAILED"}.get(run.info["status"], "KILLED")
    tracker = Tracker(run, run_config(run), console)
    if not tracker.finish(_History(run).stages, status):
        raise UserError(f"run {run.id} was not sent: {store_uri()} cannot be reached")
    console.say(f"run {run.id} is in {store_uri()}")


def ui(host: str, port: int, console: Console) -> None:
    """The MLflow UI over the store that training writes to. Replaces this process."""
    uri = store_uri()
    if uri.startswith(("http:", "https:")):
        console.say(f"runs are tracked by the server at {uri}: open that address in a browser")
        return
    console.say(f"MLflow on http://{host}:{port}  (store {uri}; Ctrl-C ends it)")
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--artifacts-destination", str(artifact_root())]
    os.execv(sys.executable, [*command, "--host", host, "--port", str(port)])
