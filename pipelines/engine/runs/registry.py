"""The champion of a model: the version of ``unfold-NAME`` with the alias ``champion`` in MLflow.

It is read from MLflow's registry each time, so that all users of a store agree.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.engine.core.commands import command
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs import mlflow_names, mlflow_store
from pipelines.engine.runs.mlflow_content import TEST_DATA
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_config

ALIAS = "champion"


@dataclass(frozen=True)
class Champion:
    """The model version in use.

    Attributes:
        version: its number in the registry.
        run: the id of the run that trained it, perhaps on another machine.
        data: what it was trained on; None if unknown.
        score: its test score, in the task's main metric; None if unknown.
        test_data: fingerprint of the records that it was scored on; None if unknown.
        source: the URI of its files.
    """

    version: int
    run: str
    data: str | None
    score: float | None
    test_data: str | None
    source: str


def champion(task: str, model: str) -> Champion | None:
    """Return the champion of a model, or None if there is none yet.

    Args:
        task: the model's task.
        model: its name.

    Raises:
        UserError: MLflow cannot be reached, or the name is that of another task's model there.
    """
    metric = get_config(task).score.name
    if not mlflow_store.store_exists():
        return None
    with _store_errors_to_user():
        client = mlflow_store.client()
        name = mlflow_store.registered_name(model)
        version = _aliases(client, name).get(ALIAS)
        if version is None:
            return None
        run = client.get_run(client.get_model_version(name, version).run_id)
        experiment = client.get_experiment(run.info.experiment_id).name
        if experiment != task:
            raise UserError(
                f"{name} in MLflow is a model of {experiment}, not of {task}; train this one under "
                f"another name: {command('train', task, name=f'{task}-{model}')}"
            )
        inputs = run.inputs.dataset_inputs
        return Champion(
            version=int(version),
            run=run.data.tags["unfold.run"],
            data=inputs[0].dataset.name if inputs else None,
            score=run.data.metrics.get(mlflow_names.key(f"test/{metric}")),
            test_data=run.data.tags.get(TEST_DATA),
            source=client.get_model_version_download_uri(name, version),
        )


def promote(run: Run, *, force: bool = False) -> str:
    """Make a run the champion of its model, unless it is worse than the current one.

    Args:
        run: a finished run.
        force: promote it even if it is worse or cannot be compared.

    Returns:
        A sentence that says what was done.

    Raises:
        UserError: it is worse, cannot be compared or is not in the registry; or MLflow cannot be
            reached.
    """
    version = run.info.mlflow.model_version
    if version is None:
        run.require("savedmodel")
        track = command("track", run.task, run=run.id)
        raise UserError(f"run {run.id} is not in the registry; send it: {track}")
    current = champion(run.task, run.model_name)
    if current is not None and current.version == version:
        return f"run {run.id} (version {version}) is the champion already"
    objection = None if current is None else _objection(run, current)
    if objection is not None and not force:
        raise UserError(f"{objection}; promote it anyway with --force")
    with _store_errors_to_user():
        name = mlflow_store.registered_name(run.model_name)
        mlflow_store.client().set_registered_model_alias(name, ALIAS, str(version))
    before = (
        "the first"
        if current is None
        else f"before it was run {current.run} (version {current.version})"
    )
    done = f"run {run.id} (version {version}) is the champion; {before}"
    return f"{done}; forced, although {objection}" if objection else done


def _objection(run: Run, current: Champion) -> str | None:
    """Say why a run should not replace the champion; None if it may."""
    metric, higher = get_config(run.task).score
    name = metric.replace("_", " ")
    score, data = run.info.scores[metric], run.info.data.test_fingerprint
    if current.score is None or not current.test_data or not data:
        return f"run {run.id} and the champion, run {current.run}, have no scores to compare"
    if data != current.test_data:
        return (
            f"run {run.id} was scored on other test data ({data}) than the champion, run "
            f"{current.run} ({current.test_data}), so their {name} cannot be compared; a model for "
            f"other data is trained under a name of its own: "
            f"{command('train', run.task, name='NAME')}"
        )
    if (score < current.score) if higher else (score > current.score):
        return (
            f"run {run.id} is worse than the champion, run {current.run}: {name} {score:.4f}, not "
            f"{current.score:.4f}"
        )
    return None


@contextlib.contextmanager
def savedmodel(task: str, current: Champion) -> Iterator[Path]:
    """Yield the champion's SavedModel: that of its run if it is on this machine, else a download.

    Raises:
        UserError: MLflow cannot be reached.
    """
    run = next((run for run in Run.all(task) if run.id == current.run), None)
    if run is not None and (run.folder / "savedmodel").is_dir():
        yield run.folder / "savedmodel"
        return
    with tempfile.TemporaryDirectory() as folder:
        with _store_errors_to_user():
            path = mlflow_store.download(f"{current.source}/artifacts/savedmodel", Path(folder))
        yield path


@contextlib.contextmanager
def _store_errors_to_user() -> Iterator[None]:
    try:
        yield
    except mlflow_store.store_errors() as error:
        raise UserError(f"{mlflow_store.describe_error(error)}; the champion is unknown") from None


def _aliases(client: Any, name: str) -> dict[str, str]:
    """Return the aliases of a registered model and their versions; none if it does not exist."""
    models = client.search_registered_models(filter_string=f"name = '{name}'")
    return dict(models[0].aliases) if models else {}
