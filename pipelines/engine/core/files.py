"""Atomic writes of files and folders, and locks between processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.engine.core.errors import UserError


def write_bytes(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file atomically: to a temporary file beside ``path`` that is then renamed.

    Args:
        path: the file; missing folders are created.
        write: writes the content to the open file that it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file readable by its owner only; results get ordinary permissions.
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically, with line ends as they are."""
    write_bytes(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically.

    Raises:
        ValueError: a number is not finite.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Create a folder atomically.

    Yields:
        A temporary folder beside ``path``. It is renamed when the block ends, and removed if the
        block raises.

    Raises:
        OSError: ``path`` exists and is not an empty folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(path)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that `write_bytes` and `new_folder` left when they were killed.

    No other process may be writing to ``folder``.
    """
    for path in folder.rglob(".*.????????"):  # the names that mkstemp and mkdtemp give
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(path: Path, *, wait: bool, message: str = "") -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created if necessary.

    The lock is the kernel's (``flock``): it ends with the process, however that ends, and those
    that wait get it without polling.

    Args:
        path: the file.
        wait: wait for a lock that is held elsewhere, or raise.
        message: the message of the error.

    Raises:
        UserError: the lock is held elsewhere and ``wait`` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(message) from None
        yield


def require_writable(folder: Path, description: str) -> None:
    """Create ``folder`` and check that files can be written to it, before hours of work.

    Raises:
        UserError: they cannot; the message begins with ``description``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{description}: cannot write to {folder}: {error.strerror}") from None


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
