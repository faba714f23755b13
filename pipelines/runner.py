"""The work behind the commands, for every task. Imported once the device is chosen."""

from __future__ import annotations

import csv
import functools
import io
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from pipelines import export, figures, health, measures, parallel, signals, training
from pipelines.cluster import Cluster
from pipelines.config import Experiment, listed
from pipelines.console import Console
from pipelines.errors import LostError, UserError
from pipelines.explain import account, page
from pipelines.files import require_writable, write_text
from pipelines.models import routes
from pipelines.runs import Child, Run, home, runs_folder
from pipelines.tasks import Evaluation, Prediction, Processor, Splits, Table, Task, get_task
from pipelines.tracking import Tracker

#: The tables of what a model answered after each epoch, and of how gradients came back.
_EXAMPLES, _FLOW = "examples_by_epoch", "gradient_flow"
#: Inputs of the test split that are explained in every run.
_EXPLAINED = 2


def train(
    config: Experiment,
    where: dict[str, str],
    console: Console,
    cluster: Cluster | None = None,
    child: Child | None = None,
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
    divided = parallel.choose(config.train, cluster, carries_state=task.carries_state)
    splits = task.load(config)
    _say_data(splits, console)
    processor = task.prepare(config, splits)
    data = {
        "fingerprint": splits.fingerprint,
        "test_fingerprint": splits.test_fingerprint,
        **splits.report,
    }
    marks = {} if child is None else {"group": child.marks()}
    run = Run.create(config, processor, data=data, **where, **marks)
    with run.held():
        _train(task, config, splits, run, divided, console, started, child)
    return run


def resume(
    run: Run,
    where: dict[str, str],
    console: Console,
    cluster: Cluster | None = None,
    child: Child | None = None,
) -> Run:
    """Continue a run that was interrupted; it ends like one that was not."""
    started = time.perf_counter()
    with run.held():
        if run.info["status"] == "finished":
            raise UserError(f"run {run.id} is finished; there is nothing to resume")
        config, task = run.config(), get_task(run.task)
        divided = parallel.choose(config.train, cluster, carries_state=task.carries_state)
        splits = task.load(config)
        _say_data(splits, console)
        if run.info["data"]["fingerprint"] != splits.fingerprint:
            source = ", ".join(listed(config.data.source))
            raise UserError(
                f"run {run.id} cannot be resumed: {source} holds other records than when it started"
            )
        run.update(**where)
        _train(task, config, splits, run, divided, console, started, child)
    return run


def follow(config: Experiment, cluster: Cluster) -> None:
    """Train together with the process that writes, and write nothing."""
    task, console = get_task(config.task), Console(silent=True)
    divided = parallel.choose(config.train, cluster, carries_state=task.carries_state)
    splits = task.load(config)
    divided.agree("config", _trained_by(config))
    divided.agree("data", splits.fingerprint)
    signals.install()
    with tempfile.TemporaryDirectory() as nothing:
        processor = task.load_processor(divided.copied(Path(nothing)))
        training.fit(
            _build(task, config, processor, divided),
            task.feed(config, processor, splits),
            task.objective(config),
            config.train,
            folder=Path(nothing),
            console=console,
            parallel=divided,
        )
    divided.leave()


def _trained_by(config: Experiment) -> str:
    """All of a config that a model depends on, but for the data, which has a hash of its own."""
    return config.model_dump_json(exclude={"data", "device", "name"})


def _build(
    task: Task, config: Experiment, processor: Processor, divided: parallel.Alone
) -> keras.Model:
    training.set_precision(config.train)
    keras.utils.set_random_seed(config.seed)
    with divided.scope():
        return task.build(config, processor)


def _train(
    task: Task,
    config: Experiment,
    splits: Splits,
    run: Run,
    divided: parallel.Alone,
    console: Console,
    started: float,
    child: Child | None,
) -> None:
    """Train ``run``; however that ends, the run and its tracker say so."""
    console.say(f"run {run.id}  ({run.folder})")
    run.update(status="running")
    tracker = Tracker(run, config, console)
    signals.install()
    try:
        divided.on_loss(lambda: run.update(status="interrupted"))
        divided.agree("config", _trained_by(config))
        divided.agree("data", splits.fingerprint)
        state = _fit(task, config, splits, run, divided, tracker, console, child)
        divided.leave()
        signals.check()
        if child is not None and child.trial:
            run.update(status="tried")
            tracker.finish("FINISHED")
            return
        export.write_for_run(run, console)
        signals.check()
        evaluation = _score(task, config, splits, run, state, console)
        signals.check()
    except training.Pruned:
        run.update(status="pruned")
        tracker.finish("KILLED")
        return
    except KeyboardInterrupt:
        run.update(status="interrupted")
        tracker.finish("KILLED")
        console.say(f"interrupted; continue with: unfold train {task.name} --resume {run.id}")
        raise
    except LostError:
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
    divided: parallel.Alone,
    tracker: Tracker,
    console: Console,
    child: Child | None,
) -> training.State:
    processor = task.load_processor(divided.copied(run.need("processor")))
    model = _build(task, config, processor, divided)
    seen = divided.seen(model, lambda: task.build(config, processor))
    taken = routes(model)
    parameters = sum(math.prod(w.shape) for w in model.trainable_weights)
    run.update(parameters=parameters, routes=taken)
    console.say(f"{parameters:,} parameters")
    for name, route in taken.items():
        console.say(f"{name}: {route}")
    tracker.publish()

    examples = task.examples(config, processor, seen, splits)
    feed, objective = task.feed(config, processor, splits), task.objective(config)
    every = config.train.health
    examiner = health.Examiner(seen, objective.loss, feed.validation()) if every else None
    warned: set[str] = set()

    def examine(epoch: int) -> dict[str, float]:
        if examiner is None or epoch % every:
            return {}
        found = examiner()
        _keep_by_epoch(run, _FLOW, epoch, found.table())
        for layer, warning in found.warnings.items():
            if layer not in warned:
                console.warn(warning)
                warned.add(layer)
        return found.metrics

    def keep(state: training.State) -> None:
        run.write_history(state.history)
        if examples is not None:
            _keep_by_epoch(run, _EXAMPLES, state.epoch, examples())
        tracker.publish()
        run.update(**state.standing(objective))
        if child is not None:
            child.after_epoch(state.report(objective, config.train.epochs))

    state = training.fit(
        model,
        feed,
        objective,
        config.train,
        folder=run.folder / "checkpoints",
        console=console,
        parallel=divided,
        seen=seen,
        on_epoch=keep,
        examine=examine,
    )
    run.write_history(state.history)
    run.update(
        train_seconds=sum(record["epoch_seconds"] for record in state.history),
        peak_memory_mb=measures.peak_memory_mb(),
    )
    _save_model(seen, run.folder / "model.keras")
    return state


def _score(
    task: Task,
    config: Experiment,
    splits: Splits,
    run: Run,
    state: training.State,
    console: Console,
) -> Evaluation:
    """Scores on the test split, of the model as it was saved."""
    served = export.load(run.need("savedmodel"))
    evaluation = _evaluate(task, config, splits, run, served)
    requests = (task.request(config, record) for record in measures.some(splits.test))
    run.update(latency_ms=measures.latency_ms(served, requests))
    evaluation.figures["learning_curves"] = figures.learning_curves(state.history, run.id)
    if rows := _read_table(run, _FLOW)[1:]:
        evaluation.figures[_FLOW] = health.picture(rows, run.id)
    for name, figure in evaluation.figures.items():
        figures.save(figure, run.folder / "figures" / f"{name}.png")
    for name, draw in evaluation.drawings.items():
        try:
            draw(run.folder / "figures" / name)
        except UserError as error:  # a picture is not worth a run
            console.warn(f"{name} could not be drawn: {error}")
    for name, table in evaluation.tables.items():
        _write_table(run, name, [table.columns, *table.rows])
    return evaluation


def _evaluate(task: Task, config: Experiment, splits: Splits, run: Run, served: Any) -> Evaluation:
    processor = task.load_processor(run.need("processor"))
    model = keras.models.load_model(run.need("model.keras"))
    evaluation = task.evaluate(config, processor, model, served, splits)
    # Texts are written by a TensorFlow graph.
    if keras.backend.backend() == "tensorflow":
        for number, given in enumerate(task.to_explain(config, splits, _EXPLAINED), 1):
            explain = functools.partial(task.explain, config, processor, model, given)
            stem = f"explained_{number}"
            evaluation.drawings |= page.files(explain, stem, task=task.name, run=run.id)
    return evaluation


def _keep_by_epoch(run: Run, name: str, epoch: int, table: Table) -> None:
    """Add the rows of an epoch to a table; once, also where an epoch was done again."""
    before = [row for row in _read_table(run, name)[1:] if int(row[0]) < epoch]
    now = [[epoch, *row] for row in table.rows]
    _write_table(run, name, [["epoch", *table.columns], *before, *now])


def _read_table(run: Run, name: str) -> list[list[str]]:
    """The rows of a table, its columns first; none if there is no such table."""
    path = run.folder / "tables" / f"{name}.csv"
    if not path.exists():
        return []
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _write_table(run: Run, name: str, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(run.folder / "tables" / f"{name}.csv", text.getvalue())


def _say_data(splits: Splits, console: Console) -> None:
    sizes = ", ".join(f"{name} {n:,}" for name, n in splits.report["records"].items())
    console.say(f"data: {sizes}  (fingerprint {splits.fingerprint})")
    for source, found in splits.report.items():
        if isinstance(found, dict) and found.get("left_out"):
            console.say(f"{source}: {found['left_out']:,} of {found['rows']:,} rows left out")
        if isinstance(found, dict) and found.get("unusable"):
            total = sum(found["unusable"].values())
            console.warn(f"{source}: {total:,} of {found['rows']:,} rows skipped, the first:")
            for line in found["first_unusable"]:
                console.say(f"  {line}")
    for note in splits.report.get("notes", []):
        console.warn(note)


def _save_model(model: Any, path: Path) -> None:
    """Keras writes to a name that ends in ``.keras``; the file appears under its own name whole."""
    work = path.with_name(f".{path.name}")
    model.save(work)
    work.replace(path)


def evaluate(run: Run, config: Experiment) -> dict[str, Any]:
    """Score a run's model on the test split of ``config``."""
    task = get_task(run.task)
    run.need("model.keras")
    splits = task.load(config)
    served = export.load(run.need("savedmodel"))
    with run.understood():
        evaluation = _evaluate(task, config, splits, run, served)
    found = {"run": run.id, "records": len(splits.test), **evaluation.scores}
    return found | ({"verdict": evaluation.verdict} if evaluation.verdict else {})


def predict(
    run: Run, config: Experiment, inputs: Sequence[str], files: dict[str, Path]
) -> list[Prediction]:
    """Answer inputs with the run's SavedModel: exactly what a server of it answers.

    Args:
        files: where to write the answer to the only input as well, by the task's writers.
    """
    served = export.load(run.need("savedmodel"))
    task = get_task(run.task)
    predictions = [task.predict(config, served, given) for given in inputs]
    for name, path in files.items():
        task.writers[name](predictions[0], path)
    return predictions


def explain(run: Run, config: Experiment, given: str) -> tuple[dict[str, Any], list[Path]]:
    """What the run's model does with one input, as data and as files in ``explain/TASK/``."""
    if keras.backend.backend() != "tensorflow":
        raise UserError("explain needs the TensorFlow backend: unset KERAS_BACKEND")
    path, task = run.need("model.keras"), get_task(run.task)
    folder = home() / "explain" / run.task
    require_writable(folder, "the folder of explanations")
    processor = task.load_processor(run.need("processor"))
    with run.understood():
        found = task.explain(config, processor, keras.models.load_model(path), given)
    longest = max(len(part.tokens) for part in found.parts)
    if longest > account.LONGEST:
        raise UserError(f"{longest:,} steps are too many to show: at most {account.LONGEST:,}")
    stem = page.stem(given, run.id)
    files = page.files(lambda: found, stem, task=run.task, run=run.id)
    for name, write in files.items():
        write(folder / name)
    return account.data(found), [folder / name for name in files]


def track(run: Run, console: Console) -> None:
    """Send a run to MLflow that could not be sent, or not whole, while it was trained."""
    ended = {"finished": "FINISHED", "tried": "FINISHED", "failed": "FAILED"}
    with run.held():  # a training that goes on sends what it does itself
        status = ended.get(run.info["status"], "KILLED")
        if not Tracker(run, run.config(), console).finish(status):
            raise UserError(f"run {run.id} was not sent")
