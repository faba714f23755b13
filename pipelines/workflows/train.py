"""The work behind the commands, for every task. Imported once the device is chosen."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import keras

from pipelines.engine.config.schema import Experiment, as_list
from pipelines.engine.core import signals
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import ProcessLostError, UserError
from pipelines.engine.core.files import require_writable
from pipelines.engine.data.splits import Splits
from pipelines.engine.models.blocks import routes
from pipelines.engine.runs import profiling
from pipelines.engine.runs.info import DataReport
from pipelines.engine.runs.run import GroupMember, Run, runs_folder
from pipelines.engine.runs.tables import EXAMPLES, FLOW, add_epoch
from pipelines.engine.runs.tracking import Tracker
from pipelines.engine.tasks.base import Processor, Task
from pipelines.engine.tasks.catalog import get_task
from pipelines.engine.training import diagnostics, distribution, loop
from pipelines.engine.training.cluster import Cluster
from pipelines.workflows.evaluate import evaluate_trained
from pipelines.workflows.export import export


def train(
    config: Experiment,
    where: dict[str, str],
    console: Console,
    cluster: Cluster | None = None,
    child: GroupMember | None = None,
) -> Run:
    """Train, evaluate, track and export a new run.

    Args:
        where: the backend and device of this process, kept with the run.
        cluster: the processes that train together, of which this is the first.
        child: given, the run is one of a group.
    """
    started = time.perf_counter()
    require_writable(runs_folder(config.task), "the runs folder")
    task = get_task(config.task)
    strategy = distribution.choose(config.train, cluster, carries_state=task.carries_state)
    splits = task.load(config)
    _say_data(DataReport.of(splits), console)
    processor = task.prepare(config, splits)
    group = {} if child is None else {"group": child.membership()}
    run = Run.create(config, processor, data=DataReport.of(splits), **where, **group)
    with run.locked():
        _train(task, config, splits, run, strategy, console, started, child)
    return run


def resume(
    run: Run,
    where: dict[str, str],
    console: Console,
    cluster: Cluster | None = None,
    child: GroupMember | None = None,
) -> Run:
    """Continue a run that was interrupted; it ends like one that was not."""
    started = time.perf_counter()
    with run.locked():
        if run.info.status == "finished":
            raise UserError(f"run {run.id} is finished; there is nothing to resume")
        config, task = run.config(), get_task(run.task)
        strategy = distribution.choose(config.train, cluster, carries_state=task.carries_state)
        splits = task.load(config)
        _say_data(DataReport.of(splits), console)
        if run.info.data.fingerprint != splits.fingerprint:
            source = ", ".join(as_list(config.data.source))
            raise UserError(
                f"run {run.id} cannot be resumed: {source} holds other records than when it started"
            )
        run.update(**where)
        _train(task, config, splits, run, strategy, console, started, child)
    return run


def follow(config: Experiment, cluster: Cluster) -> None:
    """Train together with the process that writes, and write nothing."""
    task, console = get_task(config.task), Console(silent=True)
    strategy = distribution.choose(config.train, cluster, carries_state=task.carries_state)
    splits = task.load(config)
    strategy.require_equal("config", _trained_by(config))
    strategy.require_equal("data", splits.fingerprint)
    signals.install()
    with tempfile.TemporaryDirectory() as nothing:
        processor = task.load_processor(strategy.replicate(Path(nothing)))
        loop.fit(
            _build(task, config, processor, strategy),
            task.feed(config, processor, splits),
            task.objective(config),
            config.train,
            folder=Path(nothing),
            console=console,
            strategy=strategy,
        )
    strategy.leave()


def _trained_by(config: Experiment) -> str:
    """All of a config that a model depends on, but for the data, which has a hash of its own."""
    return config.model_dump_json(exclude={"data", "device", "name"})


def _build(
    task: Task, config: Experiment, processor: Processor, strategy: distribution.SingleDevice
) -> keras.Model:
    loop.set_precision(config.train)
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        return task.build(config, processor)


def _train(
    task: Task,
    config: Experiment,
    splits: Splits,
    run: Run,
    strategy: distribution.SingleDevice,
    console: Console,
    started: float,
    child: GroupMember | None,
) -> None:
    """Train ``run``; however that ends, the run and its tracker say so."""
    console.say(f"run {run.id}  ({run.folder})")
    run.update(status="running")
    tracker = Tracker(run, config, console)
    signals.install()
    try:
        strategy.on_process_loss(lambda: run.update(status="interrupted"))
        strategy.require_equal("config", _trained_by(config))
        strategy.require_equal("data", splits.fingerprint)
        state = _fit(task, config, splits, run, strategy, tracker, console, child)
        strategy.leave()
        signals.check()
        if child is not None and child.trial:
            run.update(status="tried")
            tracker.finish("FINISHED")
            return
        export(run, console)
        signals.check()
        evaluation = evaluate_trained(task, config, splits, run, state, console)
        signals.check()
    except loop.TrialPruned:
        run.update(status="pruned")
        tracker.finish("KILLED")
        return
    except KeyboardInterrupt:
        run.update(status="interrupted")
        tracker.finish("KILLED")
        console.say(f"interrupted; continue with: unfold train {task.name} --resume {run.id}")
        raise
    except ProcessLostError:
        run.update(status="interrupted")
        tracker.finish("KILLED")
        raise
    except BaseException:
        run.update(status="failed")
        tracker.finish("FAILED")
        raise
    run.finish(
        scores=evaluation.scores,
        verdict=evaluation.verdict,
        baselines=evaluation.baselines,
        total_seconds=time.perf_counter() - started,
    )
    tracker.finish("FINISHED")


def _fit(
    task: Task,
    config: Experiment,
    splits: Splits,
    run: Run,
    strategy: distribution.SingleDevice,
    tracker: Tracker,
    console: Console,
    child: GroupMember | None,
) -> loop.State:
    processor = task.load_processor(strategy.replicate(run.require("processor")))
    model = _build(task, config, processor, strategy)
    evaluation_model = strategy.evaluation_model(model, lambda: task.build(config, processor))
    taken = routes(model)
    parameters = sum(math.prod(w.shape) for w in model.trainable_weights)
    run.update(parameters=parameters, routes=taken)
    console.say(f"{parameters:,} parameters")
    for name, route in taken.items():
        console.say(f"{name}: {route}")
    tracker.publish()

    examples = task.examples(config, processor, evaluation_model, splits)
    feed, objective = task.feed(config, processor, splits), task.objective(config)
    every = config.train.health
    examiner = (
        diagnostics.GradientDiagnostics(evaluation_model, objective.loss, feed.validation())
        if every
        else None
    )
    warned: set[str] = set()

    def diagnose(epoch: int) -> dict[str, float]:
        if examiner is None or epoch % every:
            return {}
        found = examiner()
        add_epoch(run, FLOW, epoch, found.table())
        for layer, warning in found.warnings.items():
            if layer not in warned:
                console.warn(warning)
                warned.add(layer)
        return found.metrics

    def keep(state: loop.State) -> None:
        run.write_history(state.history)
        if examples is not None:
            add_epoch(run, EXAMPLES, state.epoch, examples())
        tracker.publish()
        run.update(**state.best_so_far(objective))
        if child is not None:
            child.after_epoch(state.report(objective, config.train.epochs))

    state = loop.fit(
        model,
        feed,
        objective,
        config.train,
        folder=run.folder / "checkpoints",
        console=console,
        strategy=strategy,
        evaluation_model=evaluation_model,
        on_epoch=keep,
        diagnose=diagnose,
    )
    run.write_history(state.history)
    run.update(
        train_seconds=sum(record["epoch_seconds"] for record in state.history),
        peak_memory_mb=profiling.peak_memory_mb(),
    )
    _save_model(evaluation_model, run.folder / "model.keras")
    return state


def _say_data(report: DataReport, console: Console) -> None:
    sizes = ", ".join(f"{name} {n:,}" for name, n in report.records.items())
    console.say(f"data: {sizes}  (fingerprint {report.fingerprint})")
    for name, source in report.sources():
        if source.left_out:
            console.say(f"{name}: {source.left_out:,} of {source.rows:,} rows left out")
        if source.unusable:
            total = sum(source.unusable.values())
            console.warn(f"{name}: {total:,} of {source.rows:,} rows skipped, the first:")
            for line in source.first_unusable:
                console.say(f"  {line}")
    for note in report.notes:
        console.warn(note)


def _save_model(model: Any, path: Path) -> None:
    """Keras writes to a name that ends in ``.keras``; the file appears under its own name whole."""
    work = path.with_name(f".{path.name}")
    model.save(work)
    work.replace(path)


def track(run: Run, console: Console) -> None:
    """Send a run to MLflow that could not be sent, or not whole, while it was trained."""
    ended = {"finished": "FINISHED", "tried": "FINISHED", "failed": "FAILED"}
    with run.locked():  # a training that goes on sends what it does itself
        status = ended.get(run.info.status, "KILLED")
        if not Tracker(run, run.config(), console).finish(status):
            raise UserError(f"run {run.id} was not sent")
