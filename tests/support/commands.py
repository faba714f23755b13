"""What the end-to-end tests share: the command as a user runs it, in processes of its own."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from pipelines.engine.core.files import lock
from pipelines.engine.tasks.catalog import BUILT_IN
from tests.support import ROOT
from tests.support.kept import kept

#: The environment of a command on JAX.
JAX = {"KERAS_BACKEND": "jax"}

#: Commands are forked from a process that has imported what they need, ten seconds of work that
#: each would do again. It has computed nothing, and TensorFlow starts in each of them anew.
_forked = multiprocessing.get_context("forkserver")
_forked.set_forkserver_preload(
    ["pipelines.cli", "pipelines.workflows.train", "mlflow.pyfunc", "sklearn.metrics"]
    + [f"pipelines.{task}.task" for task in BUILT_IN]
)


class Command:
    """``unfold ARGUMENTS`` under way, in a process of its own."""

    def __init__(
        self,
        home: Path,
        *arguments: str,
        given: str | None = None,
        largest_file: int | None = None,
        err: Path | None = None,
        **environment: str,
    ) -> None:
        self.arguments = arguments
        self._folder = tempfile.TemporaryDirectory()
        self.out = Path(self._folder.name, "out")
        self.err = err or Path(self._folder.name, "err")
        for path in (self.out, self.err):  # whoever waits for a line may look before it starts
            path.touch()
        source = Path(self._folder.name, "in")
        source.write_text(given or "", encoding="utf-8", errors="surrogateescape")
        prepare(home, arguments)
        wanted = os.environ | {"UNFOLD_HOME": str(home)} | environment
        root = str(ROOT)
        with mock.patch.dict(os.environ, {"PYTHONPATH": root, "KERAS_BACKEND": "tensorflow"}):
            self.process = _forked.Process(
                target=_become,
                args=(arguments, Path.cwd(), wanted, source, self.out, self.err, largest_file),
            )
            self.process.start()

    def wait(self, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running: {self.arguments}"
        out, err = (path.read_text(encoding="utf-8") for path in (self.out, self.err))
        self._folder.cleanup()
        return subprocess.CompletedProcess(self.arguments, self.process.exitcode, out, err)


def prepare(home: Path, arguments: Sequence[str]) -> None:
    """Give a home that is about to be tracked an empty MLflow store: its tables take seconds."""
    if arguments[0] in ("train", "compare", "sweep") and not (home / "mlflow.db").exists():
        with contextlib.suppress(FileNotFoundError):  # the command reports it
            home.mkdir(parents=True, exist_ok=True)
            shutil.copy(empty_store(), home / "mlflow.db")


def empty_store() -> Path:
    """Return the database of an MLflow store without runs, made once for all sessions."""
    file = kept() / "mlflow.db"
    with lock(file.with_suffix(".lock"), wait=True):
        if not file.exists():
            new = file.with_name("new.db")
            subprocess.run(
                [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{new}"],
                check=True,
                capture_output=True,
            )
            new.rename(file)
    return file


def _become(
    arguments: Sequence[str],
    folder: Path,
    environment: dict[str, str],
    given: Path,
    out: Path,
    err: Path,
    largest_file: int | None,
) -> None:
    """What a forked process does: nothing else than the command."""
    if largest_file is not None:  # what is longer fails as it does on a disk that is full
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    os.chdir(folder)
    # What the modules have set when they were imported stays.
    set_by_us = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    os.environ.clear()
    os.environ.update(set_by_us | environment)
    for number, (path, mode) in enumerate(((given, "r"), (out, "w"), (err, "w"))):
        with path.open(mode) as file:
            os.dup2(file.fileno(), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if "PYTHONPATH" in environment:  # read when an interpreter starts
        sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    from pipelines.cli import main

    main.main(list(arguments))


def unfold(
    home: Path, *arguments: str, given: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command until it has ended. Another backend needs an interpreter of its own."""
    if environment.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        return Command(home, *arguments, given=given, **environment).wait()
    return anew(home, *arguments, given=given, **environment)


def anew(
    home: Path, *arguments: str, given: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """As `unfold`, from an interpreter that has just started."""
    prepare(home, arguments)
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        env=os.environ | {"UNFOLD_HOME": str(home)} | environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=600,
    )


def unfold_in_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command inside this process, for what trains nothing here."""
    from pipelines.api.process import settings_restored
    from pipelines.cli import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    out, err = io.StringIO(), io.StringIO()
    try:
        with (
            settings_restored(),  # else the store of this command is that of the next one
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main.main(list(arguments))
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def ok(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def variables(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as saved:
        return {name: saved[name] for name in saved.files if name != "meta"}


def interrupt(home: Path, task: str, arguments: list[str], stop: signal.Signals) -> None:
    """Train, and stop the process inside its third epoch."""
    command = Command(home, "train", task, *arguments)
    # Epochs 1 and 2 are on disk then, the third is under way.
    wait_for("epoch 2/", command)
    time.sleep(0.05)
    os.kill(command.process.pid, stop)
    done = command.wait()
    folder = next((home / "runs" / task).glob("2*"))
    status = json.loads((folder / "run.json").read_text())["status"]
    if stop == signal.SIGKILL:
        assert (done.returncode, status) == (-signal.SIGKILL, "running")
    else:
        assert (done.returncode, status) == (130, "interrupted")
        assert f"--resume {folder.name}" in done.stderr
    assert not (folder / "model.keras").exists()


def wait_for(start: str, command: Command) -> None:
    """Until a line of the command's standard error begins with ``start``."""
    while not any(line.startswith(start) for line in command.err.read_text().splitlines()):
        assert command.process.exitcode is None, command.err.read_text()
        time.sleep(0.02)


def resume_and_compare(home: Path, task: str, whole: dict) -> Path:
    """Resume the only run in ``home``: it ends with the weights and scores of ``whole``."""
    folder = next((home / "runs" / task).glob("2*"))
    resumed = ok(unfold(home, "train", task, "--json", "--resume", folder.name))
    assert resumed["scores"] == whole["scores"]
    first, second = (
        variables(f / "checkpoints" / "checkpoint.npz") for f in (Path(whole["folder"]), folder)
    )
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    return folder
