"""A file that is written in parts, so that an interrupted process can go on.

The parts are in a hidden folder beside the file, each complete or not at all, and so is the file
that they are joined to at the end. The folder records the job: its parts are used again only for
the same job.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.engine.core.files import lock, remove_unfinished, write_bytes, write_json


class Parts:
    """The parts of a file.

    Attributes:
        out: The file.
        progress: What `add` has recorded with the last part; empty without parts.
        changed: What differs from the job whose parts were found and dropped.

    Args:
        out: The file.
        job: What the content of the file depends on, by name.
    """

    def __init__(self, out: Path, job: Mapping[str, Any]) -> None:
        self.out, self._job = out, dict(job)
        self._folder = out.with_name(f".{out.name}.parts")
        self._state = self._folder / "progress.json"
        self._count = 0
        self.progress: dict[str, Any] = {}
        self.changed: list[str] = []

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the folder, for one process at a time, and find the parts of an earlier one.

        Raises:
            UserError: Another process is writing the file.
        """
        message = f"{self.out}: another process is writing it"
        with contextlib.ExitStack() as stack:
            with self._disk_errors():
                stack.enter_context(lock(self._folder / ".lock", wait=False, message=message))
                remove_unfinished(self._folder)
                self._resume()
            yield

    def _resume(self) -> None:
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return
        job = state["job"]
        self.changed = [name for name in self._job if job.get(name) != self._job[name]]
        if self.changed:
            self._state.unlink()
            for part in self._folder.glob("part-*"):
                part.unlink()
            return
        self._count, self.progress = state["parts"], state["progress"]

    def add(self, write: Callable[[BinaryIO], object], progress: Mapping[str, Any]) -> None:
        """Write the next part.

        Args:
            write: Writes its content.
            progress: What to record with it.
        """
        with self._disk_errors():
            write_bytes(self._part(self._count), write)
            state = {"job": self._job, "parts": self._count + 1, "progress": dict(progress)}
            write_json(self._state, state)
        self._count, self.progress = self._count + 1, dict(progress)

    def finish(self, join: Callable[[Sequence[Path], BinaryIO], object]) -> None:
        """Write the file from its parts, and remove them."""
        parts = [self._part(number) for number in range(self._count)]
        with self._disk_errors():
            write_bytes(self.out, lambda file: join(parts, file))
        shutil.rmtree(self._folder)

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:08}"

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Let an error of the disk name the file rather than one of its parts."""
        try:
            yield
        except OSError as error:
            error.filename = str(self.out)
            raise
