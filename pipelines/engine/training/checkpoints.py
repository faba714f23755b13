"""Variables on disk: the last two checkpoints of a training, and its best weights.

Two checkpoints, so that a damaged file costs an epoch and not the run. The best weights of both are
kept. Every file is replaced atomically.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from keras import ops

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import write_bytes

#: Arrays by position, and the metadata that was saved with them.
SavedVariables: TypeAlias = tuple[dict[str, np.ndarray], dict[str, Any]]


class DamagedError(Exception):
    """A file does not hold what was written to it."""


def save_variables(path: Path, variables: list[Any], meta: dict[str, Any]) -> None:
    """Save variables by position, with their paths and with metadata, in one file.

    Args:
        path: An ``.npz`` file, replaced atomically.
        variables: Of Keras.
        meta: Stored as JSON.
    """
    saved = to_arrays(variables)
    saved["meta"] = np.frombuffer(
        json.dumps({"paths": [v.path for v in variables], "meta": meta}).encode(), np.uint8
    )
    write_bytes(path, lambda file: np.savez(file, **saved))  # type: ignore[arg-type]


def read_variables(path: Path) -> SavedVariables:
    """Read a file of `save_variables`.

    Raises:
        DamagedError: Its content has changed since.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as saved:
            header = json.loads(bytes(saved["meta"]))
            arrays = {f"v{i}": saved[f"v{i}"] for i in range(len(header["paths"]))}
            return arrays, dict(header["meta"])
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, EOFError) as error:
        raise DamagedError(f"{path.name} is damaged ({error or type(error).__name__})") from None


def to_arrays(variables: list[Any]) -> dict[str, np.ndarray]:
    """Return the values of variables, by position."""
    return {f"v{i}": _to_numpy(v) for i, v in enumerate(variables)}


def assign(variables: list[Any], values: dict[str, np.ndarray], name: str) -> None:
    """Assign saved values to variables.

    Args:
        variables: As they were saved, in the same order.
        values: Of `to_arrays` or `read_variables`.
        name: Where the values come from, for the message.

    Raises:
        UserError: The shapes are those of another model.
    """
    if [a.shape for a in values.values()] != [tuple(v.shape) for v in variables]:
        raise UserError(f"{name}: belongs to another model than this config builds")
    for variable, value in zip(variables, values.values(), strict=True):
        variable.assign(value)


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: Holds nothing else.
        warn: Prints a warning.
    """

    def __init__(self, folder: Path, warn: Callable[[str], object]) -> None:
        self._folder, self._warn = folder, warn
        self._last = folder / "checkpoint.npz"
        self._previous = folder / "checkpoint-before.npz"
        self._next = folder / "checkpoint-next.npz"
        self._damaged: set[Path] = set()
        self._best_epochs: list[int] = []  # of the last two checkpoints

    def best_path(self, epoch: int) -> Path:
        """Return the file with the weights of an epoch that was the best so far."""
        return self._folder / f"best-{epoch}.npz"

    def load_latest(self) -> SavedVariables | None:
        """Read the last checkpoint whose file, and whose best weights, are intact.

        Returns:
            None if there is none.
        """
        if self._next.exists():  # the process was killed after writing it, before renaming it
            self._rotate()
        problems = []
        for path in (self._last, self._previous):
            if not path.exists():
                continue
            try:
                saved = read_variables(path)
                read_variables(self.best_path(saved[1]["best_epoch"]))
            except FileNotFoundError as error:
                self._damaged.add(path)
                problems.append(f"{Path(error.filename).name} is missing")
                continue
            except DamagedError as error:
                self._damaged.add(path)
                problems.append(str(error))
                continue
            if problems:
                self._warn(f"{problems[0]}; going back to epoch {saved[1]['epoch']}")
            self._best_epochs = [saved[1]["best_epoch"]]
            return saved
        if problems:
            self._warn(f"{problems[0]}; no other checkpoint can be used: training starts anew")
        return None

    def save_best(self, epoch: int, weights: list[Any]) -> None:
        """Save the best weights so far; must be called before `save` of the same epoch."""
        save_variables(self.best_path(epoch), weights, {})

    def save(self, variables: list[Any], meta: dict[str, Any]) -> None:
        """Save a checkpoint, and delete best weights that no checkpoint needs any more.

        Args:
            variables: All that the next step depends on.
            meta: At least ``epoch`` and ``best_epoch``.
        """
        save_variables(self._next, variables, meta)
        self._rotate()
        self._best_epochs = [*self._best_epochs, meta["best_epoch"]][-2:]
        needed = {self.best_path(epoch) for epoch in self._best_epochs}
        for path in self._folder.glob("best-*.npz"):
            if path not in needed:
                path.unlink()

    def _rotate(self) -> None:
        """Make the next checkpoint the last, and the last the previous unless it is damaged."""
        if self._last.exists() and self._last not in self._damaged:
            self._last.replace(self._previous)
        self._next.replace(self._last)
        self._damaged.clear()


def _to_numpy(variable: Any) -> np.ndarray:
    value = np.asarray(ops.convert_to_numpy(variable.value))
    # NumPy files have no bfloat16; float32 holds each of its values exactly.
    return value.astype(np.float32) if value.dtype.name == "bfloat16" else value
