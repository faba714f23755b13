"""The MLflow store: one for training, the registry and the UI, with one experiment a task."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

from pipelines.engine.core.addresses import listen
from pipelines.engine.core.commands import command
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import lock
from pipelines.engine.core.paths import HOME_VARIABLE, home
from pipelines.engine.runs import mlflow_location

URI_SETTING = "MLFLOW_TRACKING_URI"
#: Makes the UI open an experiment as model training, not as a chat application.
_EXPERIMENT_KIND = "mlflow.experimentKind"
#: The default store, in the home folder.
_DATABASE = "mlflow.db"
#: Characters of a path that mean something else in the URI of a database.
_ADDRESS_PARTS = frozenset("?%")

# MLflow reads these when it is imported. A store that is down should be noticed within seconds.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}.items():
    os.environ.setdefault(_name, _value)


def store_uri() -> str:
    """Return ``MLFLOW_TRACKING_URI``, or by default a SQLite file beside the runs."""
    return os.environ.get(URI_SETTING) or local_uri(home())


def local_uri(folder: Path) -> str:
    """Return the URI of the store in a folder.

    MLflow takes ``?`` and ``%20`` in the path of a database as parts of an address: it would open
    another file. It is given a link to such a folder, from the user's cache.

    Raises:
        UserError: there is no place for the link.
    """
    if _ADDRESS_PARTS.isdisjoint(str(folder)):
        return f"sqlite:///{folder / _DATABASE}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "unfold", "stores")
    link = cache / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    try:
        if not _leads_to(link, folder):
            cache.mkdir(parents=True, exist_ok=True)
            with lock(cache / ".lock", wait=True):
                if not _leads_to(link, folder):  # another process may have made it meanwhile
                    link.unlink(missing_ok=True)
                    link.symlink_to(folder)
        found = _ADDRESS_PARTS.isdisjoint(str(link))
    except OSError:
        found = False
    if not found:
        raise UserError(
            f"{folder}: MLflow cannot open a store in a folder with ? or % in its name; rename it, "
            f"or set {URI_SETTING}"
        )
    return f"sqlite:///{link / _DATABASE}"


def _leads_to(link: Path, folder: Path) -> bool:
    return link.is_symlink() and link.readlink() == folder


def shown_uri() -> str:
    """Return the store's address without user name and password."""
    return re.sub(r"//[^/@]*@", "//", store_uri())


def artifact_root() -> Path:
    """Return the folder of artifacts for a local store."""
    return home() / "mlartifacts"


def registered_name(model: str) -> str:
    """Return the name in MLflow's registry of the model with this name."""
    return f"unfold-{model}"


def store_exists() -> bool:
    """Whether there is a store; the first run creates a local one."""
    file = store_uri().removeprefix("sqlite:///")
    return file == store_uri() or Path(file).exists()


def client() -> Any:
    """Return an MLflow client of the store."""
    return client_of(configured_mlflow())


def download(uri: str, folder: Path) -> Path:
    """Download the artifact at ``uri`` into ``folder``."""
    return Path(
        configured_mlflow().artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))
    )


def configured_mlflow() -> Any:
    """Return MLflow, configured with our tracking URI."""
    import mlflow

    for noisy in ("mlflow", "alembic"):  # they also print the errors that they raise
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    mlflow.set_tracking_uri(store_uri())
    mlflow.set_registry_uri(store_uri())
    return mlflow


def client_of(mlflow: Any) -> Any:
    """Return a client, creating the tables of a new store."""
    # Only one process at a time may create them.
    with lock(home() / ".mlflow.lock", wait=True):
        _follow_moved_folder()
        return mlflow.MlflowClient()


def _follow_moved_folder() -> None:
    try:
        local = local_uri(home())
    except UserError:
        return  # the store is another one
    if store_uri() == local:  # another is not only this folder's
        mlflow_location.follow(home() / _DATABASE, artifact_root())


def find_experiment_id(client: Any, name: str) -> str:
    """Return the id of an experiment, which is created if it does not exist."""
    # Two first trainings at the same time would both create it.
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


def log_new_metrics(client: Any, mlflow_run: Any, metrics: dict[str, float]) -> None:
    """Log metrics of a whole run, without those that it has: they would become curves.

    Args:
        mlflow_run: the run as the store returned it before.
    """
    known = mlflow_run.data.metrics
    for name, value in metrics.items():
        if known.get(name) != value:
            client.log_metric(mlflow_run.info.run_id, name, value)


def store_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that a store raises if it cannot be used."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def refused_content(error: Exception) -> bool:
    """Whether the store works, but refuses what was sent: sending it again would not help."""
    from mlflow.exceptions import MlflowException, RestException

    # An unusable address raises another subclass.
    return type(error) in (MlflowException, RestException) and (
        getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE"
    )


def describe_error(error: Exception) -> str:
    """Describe an error of the store in one line, without user name and password."""
    first = next(iter(str(error).replace(store_uri(), shown_uri()).splitlines()), "")
    if refused_content(error):
        return f"MLflow at {shown_uri()} refuses a part of what was sent ({first[:200]})"
    return f"MLflow at {shown_uri()} cannot be used ({first[:200]})"


def log_report(
    experiment: str, name: str, params: dict[str, Any], metrics: dict[str, float], file: Path
) -> str | None:
    """Log metrics and a file as an MLflow run of their own.

    Returns:
        The reason if the store cannot be used, else None.
    """
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
    except store_errors() as error:
        return describe_error(error)
    return None


def serve_ui(host: str, port: int, console: Console) -> None:
    """Serve the MLflow UI of the store that training writes to. Replaces this process.

    Raises:
        UserError: there is no store yet, or the port is in use.
    """
    uri = store_uri()
    if uri.startswith(("http:", "https:")):
        console.say(
            f"runs are tracked by the server at {shown_uri()}: open that address in a browser"
        )
        return
    listen(host, port).close()
    if not store_exists():
        raise UserError(
            f"{home()}: no runs here yet; train first, e.g. {command('train', 'sentiment')}, or "
            f"set {HOME_VARIABLE} to the folder of your runs"
        )
    with lock(home() / ".mlflow.lock", wait=True):
        _follow_moved_folder()
    console.say(f"MLflow on http://{host}:{port}  (store {shown_uri()}; Ctrl-C ends it)")
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    server += ["--artifacts-destination", str(artifact_root())]
    os.execv(sys.executable, [*server, "--host", host, "--port", str(port)])
