"""Runs in MLflow: one experiment a task, one store for training and the UI.

Everything that is sent is first in the run folder, and ``Tracker.publish`` sends what has not
been sent yet. So a store that cannot be reached costs a warning, never the training, and sending
again neither repeats nor skips an epoch.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.engine.config import loader as configs
from pipelines.engine.config import schema
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.console import Console
from pipelines.engine.core.files import lock
from pipelines.engine.core.paths import home
from pipelines.engine.runs.group import Group
from pipelines.engine.runs.info import DataReport, MlflowRecord
from pipelines.engine.runs.run import Run

URI_SETTING = "MLFLOW_TRACKING_URI"
#: Makes the UI open an experiment as model training, not as a chat application.
_EXPERIMENT_KIND = "mlflow.experimentKind"
#: What the UI shows as the description of a run, in Markdown.
NOTE = "mlflow.note.content"
#: The fingerprint of the records that a run was scored on.
TEST_DATA = "unfold.test_data"
#: What a model costs, as `measures` knows it, by the names in ``run.json``.
COSTS = ("parameters", "train_seconds", "peak_memory_mb", "latency_ms")

# Read by MLflow when it is imported. A store that is down should be noticed in seconds.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}.items():
    os.environ.setdefault(_name, _value)


def store_uri() -> str:
    """The store of this project: ``MLFLOW_TRACKING_URI``, else a SQLite file beside the runs."""
    return os.environ.get(URI_SETTING) or f"sqlite:///{home() / 'mlflow.db'}"


def shown_uri() -> str:
    """The store's address without a name and a password in it."""
    return re.sub(r"//[^/@]*@", "//", store_uri())


def artifact_root() -> Path:
    return home() / "mlartifacts"


def registered_name(task: str) -> str:
    """What the models of a task are called in the registry."""
    return f"unfold-{task}"


def begun() -> bool:
    """Whether there is a store at all: a local one begins with the first run."""
    file = store_uri().removeprefix("sqlite:///")
    return file == store_uri() or Path(file).exists()


def client() -> Any:
    """MLflow's client of the store."""
    return client_of(configured_mlflow())


def download(uri: str, folder: Path) -> Path:
    """Fetch what MLflow keeps at ``uri`` into ``folder``."""
    return Path(
        configured_mlflow().artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))
    )


def configured_mlflow() -> Any:
    """MLflow, told of the store."""
    import mlflow

    for noisy in ("mlflow", "alembic"):  # what they raise is told here; they print how it came
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    mlflow.set_tracking_uri(store_uri())
    mlflow.set_registry_uri(store_uri())
    return mlflow


def client_of(mlflow: Any) -> Any:
    # The first use of a store creates its tables: one process at a time.
    with lock(home() / ".mlflow.lock", wait=True):
        return mlflow.MlflowClient()


def find_experiment_id(client: Any, name: str) -> str:
    """The experiment of that name, which is created where there is none."""
    # Two first trainings at once would both create it.
    with lock(home() / ".mlflow.lock", wait=True):
        if (experiment := client.get_experiment_by_name(name)) is not None:
            return str(experiment.experiment_id)
        local = store_uri().startswith("sqlite:")
        return str(
            client.create_experiment(
                name,
                tags={_EXPERIMENT_KIND: "custom_model_development"},
                artifact_location=(artifact_root() / name).as_uri() if local else None,
            )
        )


def unreachable() -> tuple[type[Exception], ...]:
    """What a store that cannot be used raises."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def log_report(
    experiment: str, name: str, params: dict[str, Any], metrics: dict[str, float], file: Path
) -> str | None:
    """Log numbers and a file as a run of their own; the reason if that cannot be done."""
    mlflow = configured_mlflow()
    try:
        client = client_of(mlflow)
        run_id = client.create_run(
            find_experiment_id(client, experiment), run_name=name
        ).info.run_id
        for key, value in params.items():
            client.log_param(run_id, key, value)
        for key, number in metrics.items():
            client.log_metric(run_id, key, number)
        client.log_artifact(run_id, str(file))
        client.set_terminated(run_id, "FINISHED")
    except unreachable() as error:
        return reason(error)
    return None


def reason(error: Exception) -> str:
    said = str(error).replace(store_uri(), shown_uri()).splitlines()[0]
    return f"MLflow at {shown_uri()} cannot be used ({said[:200]})"


def describe(run: Run) -> str:
    """A run in a few lines of Markdown, as far as it has come."""
    info, source = run.info, ", ".join(schema.as_list(run.config().data.source))
    records = ", ".join(f"{n:,} {name}" for name, n in info.data.records.items())
    lines = [f"`{info.config_name}` on {source} ({records})."]
    status, epochs = info.status, len(run.history)
    if status == "pruned":
        lines.append(f"**Pruned** after epoch {epochs}: other trials were better by then.")
    elif status in ("failed", "interrupted"):
        lines.append(f"**{status.capitalize()}** after epoch {epochs}.")
    if info.monitor is not None:
        lines.append(f"Best epoch {info.best_epoch}: {info.monitor} {info.best:.4f}.")
    if status == "finished":
        name = run.config().score.name
        lines.append(f"**Test {name.replace('_', ' ')} {info.scores[name]:.4f}**")
    lines += info.verdict
    return "\n\n".join(lines)


def log_numbers(client: Any, run_id: str, numbers: dict[str, float]) -> None:
    """Numbers of a whole run. One that was sent before would be a second point of a curve."""
    known = client.get_run(run_id).data.metrics
    for name, value in numbers.items():
        if known.get(name) != value:
            client.log_metric(run_id, name, value)


class Tracker:
    """Tells MLflow about one run."""

    def __init__(self, run: Run, config: Experiment, console: Console) -> None:
        self._mlflow, self._config, self._console = configured_mlflow(), config, console
        self._run = run
        self._warned = self._asked = False

    @functools.cached_property
    def _client(self) -> Any:
        return client_of(self._mlflow)

    def publish(self) -> bool:
        """Send the epochs that the store does not have yet. Whether the store could be reached."""
        return self._try(self._publish_epochs)

    def finish(self, status: str) -> bool:
        """Send what is left, and the final state of the run."""

        def send() -> None:
            run_id = self._publish_epochs()
            info = self._run.info
            if info.status == "finished":
                self._publish_results(run_id)
            if info.best is not None and info.monitor is not None:
                log_numbers(self._client, run_id, {f"best/{info.monitor}": info.best})
            self._client.set_tag(run_id, "unfold.status", info.status)
            self._client.set_tag(run_id, NOTE, describe(self._run))
            # A clock that was set back must not make a run end before it began.
            now, began = int(time.time() * 1000), self._client.get_run(run_id).info.start_time
            self._client.set_terminated(run_id, status, end_time=max(now, began))

        return self._try(send)

    def _try(self, send: Callable[[], object]) -> bool:
        try:
            send()
        except unreachable() as error:
            if not self._warned:
                self._console.warn(
                    f"{reason(error)}; the run is kept in "
                    f"{self._run.folder} and can be sent later: unfold track {self._run.task} "
                    f"--run {self._run.id}"
                )
            self._warned = True
            return False
        return True

    @property
    def _sent(self) -> MlflowRecord:
        return self._run.info.mlflow

    def _note(self, **changes: Any) -> None:
        self._run.update(mlflow=self._sent.model_copy(update=changes))

    def _open(self) -> str:
        if run_id := self._sent.run_id:
            if self._client.get_run(run_id).info.status != "RUNNING":
                self._client.update_run(run_id, status="RUNNING")
            return run_id
        experiment_id = find_experiment_id(self._client, self._run.task)
        from mlflow.entities import Param, ViewType

        # Killed before it could be noted, the run is in the store already, perhaps not whole.
        begun = self._client.search_runs(
            [experiment_id], f"tags.`unfold.run` = '{self._run.id}'", ViewType.ALL, max_results=1
        )

        info = self._run.info
        group = info.group
        name, kind = self._run.id, "training"
        if group is not None:
            name, kind = group.key, f"part of a {Group(group.name).kind}"
        tags: dict[str, str] = {
            NOTE: describe(self._run),
            "unfold.kind": kind,
            "unfold.config": info.config_name,
            "unfold.run": self._run.id,
            "unfold.folder": str(self._run.folder),
            "mlflow.source.name": f"unfold train {self._run.task}",
            "machine": info.machine,
            "git_commit": info.git_commit or "none",
        }
        if tested := info.data.test_fingerprint:
            tags[TEST_DATA] = tested
        tags |= {f"version.{name}": version for name, version in info.versions.items()}
        tags |= {
            name: value
            for name, value in (("backend", info.backend), ("device", info.device))
            if value is not None
        }
        tags |= {f"route.{layer}": route for layer, route in info.routes.items()}
        if group is not None and (parent := Group(group.name).info.get("mlflow")):
            tags["mlflow.parentRunId"] = parent
        run = (
            begun[0] if begun else self._client.create_run(experiment_id, run_name=name, tags=tags)
        )
        run_id = run.info.run_id
        params = [Param(k, v[:5000]) for k, v in configs.flatten(self._config).items()]
        self._client.log_batch(run_id, params=params)
        self._client.log_artifact(run_id, str(self._run.folder / "config.yaml"))
        if info.data.fingerprint:
            self._log_data(run_id, info.data)
        self._note(run_id=run_id, epochs=0)
        return str(run_id)

    def _log_data(self, run_id: str, data: DataReport) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = ", ".join(schema.as_list(self._config.data.source))
        entity = Dataset(
            name=source,
            digest=data.fingerprint,
            source_type="code",
            source=json.dumps({"source": source}),
            profile=json.dumps(data.records),
        )
        self._client.log_inputs(
            run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
        )
        self._client.log_dict(run_id, data.to_dict(), "data.json")

    def _publish_epochs(self) -> str:
        from mlflow.entities import Metric

        run_id = self._open()
        done = int(self._sent.epochs)
        if not self._asked:
            # Killed after an epoch was sent and before that was noted, the store knows better.
            known = self._client.get_metric_history(run_id, "loss")
            done = max([done, *(metric.step for metric in known)])
            self._asked = True
        for epoch, record in enumerate(self._run.history[done:], done + 1):
            now = int(time.time() * 1000)
            self._client.log_batch(
                run_id, metrics=[Metric(name, value, now, epoch) for name, value in record.items()]
            )
            self._note(epochs=epoch)
        return run_id

    def _publish_results(self, run_id: str) -> None:
        if self._sent.results:
            return
        info = self._run.info
        numbers = {f"test/{name}": value for name, value in info.scores.items()}
        numbers |= {
            f"cost/{name}": value for name in COSTS if (value := getattr(info, name)) is not None
        }
        log_numbers(self._client, run_id, numbers)
        for folder in ("figures", "tables", "processor"):
            if (self._run.folder / folder).is_dir():
                self._client.log_artifacts(run_id, str(self._run.folder / folder), folder)
        self._client.log_artifact(run_id, str(self._run.folder / "model.keras"), "keras")
        self._log_model(run_id)
        self._note(results=True)

    def _log_model(self, run_id: str) -> None:
        """The SavedModel as an MLflow model that takes what the export takes, registered."""
        from pipelines.engine.export.savedmodel import mlflow_signature

        found = self._client.search_model_versions(f"run_id = '{run_id}'")
        if found:  # registered, and killed before it could be noted
            self._note(model_version=int(found[0].version))
            return
        folder = self._run.folder / "savedmodel"
        versions = self._run.info.versions
        tensorflow = next(n for n in ("tensorflow-cpu", "tensorflow") if n in versions)
        with self._mlflow.start_run(run_id=run_id), warnings.catch_warnings():
            # It asks for an example to infer the signature from; ours is explicit.
            warnings.filterwarnings("ignore", message=".*input example.*")
            logged = self._mlflow.pyfunc.log_model(
                name="model",
                # Code, not a pickle: the file is read, and runs with TensorFlow alone.
                python_model=str(Path(__file__).with_name("mlflow_model.py")),
                artifacts={"savedmodel": str(folder)},
                signature=mlflow_signature(folder, self._config.binary_inputs),
                pip_requirements=[f"{n}=={versions[n]}" for n in (tensorflow, "mlflow")],
            )
        name = registered_name(self._run.task)
        with contextlib.suppress(self._mlflow.MlflowException):  # it is there already
            self._client.create_registered_model(name)
        version = self._client.create_model_version(
            name, logged.model_uri, run_id, model_id=logged.model_id, description=self._run.id
        )
        self._note(model_version=int(version.version))


def serve_ui(host: str, port: int, console: Console) -> None:
    """The MLflow UI over the store that training writes to. Replaces this process."""
    uri = store_uri()
    if uri.startswith(("http:", "https:")):
        console.say(
            f"runs are tracked by the server at {shown_uri()}: open that address in a browser"
        )
        return
    console.say(f"MLflow on http://{host}:{port}  (store {shown_uri()}; Ctrl-C ends it)")
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--artifacts-destination", str(artifact_root())]
    os.execv(sys.executable, [*command, "--host", host, "--port", str(port)])
