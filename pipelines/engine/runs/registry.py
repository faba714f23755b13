"""Which model is the one to use: the version that the alias ``champion`` of ``unfold-TASK`` names.

MLflow's registry is asked each time, so that all who use one store agree.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.engine.core.errors import UserError
from pipelines.engine.runs import tracking
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_config

ALIAS = "champion"


@dataclass(frozen=True)
class Champion:
    """The version that is in use, and what is known of it.

    Attributes:
        run: the id of the run that trained it, on whatever machine.
        score: by the name and direction of the config's ``score``; None if it is not known.
        test_data: fingerprint of the records that it was scored on.
        source: where its files are kept.
    """

    version: int
    run: str
    score: float | None
    test_data: str | None
    source: str


def champion(task: str) -> Champion | None:
    """The champion of a task; None where there is none yet.

    Raises:
        UserError: MLflow cannot be asked.
    """
    metric = get_config(task).score.name
    if not tracking.begun():
        return None
    with _asking():
        client = tracking.client()
        name = tracking.registered_name(task)
        version = _aliases(client, name).get(ALIAS)
        if version is None:
            return None
        found = client.get_model_version(name, version)
        run = client.get_run(found.run_id)
        return Champion(
            version=int(version),
            run=run.data.tags["unfold.run"],
            score=run.data.metrics.get(f"test/{metric}"),
            test_data=run.data.tags.get(tracking.TEST_DATA),
            source=client.get_model_version_download_uri(name, version),
        )


def promote(run: Run, *, force: bool = False) -> str:
    """Make the model of a run the champion, unless it is worse than the present one.

    Args:
        force: do it also where it is worse, or where that cannot be told.

    Returns:
        What was done, in a sentence.

    Raises:
        UserError: it is worse, or cannot be compared, or is not in the registry; or MLflow cannot
            be asked.
    """
    version = run.info.mlflow.model_version
    if version is None:
        run.need("savedmodel")
        raise UserError(
            f"run {run.id} is not in the registry; send it: unfold track {run.task} --run {run.id}"
        )
    now = champion(run.task)
    if now is not None and now.version == version:
        return f"run {run.id} (version {version}) is the champion already"
    doubt = None if now is None else _doubt(run, now)
    if doubt is not None and not force:
        raise UserError(f"{doubt}; --force promotes it all the same")
    with _asking():
        name = tracking.registered_name(run.task)
        tracking.client().set_registered_model_alias(name, ALIAS, str(version))
    before = "the first" if now is None else f"before it was run {now.run} (version {now.version})"
    said = f"run {run.id} (version {version}) is the champion; {before}"
    return f"{said}; forced, although {doubt}" if doubt else said


def _doubt(run: Run, now: Champion) -> str | None:
    """Why a run should not take the champion's place; None if it may."""
    metric, higher = get_config(run.task).score
    called = metric.replace("_", " ")
    mine, data = run.info.scores[metric], run.info.data.test_fingerprint
    if now.score is None or not now.test_data or not data:
        return f"run {run.id} and the champion, run {now.run}, have no scores to compare"
    if data != now.test_data:
        return (
            f"run {run.id} was scored on other test data ({data}) than the champion, run {now.run} "
            f"({now.test_data}), so their {called} cannot be compared"
        )
    if (mine < now.score) if higher else (mine > now.score):
        return (
            f"run {run.id} is worse than the champion, run {now.run}: {called} {mine:.4f}, not "
            f"{now.score:.4f}"
        )
    return None


@contextlib.contextmanager
def savedmodel(task: str, found: Champion) -> Iterator[Path]:
    """The champion's SavedModel: of the run where it is here, else from the registry.

    Raises:
        UserError: MLflow cannot be asked.
    """
    here = next((run for run in Run.all(task) if run.id == found.run), None)
    if here is not None and (here.folder / "savedmodel").is_dir():
        yield here.folder / "savedmodel"
        return
    with tempfile.TemporaryDirectory() as folder:
        with _asking():
            path = tracking.download(f"{found.source}/artifacts/savedmodel", Path(folder))
        yield path


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except tracking.unreachable() as error:
        raise UserError(f"{tracking.reason(error)}; whose champion is asked for") from None


def _aliases(client: Any, name: str) -> dict[str, str]:
    """The aliases of a registered model; none where it is not registered yet."""
    found = client.search_registered_models(filter_string=f"name = '{name}'")
    return dict(found[0].aliases) if found else {}
