"""Keep a local MLflow store usable when its folder is moved or copied.

The store has absolute URIs of artifacts. After a move they would name files that are no longer
there, and artifacts of new runs would be written to the old place; after a copy, to the folder that
was copied.
"""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pipelines.engine.core import _compat


def follow(database: Path, artifacts: Path) -> None:
    """Make a store's URIs point to the artifacts beside it.

    Nothing is changed if the store is new, or if the artifacts are still where they were.

    Args:
        database: the SQLite file.
        artifacts: the folder of artifacts beside it.

    Raises:
        OSError: the store was moved, and cannot be changed.
    """
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as store:
            locations = _compat.mlflow_locations(store)
    except sqlite3.Error:
        return  # MLflow says what is wrong with it
    for old in {root for location in locations if (root := _root(*location, artifacts))}:
        _move(database, old, artifacts)


def _root(name: str, uri: str, artifacts: Path) -> str | None:
    """Return the URI of the former folder of artifacts, from the location of an experiment.

    None if it is the present one, or if somebody else chose the location.
    """
    root = uri.removesuffix(f"/{quote(name)}")
    parts = urlsplit(root)
    old = Path(unquote(parts.path))
    if root == uri or parts.scheme != "file" or old.name != artifacts.name or old == artifacts:
        return None
    if old.is_dir() and (not artifacts.is_dir() or old.samefile(artifacts)):
        return None  # the same folder under another name, or the store was moved without it
    return root


def _move(database: Path, old: str, artifacts: Path) -> None:
    """Replace the URI of the former folder of artifacts in the whole store, or nowhere."""
    folders = (str(Path(unquote(urlsplit(old).path)).parent), str(artifacts.parent))
    try:
        with closing(sqlite3.connect(database, timeout=30)) as store, store:
            _compat.move_mlflow(store, (old, artifacts.as_uri()), folders)
    except sqlite3.Error as error:
        raise OSError(
            errno.EROFS,
            f"it was moved here from {folders[0]}, and its paths cannot be changed: {error}",
        ) from None
