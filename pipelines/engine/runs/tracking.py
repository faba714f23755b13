"""Send a run to MLflow, each part exactly once.

Everything that is sent is in the run folder first, and the section ``mlflow`` of ``run.json`` notes
what has been sent. A store that cannot be reached therefore costs a warning, never the training,
and sending again neither repeats nor skips an epoch. A process may be killed between sending and
noting; so the store is searched before anything is sent whose note is missing.
"""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.commands import command
from pipelines.engine.core.console import Console
from pipelines.engine.runs import mlflow_content as content
from pipelines.engine.runs.mlflow_store import (
    client_of,
    configured_mlflow,
    describe_error,
    find_experiment_id,
    log_new_metrics,
    refused_content,
    registered_name,
    store_errors,
)
from pipelines.engine.runs.run import REPORT, Run

#: Folders of a finished run that are logged as artifacts.
_FOLDERS = ("figures", "tables", "processor")
#: The most parameters that MLflow's server accepts in one request.
_PARAMS_PER_BATCH = 100


class Tracker:
    """Sends one run to MLflow.

    Args:
        run: the run, whose folder has all that is sent.
        config: the config of the run.
        console: where a store that cannot be used is reported, once.
    """

    def __init__(self, run: Run, config: Experiment, console: Console) -> None:
        self._mlflow = configured_mlflow()
        self._run, self._config, self._console = run, config, console
        self._warned = self._epochs_compared = False

    @functools.cached_property
    def _client(self) -> Any:
        return client_of(self._mlflow)

    def publish(self) -> bool:
        """Send the epochs that have not been sent.

        Returns:
            Whether the store could be reached.
        """
        return self._report_errors(lambda: self._send_epochs(self._open().info.run_id))

    def finish(self, status: str) -> bool:
        """Send everything that has not been sent, and end the MLflow run.

        Args:
            status: MLflow's status: ``FINISHED``, ``FAILED`` or ``KILLED``.

        Returns:
            Whether the store could be reached.
        """
        return self._report_errors(lambda: self._send_rest(status))

    def _report_errors(self, send: Callable[[], object]) -> bool:
        try:
            send()
        except store_errors() as error:
            if not self._warned:
                kept = f"{describe_error(error)}; the run is kept in {self._run.folder}"
                track = command("track", self._run.task, run=self._run.id)
                later = f"can be sent later: {track}"
                refused = "sending it again does not help until that is changed"
                self._console.warn(
                    f"{kept}; {refused}" if refused_content(error) else f"{kept} and {later}"
                )
            self._warned = True
            return False
        return True

    def _note(self, **changes: Any) -> None:
        """Note in ``run.json`` what has been sent."""
        self._run.update(mlflow=self._run.info.mlflow.model_copy(update=changes))

    def _open(self) -> Any:
        """Return the MLflow run, which is running; it is created if it does not exist."""
        if run_id := self._run.info.mlflow.run_id:
            mlflow_run = self._client.get_run(run_id)
            if mlflow_run.info.status != "RUNNING":
                self._client.update_run(run_id, status="RUNNING")
            return mlflow_run
        experiment_id = find_experiment_id(self._client, self._run.task)
        mlflow_run = self._find(experiment_id) or self._create(experiment_id)
        run_id, info = mlflow_run.info.run_id, self._run.info
        # Logging these again changes nothing, so a run that was found may be incomplete.
        params = content.params(self._config)
        for start in range(0, len(params), _PARAMS_PER_BATCH):
            self._client.log_batch(run_id, params=params[start : start + _PARAMS_PER_BATCH])
        self._client.log_artifact(run_id, str(self._run.folder / "config.yaml"))
        if info.data.fingerprint:
            self._client.log_inputs(run_id, [content.dataset(self._config, info.data)])
            self._client.log_dict(run_id, info.data.to_dict(), "data.json")
        self._note(run_id=run_id, epochs=0)
        return mlflow_run

    def _find(self, experiment_id: str) -> Any:
        """Find a run that was created by a process killed before it could note that."""
        from mlflow.entities import ViewType

        filter_string = f"tags.`unfold.run` = '{self._run.id}'"
        runs = self._client.search_runs([experiment_id], filter_string, ViewType.ALL, max_results=1)
        return runs[0] if runs else None

    def _create(self, experiment_id: str) -> Any:
        run, info = self._run, self._run.info
        return self._client.create_run(
            experiment_id, run_name=content.run_name(run, info), tags=content.tags(run, info)
        )

    def _send_epochs(self, run_id: str) -> None:
        sent = self._run.info.mlflow.epochs
        if not self._epochs_compared:
            # Killed between sending and noting an epoch, the store has one more.
            known = self._client.get_metric_history(run_id, "loss")
            sent = max([sent, *(metric.step for metric in known)])
            self._epochs_compared = True
        for epoch, record in enumerate(self._run.history[sent:], sent + 1):
            metrics = content.epoch_metrics(record, epoch, _milliseconds())
            self._client.log_batch(run_id, metrics=metrics)
            self._note(epochs=epoch)

    def _send_rest(self, status: str) -> None:
        mlflow_run = self._open()
        run_id = mlflow_run.info.run_id
        self._send_epochs(run_id)
        info = self._run.info
        if info.status == "finished" and not info.mlflow.results:
            self._send_results(mlflow_run)
        log_new_metrics(self._client, mlflow_run, content.best_metric(info))
        self._client.set_tag(run_id, "unfold.status", info.status)
        self._client.set_tag(run_id, content.NOTE, content.description(self._run))
        # A clock that was set back must not make a run end before it began.
        end_time = max(_milliseconds(), mlflow_run.info.start_time)
        self._client.set_terminated(run_id, status, end_time=end_time)

    def _send_results(self, mlflow_run: Any) -> None:
        """Send the scores, files and model of a finished run."""
        run_id, folder = mlflow_run.info.run_id, self._run.folder
        log_new_metrics(self._client, mlflow_run, content.result_metrics(self._run.info))
        for name in _FOLDERS:
            if (folder / name).is_dir():
                self._client.log_artifacts(run_id, str(folder / name), name)
        self._client.log_artifact(run_id, str(folder / "model.keras"), "keras")
        if (folder / REPORT).exists():
            self._client.log_artifact(run_id, str(folder / REPORT))
        # A version without a note was registered by a process killed before it could note that.
        registered = self._client.search_model_versions(f"run_id = '{run_id}'")
        version = registered[0] if registered else self._register(run_id, self._log_model(run_id))
        self._note(model_version=int(version.version), results=True)

    def _log_model(self, run_id: str) -> Any:
        """Log the SavedModel as an MLflow model with the signature of the export."""
        from pipelines.engine.export.savedmodel import mlflow_signature

        folder = self._run.folder / "savedmodel"
        versions = self._run.info.versions
        tensorflow = next(n for n in ("tensorflow-cpu", "tensorflow") if n in versions)
        with self._mlflow.start_run(run_id=run_id), warnings.catch_warnings():
            # MLflow wants an example to infer the signature from; ours is explicit.
            warnings.filterwarnings("ignore", message=".*input example.*")
            return self._mlflow.pyfunc.log_model(
                name="model",
                # Code, not a pickle: it can be read, and needs TensorFlow alone.
                python_model=str(Path(__file__).with_name("mlflow_model.py")),
                artifacts={"savedmodel": folder.as_uri()},  # a path would be taken as a URI
                signature=mlflow_signature(folder, self._config.binary_inputs),
                pip_requirements=[f"{n}=={versions[n]}" for n in (tensorflow, "mlflow")],
            )

    def _register(self, run_id: str, logged: Any) -> Any:
        """Register a logged model as the next version of the run's model."""
        name = registered_name(self._run.model_name)
        with contextlib.suppress(self._mlflow.MlflowException):  # it exists
            self._client.create_registered_model(name)
        return self._client.create_model_version(
            name,
            logged.model_uri,
            run_id,
            model_id=logged.model_id,
            description=content.card(self._run),
        )


def _milliseconds() -> int:
    return int(time.time() * 1000)
