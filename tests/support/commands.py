"""What the end-to-end tests share: the command as a user runs it, in processes of its own."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from pipelines.engine.tasks.catalog import BUILT_IN
from tests.support import ROOT

#: The environment of a command on JAX. These trainings are short: most of one is compiling.
JAX = {
    "KERAS_BACKEND": "jax",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
}

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
        **environment: str,
    ) -> None:
        self.arguments = arguments
        self._folder = tempfile.TemporaryDirectory()
        self.out, self.err = (Path(self._folder.name, name) for name in ("out", "err"))
        for path in (self.out, self.err):  # whoever waits for a line may look before it starts
            path.touch()
        source = Path(self._folder.name, "in")
        source.write_text(given or "", encoding="utf-8", errors="surrogateescape")
        wanted = os.environ | {"UNFOLD_HOME": str(home)} | environment
        root = str(ROOT)
        with mock.patch.dict(os.environ, {"PYTHONPATH": root, "KERAS_BACKEND": "tensorflow"}):
            self.process = _forked.Process(
                target=_become,
                args=(arguments, Path.cwd(), wanted, source, self.out, self.err, largest_file),
            )
            self.process.start()

    def wait(self) -> subprocess.CompletedProcess[str]:
        self.process.join(600)
        assert self.process.exitcode is not None, f"still running: {self.arguments}"
        out, err = (path.read_text(encoding="utf-8") for path in (self.out, self.err))
        self._folder.cleanup()
        return subprocess.CompletedProcess(self.arguments, self.process.exitcode, out, err)


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
    from pipelines.cli import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
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


def stands_alone(
    code: str, *arguments: str, folder: Path, banned: Sequence[str] = (), **environment: str
) -> dict:
    """What ``code`` prints, as JSON, where this project cannot be imported.

    In a process of its own that works in ``folder``; the modules ``banned`` are missing too.
    """
    missing = f"import sys; sys.modules |= dict.fromkeys({['layers', 'pipelines', *banned]})\n"
    done = subprocess.run(
        [sys.executable, "-c", missing + code, *arguments],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


_MLFLOW = """
import threading, time, urllib.request
import mlflow, uvicorn
from mlflow.pyfunc.scoring_server import init
app = init(mlflow.pyfunc.load_model(f"models:/unfold-{sys.argv[1]}/1"))
server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.02)
port = server.servers[0].sockets[0].getsockname()[1]
url, kind = f"http://127.0.0.1:{port}/invocations", {"Content-Type": "application/json"}
asked = urllib.request.Request(url, sys.argv[2].encode(), kind)
print(urllib.request.urlopen(asked).read().decode())
"""


def asked_of_mlflow(home: Path, task: str, rows: list[dict], folder: Path) -> list[dict]:
    """The answers of the registered model to rows of JSON, over HTTP.

    The application of `mlflow models serve`, in a process that has nothing of this project.
    """
    body = json.dumps({"dataframe_records": rows})
    store = f"sqlite:///{home / 'mlflow.db'}"
    return stands_alone(_MLFLOW, task, body, folder=folder, MLFLOW_TRACKING_URI=store)[
        "predictions"
    ]


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
