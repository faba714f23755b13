"""What the end-to-end tests share: the command as a user runs it, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def unfold(
    home: Path, *arguments: str, given: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        env=os.environ | {"UNFOLD_HOME": str(home)} | environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=600,
    )


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


def variables(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as saved:
        return {name: saved[name] for name in saved.files if name != "meta"}


def interrupt(home: Path, task: str, arguments: list[str], stop: signal.Signals) -> None:
    """Train, and stop the process inside its third epoch."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "train", task, *arguments],
        env=os.environ | {"UNFOLD_HOME": str(home)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 2/"):  # epochs 1 and 2 are on disk, the third is under way
            break
    time.sleep(0.05)
    process.send_signal(stop)
    rest = process.stderr.read()
    code = process.wait(timeout=120)
    folder = next((home / "runs" / task).glob("2*"))
    status = json.loads((folder / "run.json").read_text())["status"]
    if stop == signal.SIGKILL:
        assert (code, status) == (-signal.SIGKILL, "running")
    else:
        assert (code, status) == (130, "interrupted")
        assert f"--resume {folder.name}" in rest
    assert not (folder / "model.keras").exists()


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
