"""Variables on disk, each file whole: the last two checkpoints of a training, and its best weights.

Two, so that a file which the disk has damaged costs an epoch and not the run. Weights of the best
epoch are kept for both.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import write_bytes

#: Arrays by position, and what was saved beside them.
Saved = tuple[dict[str, np.ndarray], dict[str, Any]]


class DamagedError(Exception):
    """A file does not hold what was written to it."""


def save_variables(path: Path, variables: list[Any], meta: dict[str, Any]) -> None:
    """Variables by position with their paths, and ``meta`` as JSON, in one atomic file."""
    saved = arrays(variables)
    saved["meta"] = np.frombuffer(
        json.dumps({"paths": [v.path for v in variables], "meta": meta}).encode(), np.uint8
    )
    write_bytes(path, lambda file: np.savez(file, **saved))  # type: ignore[arg-type]


def read_variables(path: Path) -> Saved:
    """What `save_variables` has written.

    Raises:
        DamagedError: it is not that any more.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as saved:
            head = json.loads(bytes(saved["meta"]))
            found = {f"v{i}": saved[f"v{i}"] for i in range(len(head["paths"]))}
            return found, dict(head["meta"])
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, EOFError) as error:
        raise DamagedError(f"{path.name} is damaged ({error or type(error).__name__})") from None


def arrays(variables: list[Any]) -> dict[str, np.ndarray]:
    """The values of variables, by position."""
    return {f"v{i}": _to_numpy(v) for i, v in enumerate(variables)}


def assign(variables: list[Any], values: dict[str, np.ndarray], name: str) -> None:
    """Put saved values back.

    Raises:
        UserError: they are those of another model; ``name`` says where they are from.
    """
    if [a.shape for a in values.values()] != [tuple(v.shape) for v in variables]:
        raise UserError(f"{name}: belongs to another model than this config builds")
    for variable, value in zip(variables, values.values(), strict=True):
        variable.assign(value)


class Checkpoints:
    """The files of one training, in a folder of their own."""

    def __init__(self, folder: Path, warn: Callable[[str], object]) -> None:
        self._folder, self._warn = folder, warn
        self._last, self._before = folder / "checkpoint.npz", folder / "checkpoint-before.npz"
        self._coming = folder / "checkpoint-next.npz"
        self._damaged: set[Path] = set()
        self._needs: list[int] = []

    def best(self, epoch: int) -> Path:
        """The weights of an epoch that was the best so far."""
        return self._folder / f"best-{epoch}.npz"

    def latest(self) -> Saved | None:
        """The last checkpoint that can be read, with its best weights; None if there is none."""
        if self._coming.exists():  # it was written whole, and the process killed before its place
            self._move_up()
        problems = []
        for path in (self._last, self._before):
            if not path.exists():
                continue
            try:
                found = read_variables(path)
                read_variables(self.best(found[1]["best_epoch"]))
            except FileNotFoundError as error:
                self._damaged.add(path)
                problems.append(f"{Path(error.filename).name} is missing")
                continue
            except DamagedError as error:
                self._damaged.add(path)
                problems.append(str(error))
                continue
            if problems:
                self._warn(f"{problems[0]}; going back to epoch {found[1]['epoch']}")
            self._needs = [found[1]["best_epoch"]]
            return found
        if problems:
            self._warn(f"{problems[0]}; no other checkpoint can be used: training starts anew")
        return None

    def save_best(self, epoch: int, weights: list[Any]) -> None:
        """To be called before `save` of that epoch, which needs it."""
        save_variables(self.best(epoch), weights, {})

    def save(self, variables: list[Any], meta: dict[str, Any]) -> None:
        """``meta`` has ``epoch`` and ``best_epoch``."""
        save_variables(self._coming, variables, meta)
        self._move_up()
        self._needs = [*self._needs, meta["best_epoch"]][-2:]
        needed = {self.best(epoch) for epoch in self._needs}
        for path in self._folder.glob("best-*.npz"):
            if path not in needed:
                path.unlink()

    def _move_up(self) -> None:
        if self._last.exists() and self._last not in self._damaged:
            self._last.replace(self._before)
        self._coming.replace(self._last)
        self._damaged.clear()


def _to_numpy(variable: Any) -> np.ndarray:
    value = np.asarray(ops.convert_to_numpy(variable.value))
    # NumPy files have no bfloat16; float32 holds each of its values exactly.
    return value.astype(np.float32) if value.dtype.name == "bfloat16" else value
