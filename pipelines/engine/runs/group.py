"""Groups of runs: the variants of a comparison, the trials of a sweep.

A group is a folder, ``comparisons/TASK/NAME-DIGEST/`` or ``sweeps/TASK/NAME-DIGEST/``. The digest
is that of its config, so the same command finds the same folder again. Each training of a group is
an ordinary run under ``runs/`` whose ``run.json`` names the group; so a group knows at any time
which trainings are done. Each training has its own process, with clean memory and random streams
and a peak of memory that can be measured.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core import signals
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import TrainingError, UserError
from pipelines.engine.core.files import require_writable, write_text
from pipelines.engine.core.paths import home
from pipelines.engine.runs.info import GroupInfo, read_group_info, write_info
from pipelines.engine.runs.run import Run

_FILE = "group.json"
#: Seconds between two checks whether the user wants to stop.
_POLL_SECONDS = 0.2


class Group:
    """A folder, and the runs that are part of it, by their keys.

    Args:
        name: the folder, relative to the home folder.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = home() / name
        self.task = self.folder.parent.name
        self.kind = self.folder.parent.parent.name.removesuffix("s")

    @classmethod
    def of(cls, kind: str, config: Experiment, settings: str = "") -> Group:
        """Return the group of a config, which is created if it does not exist.

        Args:
            kind: ``comparisons`` or ``sweeps``.
            config: the config that is varied.
            settings: settings of the group; other settings make another group.
        """
        digest = hashlib.sha256((configs.dump(config) + settings).encode()).hexdigest()[:8]
        group = cls(f"{kind}/{config.task}/{config.name}-{digest}")
        require_writable(group.folder, "the folder of the results")
        if not (group.folder / _FILE).exists():
            group.update(config_name=config.name)
        return group

    @property
    def info(self) -> GroupInfo:
        """The current contents of ``group.json``."""
        return read_group_info(self.folder / _FILE)

    def update(self, **changes: Any) -> None:
        """Change fields of ``group.json``; see `GroupInfo` for their names."""
        write_info(self.folder / _FILE, self.info.updated(changes))

    def runs(self) -> dict[str, Run]:
        """Return the runs that exist, by key."""
        members = {}
        for run in Run.all(self.task):
            group = run.info.group
            if group is not None and group.name == self.name:
                members[group.key] = run
        return members

    def config_file(self, key: str) -> Path:
        """Return the path of the config of one training."""
        return self.folder / "configs" / f"{key}.yaml"

    def train(
        self,
        key: str,
        config: Experiment,
        *,
        trial: bool,
        worker: Sequence[str],
        on_epoch: Callable[[dict[str, Any]], bool],
        console: Console,
    ) -> Run:
        """Train or continue one run of the group in a process of its own.

        Args:
            key: the key of the training within the group.
            config: its config.
            trial: train and validate only, without a test score and an export.
            worker: the command that trains one member; the group, the key and the mode follow.
            on_epoch: called after each epoch with the state of training
                (`pipelines.engine.training.loop.State.report`); returns whether to continue.
            console: where warnings of the process are shown; its whole output is in ``logs/``.

        Returns:
            The run, which has ended.

        Raises:
            UserError: an error that every other training would have as well.
            TrainingError: this training failed.
            KeyboardInterrupt: the user wants to stop; the process has ended after its step.
        """
        write_text(self.config_file(key), configs.dump(config))
        log = self.folder / "logs" / f"{key}.log"
        log.parent.mkdir(exist_ok=True)
        mode = "trial" if trial else "whole"
        with log.open("ab") as file:
            start = file.tell()
            process = subprocess.Popen(
                [*worker, self.name, key, mode],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                # Ctrl-C reaches only this process, which passes it on once.
                start_new_session=True,
            )  # fmt: skip
        _wait(process, on_epoch)
        with log.open("rb") as file:
            file.seek(start)
            output = file.read().decode(errors="replace").splitlines()
        for line in output:
            if line.startswith("warning: "):
                console.warn(f"{key}: {line.removeprefix('warning: ')}")
        if process.returncode == 0:
            return self.runs()[key]
        errors = [line.removeprefix("error: ") for line in output if line.startswith("error: ")]
        reason = "; ".join(errors) or f"its process ended with {process.returncode}, see {log}"
        raise (UserError if process.returncode == 2 else TrainingError)(reason)


def _wait(process: subprocess.Popen[bytes], on_epoch: Callable[[dict[str, Any]], bool]) -> None:
    """Wait for a worker, answering its reports; terminate it if the user wants to stop."""
    assert process.stdin is not None
    assert process.stdout is not None
    errors: list[BaseException] = []
    answering = threading.Thread(
        target=_answer_reports, args=(process.stdin, process.stdout, on_epoch, errors)
    )
    answering.start()
    try:
        while True:
            try:
                process.wait(_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                signals.check()
    except BaseException:
        process.terminate()
        try:
            process.wait()
        except BaseException:  # a second signal to stop
            process.kill()
            raise
        raise
    finally:
        answering.join()
        process.stdout.close()
    if errors:
        raise errors[0]


def _answer_reports(
    answers: IO[bytes],
    reports: IO[bytes],
    on_epoch: Callable[[dict[str, Any]], bool],
    errors: list[BaseException],
) -> None:
    """Answer each report of a worker.

    Args:
        errors: gets what ``on_epoch`` raises; the worker then has no answer, and ends.
    """
    try:
        with answers:
            for line in reports:
                answers.write(b"on\n" if on_epoch(json.loads(line)) else b"stop\n")
                answers.flush()
    except BrokenPipeError:
        pass  # the worker ended before it read the answer
    except BaseException as error:  # noqa: BLE001 (raised again by _wait)
        errors.append(error)
