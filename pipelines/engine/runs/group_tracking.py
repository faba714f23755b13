"""Track a group of runs (a comparison or a sweep) in MLflow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.engine.core.console import Console
from pipelines.engine.core.files import lock
from pipelines.engine.runs import mlflow_names as names
from pipelines.engine.runs.group import Group
from pipelines.engine.runs.mlflow_content import LONGEST_PARAM, NOTE, PARENT
from pipelines.engine.runs.mlflow_store import (
    client_of,
    configured_mlflow,
    describe_error,
    find_experiment_id,
    log_new_metrics,
    store_errors,
)


class GroupTracker:
    """Sends a group to MLflow as one run, the parent of its trainings' runs.

    Args:
        group: the group.
        command: the command that makes such a group; the source of the MLflow run.
        params: the parameters of the MLflow run: what is varied.
        console: where a store that cannot be used is reported.
    """

    def __init__(
        self, group: Group, command: str, params: dict[str, str], console: Console
    ) -> None:
        self._mlflow, self._group, self._console = configured_mlflow(), group, console
        self._command, self._params = command, params

    @functools.cached_property
    def _client(self) -> Any:
        return client_of(self._mlflow)

    def open(self) -> None:
        """Create or continue the MLflow run. Call it before the first training needs a parent."""
        self._report_errors(lambda: self._client.update_run(self._open(), status="RUNNING"))

    def finish(
        self, status: str, note: str, metrics: dict[str, float], files: Sequence[Path]
    ) -> None:
        """Send the results and end the MLflow run.

        Args:
            status: MLflow's status: ``FINISHED`` or ``KILLED``.
            note: the description of the run, in Markdown.
            metrics: the metrics of the whole group.
            files: logged as artifacts.
        """

        def send() -> None:
            run_id = self._open()
            # Runs trained while the store could not be reached have no parent yet.
            for run in self._group.runs().values():
                if child := run.info.mlflow.run_id:
                    self._client.set_tag(child, PARENT, run_id)
            self._client.set_tag(run_id, NOTE, note)
            valid = {names.key(name): value for name, value in metrics.items()}
            log_new_metrics(self._client, self._client.get_run(run_id), valid)
            for file in files:
                self._client.log_artifact(run_id, str(file))
            self._client.set_terminated(run_id, status)

        self._report_errors(send)

    def _open(self) -> str:
        """Return the id of the MLflow run, which is created if it does not exist."""
        group = self._group
        with lock(group.folder / ".tracking.lock", wait=True):
            if run_id := group.info.mlflow:
                return run_id
            tags = {
                "unfold.kind": group.kind,
                "unfold.config": group.info.config_name,
                "unfold.folder": str(group.folder),
                "mlflow.source.name": self._command,
            }
            created = self._client.create_run(
                find_experiment_id(self._client, group.task),
                run_name=f"{group.kind} {group.folder.name}",
                tags=tags,
            )
            run_id = str(created.info.run_id)
            group.update(mlflow=run_id)
        for key, value in self._params.items():
            self._client.log_param(run_id, names.key(key), value[:LONGEST_PARAM])
        return run_id

    def _report_errors(self, send: Callable[[], object]) -> None:
        try:
            send()
        except store_errors() as error:
            self._console.warn(f"{describe_error(error)}; the results are in {self._group.folder}")
