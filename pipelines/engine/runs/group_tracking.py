"""Track a group of runs (a comparison or a sweep) in MLflow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.engine.core.console import Console
from pipelines.engine.core.files import lock
from pipelines.engine.runs.group import Group
from pipelines.engine.runs.tracking import (
    NOTE,
    client_of,
    configured_mlflow,
    find_experiment_id,
    log_numbers,
    reason,
    unreachable,
)


class GroupTracker:
    """Tells MLflow about a group: one run, above those of its trainings.

    Args:
        command: what makes such a group, as the source of the run.
        params: what is varied.
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
        """Begin the run, before its first training asks for it, or go on with it."""
        self._try(lambda: self._client.update_run(self._begun(), status="RUNNING"))

    def finish(
        self, status: str, note: str, metrics: dict[str, float], files: Sequence[Path]
    ) -> None:
        """Send what was found.

        Args:
            note: the description of the run, in Markdown.
        """

        def send() -> None:
            run_id = self._begun()
            # What was trained while this could not be sent knows nothing of it yet.
            for run in self._group.runs().values():
                if child := run.info.mlflow.run_id:
                    self._client.set_tag(child, "mlflow.parentRunId", run_id)
            self._client.set_tag(run_id, NOTE, note)
            log_numbers(self._client, run_id, metrics)
            for file in files:
                self._client.log_artifact(run_id, str(file))
            self._client.set_terminated(run_id, status)

        self._try(send)

    def _begun(self) -> str:
        """The id of the run, which is created where there is none."""
        group = self._group
        with lock(group.folder / ".tracking.lock", wait=True):
            if run_id := group.info.get("mlflow"):
                return str(run_id)
            tags = {
                "unfold.kind": group.kind,
                "unfold.config": group.info["config_name"],
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
            self._client.log_param(run_id, key, value[:5000])
        return run_id

    def _try(self, send: Callable[[], object]) -> None:
        try:
            send()
        except unreachable() as error:
            self._console.warn(f"{reason(error)}; what was found is in {self._group.folder}")
