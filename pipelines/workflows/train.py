"""Train a run, or continue one. Import this module once the device is selected."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from pipelines.engine.config.schema import Experiment, as_list
from pipelines.engine.core import signals
from pipelines.engine.core.commands import command, with_input
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import ProcessLostError, UserError
from pipelines.engine.core.files import require_writable
from pipelines.engine.data.splits import Splits
from pipelines.engine.models.blocks import layer_table, routes
from pipelines.engine.runs import profiling
from pipelines.engine.runs.info import DataReport
from pipelines.engine.runs.run import REPORT, GroupMember, Run, runs_folder
from pipelines.engine.runs.tables import EXAMPLES, FLOW, LAYERS, add_epoch, write_table
from pipelines.engine.runs.tracking import Tracker
from pipelines.engine.tasks.base import Evaluation, Processor, Task
from pipelines.engine.tasks.catalog import get_task
from pipelines.engine.training import diagnostics, distribution, loop
from pipelines.engine.training.cluster import Cluster
from pipelines.workflows import drift, report
from pipelines.workflows.evaluate import evaluate_trained
from pipelines.workflows.export import export


def train(
    config: Experiment,
    device: dict[str, str],
    console: Console,
    cluster: Cluster | None = None,
    member: GroupMember | None = None,
) -> Run:
    """Train, evaluate, export and track a new run.

    Args:
        config: the resolved config.
        device: the backend and device of this process, as recorded in ``run.json``.
        console: where progress is shown.
        cluster: the processes that train together; this is their main process.
        member: the place of the run in its group; None for a single run.

    Returns:
        The run.
    """
    started = time.perf_counter()
    require_writable(runs_folder(config.task), "the runs folder")
    task = get_task(config.task)
    strategy = distribution.choose(config.train, cluster, carries_state=task.carries_state)
    splits = task.load(config)
    data = DataReport.of(splits)
    _print_data(data, console)
    processor = task.fit_processor(config, splits)
    group = {} if member is None else {"group": member.membership()}
    run = Run.create(config, processor, data=data, **device, **group)
    with run.locked(), signals.handled():
        _Training(run, task, config, splits, strategy, console, member, started).complete()
    return run


def resume(
    run: Run,
    device: dict[str, str],
    console: Console,
    cluster: Cluster | None = None,
    member: GroupMember | None = None,
) -> Run:
    """Continue an interrupted run; the result equals that of an uninterrupted one.

    The arguments are those of `train`.

    Raises:
        UserError: the run is finished, or its data has changed.
    """
    started = time.perf_counter()
    with run.locked():
        if run.info.status == "finished":
            raise UserError(f"run {run.id} is finished; there is nothing to resume")
        config, task = run.config(), get_task(run.task)
        strategy = distribution.choose(config.train, cluster, carries_state=task.carries_state)
        splits = task.load(config)
        _print_data(DataReport.of(splits), console)
        if run.info.data.fingerprint != splits.fingerprint:
            source = ", ".join(as_list(config.data.source))
            raise UserError(
                f"run {run.id} cannot be resumed: {source} holds other records than when it started"
            )
        run.update(**device)
        with signals.handled():
            _Training(run, task, config, splits, strategy, console, member, started).complete()
    return run


def train_as_worker(config: Experiment, cluster: Cluster) -> None:
    """Train together with the main process of a cluster, and write nothing."""
    task, console = get_task(config.task), Console(silent=True)
    strategy = distribution.choose(config.train, cluster, carries_state=task.carries_state)
    splits = task.load(config)
    _check_agreement(strategy, config, splits)
    signals.install()
    with tempfile.TemporaryDirectory() as empty:
        processor = task.processor.load(strategy.replicate(Path(empty)))
        loop.fit(
            _build(task, config, processor, strategy),
            task.feed(config, processor, splits),
            task.objective(config, processor),
            config.train,
            folder=Path(empty),
            console=console,
            strategy=strategy,
        )
    strategy.leave()


def track(run: Run, console: Console) -> None:
    """Send to MLflow what could not be sent while the run was trained.

    Raises:
        UserError: the run is being trained, or the store cannot be used.
    """
    statuses = {"finished": "FINISHED", "tried": "FINISHED", "failed": "FAILED"}
    with run.locked():  # a training in progress sends its results itself
        status = statuses.get(run.info.status, "KILLED")
        if not Tracker(run, run.config(), console).finish(status):
            raise UserError(f"run {run.id} was not sent")


@dataclass(frozen=True)
class _Training:
    """A training in progress in its main process.

    Attributes:
        started: when it started, by `time.perf_counter`.
    """

    run: Run
    task: Task
    config: Experiment
    splits: Splits
    strategy: distribution.SingleDevice
    console: Console
    member: GroupMember | None
    started: float

    def complete(self) -> None:
        """Train the run to its end; whatever happens, record the status and tell MLflow."""
        run, console = self.run, self.console
        console.say(f"run {run.id}  ({run.folder})")
        if run.model_name != run.task:
            console.say(f"model {run.model_name}")
        run.update(status="running")
        tracker = Tracker(run, self.config, console)
        try:
            evaluation = self._work(tracker)
        except loop.TrialPruned:
            run.update(status="pruned")
            tracker.finish("KILLED")
            return
        except KeyboardInterrupt:
            run.update(status="interrupted")
            tracker.finish("KILLED")
            console.say(f"interrupted; continue with: {command('train', run.task, run=run.id)}")
            raise
        except ProcessLostError:
            run.update(status="interrupted")
            tracker.finish("KILLED")
            raise
        except BaseException:
            run.update(status="failed")
            tracker.finish("FAILED")
            raise
        if evaluation is None:
            run.update(status="tried")
        else:
            run.finish(
                scores=evaluation.scores,
                intervals=evaluation.intervals,
                verdict=evaluation.verdict,
                baselines=evaluation.baselines,
                total_seconds=time.perf_counter() - self.started,
            )
            report.write_if_possible(run, console)
        tracker.finish("FINISHED")
        if evaluation is not None:
            self._say_what_next()

    def _say_what_next(self) -> None:
        """Point at the report, and at the commands that use the run."""
        run, console = self.run, self.console
        if (page := run.folder / REPORT).exists():
            console.say(f"report: {page}")
        if run.info.group is None:  # the commands take the latest run outside groups
            name = run.model_name
            predict = with_input(command("predict", run.task, name=name))
            following = [predict, command("export", run.task, name=name), command("ui")]
            console.say(f"next:   {'   '.join(following)}")

    def _work(self, tracker: Tracker) -> Evaluation | None:
        """Fit, export and evaluate; a trial of a sweep is only fitted."""
        self.strategy.on_process_loss(lambda: self.run.update(status="interrupted"))
        _check_agreement(self.strategy, self.config, self.splits)
        state = self._fit(tracker)
        self.strategy.leave()
        signals.check()
        if self.member is not None and self.member.trial:
            return None
        export(self.run, self.console)
        signals.check()
        evaluation = evaluate_trained(
            self.task, self.config, self.splits, self.run, state, self.console
        )
        signals.check()
        drift.record(self.run, self.config, self.splits)
        signals.check()
        return evaluation

    def _fit(self, tracker: Tracker) -> loop.State:
        """Train the model from the run's last checkpoint on, and save it."""
        run, task, config = self.run, self.task, self.config
        processor = task.processor.load(self.strategy.replicate(run.require("processor")))
        model = _build(task, config, processor, self.strategy)
        evaluation_model = self.strategy.evaluation_model(
            model, lambda: task.build(config, processor)
        )
        self._record_model(model)
        tracker.publish()
        examples = task.examples(config, processor, evaluation_model, self.splits)
        feed = task.feed(config, processor, self.splits)
        objective = task.objective(config, processor)
        diagnose = _Diagnostics(self, evaluation_model, feed, objective)

        def on_epoch(state: loop.State) -> None:
            run.write_history(state.history)
            if examples is not None:
                add_epoch(run, EXAMPLES, state.epoch, examples())
            tracker.publish()
            run.update(**state.best_so_far(objective))
            if self.member is not None:
                self.member.after_epoch(state.report(objective, config.train.epochs))

        state = loop.fit(
            model,
            feed,
            objective,
            config.train,
            folder=run.folder / "checkpoints",
            console=self.console,
            strategy=self.strategy,
            evaluation_model=evaluation_model,
            on_epoch=on_epoch,
            diagnose=diagnose,
        )
        run.write_history(state.history)
        run.update(
            train_seconds=sum(record["epoch_seconds"] for record in state.history),
            peak_memory_mb=profiling.peak_memory_mb(),
        )
        calibrated = task.calibrate(config, processor, evaluation_model, self.splits)
        _save_model(calibrated, run.folder / "model.keras")
        return state

    def _record_model(self, model: keras.Model) -> None:
        """Record and print the size of a model and the routes of its recurrent layers."""
        layer_routes = routes(model)
        parameters = sum(math.prod(w.shape) for w in model.trainable_weights)
        self.run.update(parameters=parameters, routes=layer_routes)
        layers = layer_table(model)
        write_table(self.run, LAYERS, [layers.columns, *layers.rows])
        self.console.say(f"{parameters:,} parameters")
        for name, route in layer_routes.items():
            self.console.say(f"{name}: {route}")


class _Diagnostics:
    """Diagnoses a model every ``train.health`` epochs, and warns once for each layer.

    Args:
        model: a model that this process can call by itself.
    """

    def __init__(
        self, training: _Training, model: keras.Model, feed: loop.Feed, objective: loop.Objective
    ) -> None:
        self._run, self._console = training.run, training.console
        self._interval = training.config.train.health
        self._diagnose = (
            diagnostics.GradientDiagnostics(model, objective.loss, feed.validation())
            if self._interval
            else None
        )
        self._warned: set[str] = set()

    def __call__(self, epoch: int) -> dict[str, float]:
        """Return the metrics of an epoch; empty if it is not diagnosed."""
        if self._diagnose is None or epoch % self._interval:
            return {}
        diagnosis = self._diagnose()
        add_epoch(self._run, FLOW, epoch, diagnosis.table())
        for layer, warning in diagnosis.warnings.items():
            if layer not in self._warned:
                self._console.warn(warning)
                self._warned.add(layer)
        return diagnosis.metrics


def _check_agreement(
    strategy: distribution.SingleDevice, config: Experiment, splits: Splits
) -> None:
    """Check that all processes train the same model on the same data."""
    # The data has a fingerprint, and may be in different places; names do not matter.
    local = {"data", "device", "name", "registered_model"}
    strategy.require_equal("config", config.model_dump_json(exclude=local))
    strategy.require_equal("data", splits.fingerprint)


def _build(
    task: Task, config: Experiment, processor: Processor, strategy: distribution.SingleDevice
) -> keras.Model:
    loop.set_precision(config.train)
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        return task.build(config, processor)


def _print_data(report: DataReport, console: Console) -> None:
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
        for note in source.notes:
            console.warn(note)
    for note in report.notes:
        console.warn(note)


def _save_model(model: Any, path: Path) -> None:
    """Write ``model.keras``, whole or not at all. Keras requires the suffix ``.keras``."""
    work = path.with_name(f".{path.name}")
    model.save(work)
    work.replace(path)
