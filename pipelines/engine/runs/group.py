"""Several trainings that belong together: the variants of a comparison, the trials of a sweep.

A group is a folder, ``comparisons/TASK/NAME-DIGEST/`` or ``sweeps/TASK/NAME-DIGEST/``, named by
what it compares: the same command finds the same folder again. Each of its trainings is a run like
any other under ``runs/``, which says whose it is, so that a group knows at any time what is done.
Each is made in a process of its own: memory and random streams are clean, and the peak of its
memory is its own.
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
from pipelines.engine.core.files import require_writable, write_json, write_text
from pipelines.engine.core.paths import home
from pipelines.engine.runs.run import Run

_FILE = "group.json"
#: Seconds between two looks at whether a stop is wanted.
_LOOK = 0.2


class Group:
    """A folder, and the runs that are part of it, by their keys."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = home() / name
        self.task = self.folder.parent.name
        self.kind = self.folder.parent.parent.name.removesuffix("s")

    @classmethod
    def of(cls, kind: str, config: Experiment, more: str = "") -> Group:
        """The group of a config, which is begun if there is none yet.

        Args:
            kind: ``comparisons`` or ``sweeps``.
            more: what tells groups of one config apart.
        """
        told = configs.dump(config) + more
        digest = hashlib.sha256(told.encode()).hexdigest()[:8]
        group = cls(f"{kind}/{config.task}/{config.name}-{digest}")
        require_writable(group.folder, "the folder of the results")
        if not (group.folder / _FILE).exists():
            group.update(config_name=config.name)
        return group

    @property
    def info(self) -> dict[str, Any]:
        path = self.folder / _FILE
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def update(self, **changes: Any) -> None:
        write_json(self.folder / _FILE, self.info | changes)

    def runs(self) -> dict[str, Run]:
        """What has been begun, by key."""
        mine = {}
        for run in Run.all(self.task):
            group = run.info.group
            if group is not None and group.name == self.name:
                mine[group.key] = run
        return mine

    def config_file(self, key: str) -> Path:
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
        """Train one of the group in a process of its own, or continue it; the run when it ended.

        Args:
            trial: train and validate only: no test score, no export.
            worker: the command that trains one member; the group, the key and the mode follow.
            on_epoch: told after each epoch where it stands (`training.State.report`); whether it
                is to go on.
            console: what it warns of is passed on; all else that it says is in ``logs/``.

        Raises:
            UserError: a mistake that every other training would make as well.
            TrainingError: this training failed.
            KeyboardInterrupt: a stop is wanted; the process has ended at its next step.
        """
        write_text(self.config_file(key), configs.dump(config))
        log = self.folder / "logs" / f"{key}.log"
        log.parent.mkdir(exist_ok=True)
        mode = "trial" if trial else "whole"
        with log.open("ab") as file:
            begins = file.tell()
            process = subprocess.Popen(
                [*worker, self.name, key, mode],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                # Ctrl-C reaches this process only, which passes it on once.
                start_new_session=True,
            )  # fmt: skip
        _attend(process, on_epoch)
        with log.open("rb") as file:
            file.seek(begins)
            said = file.read().decode(errors="replace").splitlines()
        for line in said:
            if line.startswith("warning: "):
                console.warn(f"{key}: {line.removeprefix('warning: ')}")
        if process.returncode == 0:
            return self.runs()[key]
        errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
        reason = "; ".join(errors) or f"its process ended with {process.returncode}, see {log}"
        raise (UserError if process.returncode == 2 else TrainingError)(reason)


def _attend(process: subprocess.Popen[bytes], on_epoch: Callable[[dict[str, Any]], bool]) -> None:
    """Answer the reports of a child until it has ended; pass on that a stop is wanted."""
    assert process.stdin is not None
    assert process.stdout is not None
    wrong: list[BaseException] = []
    talk = threading.Thread(target=_answer, args=(process.stdin, process.stdout, on_epoch, wrong))
    talk.start()
    try:
        while True:
            try:
                process.wait(_LOOK)
                break
            except subprocess.TimeoutExpired:
                signals.check()
    except BaseException:
        process.terminate()
        try:
            process.wait()
        except BaseException:  # a second wish to stop
            process.kill()
            raise
        raise
    finally:
        talk.join()
        process.stdout.close()
    if wrong:
        raise wrong[0]


def _answer(
    answers: IO[bytes],
    reports: IO[bytes],
    on_epoch: Callable[[dict[str, Any]], bool],
    wrong: list[BaseException],
) -> None:
    """What ``on_epoch`` raises is put into ``wrong``; the child, left without an answer, ends."""
    try:
        with answers:
            for line in reports:
                answers.write(b"on\n" if on_epoch(json.loads(line)) else b"stop\n")
                answers.flush()
    except BrokenPipeError:
        pass  # the child ended before it had read the answer
    except BaseException as error:  # noqa: BLE001 (raised again where the child is waited for)
        wrong.append(error)
