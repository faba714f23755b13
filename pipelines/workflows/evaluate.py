"""Evaluate a run on its test split."""

from __future__ import annotations

import functools
from typing import Any

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core import plotting
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.splits import Splits
from pipelines.engine.explain import page
from pipelines.engine.export import savedmodel
from pipelines.engine.runs import profiling
from pipelines.engine.runs.loading import load_model
from pipelines.engine.runs.run import Run
from pipelines.engine.runs.tables import FLOW, read_table, write_table
from pipelines.engine.tasks.base import Evaluation, Explainable, Task
from pipelines.engine.tasks.catalog import get_task
from pipelines.engine.tasks.endpoints import can_run_endpoints
from pipelines.engine.training import diagnostics, loop

#: Number of test inputs that are explained in every run.
_EXPLAINED = 2


def evaluate(run: Run, config: Experiment) -> dict[str, Any]:
    """Score a run's model on the test split of ``config``.

    Args:
        run: a run with a model and an export.
        config: the run's config, perhaps with other data.

    Returns:
        The run's id and model, the number of records, the scores, and the verdict if the task has
        one.
    """
    task = get_task(run.task)
    run.require("model.keras")
    splits = task.load(config)
    served = savedmodel.load(run.require("savedmodel"))
    evaluation = _evaluate(task, config, splits, run, served)
    result = {
        "run": run.id,
        "model": run.model_name,
        "records": len(splits.test),
        **evaluation.scores,
    }
    return result | ({"verdict": evaluation.verdict} if evaluation.verdict else {})


def evaluate_trained(
    task: Task,
    config: Experiment,
    splits: Splits,
    run: Run,
    state: loop.State,
    console: Console,
) -> Evaluation:
    """Score the model of a training that has just ended, and write its figures and tables.

    The model is loaded from the run's folder, so that the scores are those of the saved one.

    Args:
        state: the final state of training.
    """
    served = savedmodel.load(run.require("savedmodel"))
    evaluation = _evaluate(task, config, splits, run, served)
    requests = (task.request(config, [record]) for record in profiling.sample_evenly(splits.test))
    run.update(
        latency_ms=profiling.latency_ms(served, requests),
        limits=_limits(task, config, splits, run, console),
    )
    evaluation.figures["learning_curves"] = plotting.learning_curves(state.history, run.id)
    if rows := read_table(run, FLOW)[1:]:
        evaluation.figures[FLOW] = diagnostics.plot_gradient_flow(rows, run.id)
    _write(evaluation, run, console)
    return evaluation


def _evaluate(task: Task, config: Experiment, splits: Splits, run: Run, served: Any) -> Evaluation:
    processor = task.processor.load(run.require("processor"))
    model = load_model(run)
    evaluation = task.evaluate(config, processor, model, served, splits)
    if isinstance(task, Explainable) and can_run_endpoints():
        for number, given in enumerate(task.explanation_examples(config, splits, _EXPLAINED), 1):
            explain = functools.partial(task.explain, config, processor, model, given)
            stem = f"explained_{number}"
            evaluation.drawings |= page.files(explain, stem, task=task.name, run=run.id)
    return evaluation


def _limits(
    task: Task, config: Experiment, splits: Splits, run: Run, console: Console
) -> list[str]:
    """Return what a task says of a model's limits."""
    try:
        return task.limits(config, task.processor.load(run.require("processor")), splits)
    except Exception as error:  # noqa: BLE001 (a sentence is not worth a run)
        console.warn(f"the limits of the model are not known: {type(error).__name__}: {error}")
        return []


def _write(evaluation: Evaluation, run: Run, console: Console) -> None:
    """Write the figures and tables of an evaluation into the run's folder."""
    for name, figure in evaluation.figures.items():
        plotting.save_figure(figure, run.folder / "figures" / f"{name}.png")
    for name, draw in evaluation.drawings.items():
        try:
            draw(run.folder / "figures" / name)
        except UserError as error:  # a picture is not worth a run
            console.warn(f"{name} could not be drawn: {error}")
    for name, table in evaluation.tables.items():
        write_table(run, name, [table.columns, *table.rows])
