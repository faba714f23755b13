"""Private APIs of libraries, all in one place.

A library may drop a private API in any release, so `pyproject.toml` bounds the version of each
library here from above. A missing API is an error that names it and the version installed; nothing
falls back to other behaviour. Each library is imported on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.engine.core.errors import UserError

if TYPE_CHECKING:
    import sqlite3

    import optuna


@dataclass(frozen=True)
class PrivateAPI:
    """A module, class or function that a library does not document.

    Attributes:
        library: the top-level package, whose ``__version__`` is reported.
        module: the module that defines it.
        name: its dotted name within the module.
    """

    library: str
    module: str
    name: str

    def get(self) -> Any:
        """Import and return it.

        Raises:
            UserError: The installed version of the library has no such API.
        """
        importlib.import_module(self.library)
        try:
            found: Any = importlib.import_module(self.module)
            for part in self.name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            raise _missing(self.library, f"{self.module}.{self.name}") from None
        return found


_JAX_STATE = PrivateAPI("jax", "jax._src.distributed", "global_state")
#: Where MLflow's SQL store keeps URIs of artifacts: tables and columns.
_MLFLOW_URIS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_TF_SESSION = "tensorflow.python.client.pywrap_tf_session"
_TF_NEW_BUFFER = PrivateAPI("tensorflow", _TF_SESSION, "TF_NewBufferFromString")
_TF_DELETE_BUFFER = PrivateAPI("tensorflow", _TF_SESSION, "TF_DeleteBuffer")


def sum_over_replicas(
    optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]
) -> list[Any]:
    """Return gradients added up over the replicas of a `tf.distribute` strategy.

    Args:
        optimizer: A Keras optimizer on the TensorFlow backend, or ``super()`` within one.
        gradients: One for each variable.
        variables: Those that the gradients belong to.
    """
    reduce = _attribute("keras", optimizer, "_all_reduce_sum_gradients")
    return [gradient for gradient, _ in reduce(zip(gradients, variables, strict=True))]


def flatten_layers(layer: Any, *, include_self: bool = True) -> list[Any]:
    """Return the layers within a Keras layer or model, nested ones included."""
    return list(_attribute("keras", layer, "_flatten_layers")(include_self=include_self))


def coordination_client() -> Any:
    """Return JAX's client of the service that connects the processes of a training."""
    return _attribute("jax", _JAX_STATE.get(), "client")


def tensor_handle(tensor: Any) -> Any:
    """Return the handle of a graph's tensor that `run_session` takes."""
    return _attribute("tensorflow", tensor, "_as_tf_output")()


def extend_graph(session: Any) -> None:
    """Add to a session what its graph has gained; ``session.run`` does so before every call."""
    _attribute("tensorflow", session, "_extend_graph")()


def run_session(
    session: Any, options: bytes, feeds: dict[Any, Any], fetches: list[Any]
) -> list[Any]:
    """Run a session without the half millisecond in which ``session.run`` resolves its arguments.

    Args:
        session: A `tf.compat.v1.Session` whose graph is complete (see `extend_graph`).
        options: A serialised ``RunOptions`` message.
        feeds: Arrays by `tensor_handle`.
        fetches: Of type `tensor_handle`.
    """
    run = _attribute("tensorflow", session, "_call_tf_sessionrun")
    new_buffer, delete_buffer = _TF_NEW_BUFFER.get(), _TF_DELETE_BUFFER.get()
    buffer = new_buffer(options)
    try:
        found: list[Any] = run(buffer, feeds, fetches, [], None)
    finally:
        delete_buffer(buffer)
    return found


def optuna_trial_id(trial: optuna.Trial | optuna.trial.FrozenTrial) -> int:
    """Return the number by which a trial's storage knows it, unlike ``trial.number``."""
    found: int = _attribute("optuna", trial, "_trial_id")
    return found


def mlflow_locations(store: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the name and the URI of the artifacts of each experiment in MLflow's store."""
    return store.execute("SELECT name, artifact_location FROM experiments").fetchall()


def move_mlflow(store: sqlite3.Connection, uris: tuple[str, str], folders: tuple[str, str]) -> None:
    """Replace the beginning of the URIs of artifacts in MLflow's store; it has no API for that.

    Args:
        store: MLflow's SQLite store.
        uris: The folder of artifacts before and after.
        folders: The folder of the store before and after, for the tag ``unfold.folder``.
    """
    changes = [(table, column, "true", uris) for table, column in _MLFLOW_URIS]
    changes.append(("tags", "value", "key = 'unfold.folder'", folders))
    for table, column, condition, (old, new) in changes:
        store.execute(
            f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
            f"WHERE {condition} AND substr({column}, 1, length(:old) + 1) = :old || '/'",
            {"old": old, "new": new},
        )


def _attribute(library: str, holder: Any, name: str) -> Any:
    try:
        return getattr(holder, name)
    except AttributeError:
        kind = holder if isinstance(holder, type) else type(holder)
        raise _missing(library, f"{kind.__module__}.{kind.__qualname__}.{name}") from None


def _missing(library: str, api: str) -> UserError:
    version = getattr(importlib.import_module(library), "__version__", "of unknown version")
    return UserError(
        f"{library} {version} has no {api}, which unfold needs: install the versions of "
        "requirements/ with make setup"
    )
