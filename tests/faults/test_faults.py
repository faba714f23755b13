"""Processes that are killed, disks that are full, stores that are gone: nothing is lost by it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from mlflow import MlflowClient

from tests.support import photos as captions
from tests.support.commands import Command, ok, resume_and_compare, unfold, wait_for
from tests.support.processes import server
from tests.support.reviews import small

EPOCHS = 4


#: Kills at random moments: `make faults` asks for more of them.
KILLS = int(os.environ.get("UNFOLD_KILLS", "3"))


@pytest.fixture(scope="module")
def reviews(trained_once) -> Path:
    return Path(trained_once("sentiment").source)


@pytest.fixture(scope="module")
def whole(trained_once) -> tuple[Path, dict, float]:
    """A home with an undisturbed run, what its training printed, and its seconds."""
    found = trained_once("sentiment")
    seconds = json.loads((found.folder / "run.json").read_text())["total_seconds"]
    return found.home, found.result, seconds


def fresh_store(home: Path, whole: Path) -> Path:
    """A home whose MLflow store has its tables, which cost seconds to make, and nothing else."""
    home.mkdir()
    shutil.copy(whole / "mlflow.db", home)
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    for run in client.search_runs([client.get_experiment_by_name("sentiment").experiment_id]):
        client.delete_run(run.info.run_id)
    for version in client.search_model_versions("name='unfold-sentiment'"):
        client.delete_model_version(version.name, version.version)
    return home


def assert_tracked_once(home: Path) -> None:
    """One run in MLflow, each epoch of each metric once, one registered version."""
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("sentiment")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FINISHED"
    for name in tracked.data.metrics:
        steps = [metric.step for metric in client.get_metric_history(tracked.info.run_id, name)]
        by_epoch = not name.startswith(("test/", "best/", "cost/"))
        assert steps == (list(range(1, EPOCHS + 1)) if by_epoch else [0]), name
    (version,) = client.search_model_versions("name='unfold-sentiment'")
    assert version.run_id == tracked.info.run_id


def assert_whole_or_absent(home: Path) -> None:
    for folder in (home / "runs" / "sentiment").glob("2*"):
        json.loads((folder / "run.json").read_text())
        if (folder / "savedmodel").exists():
            tf.saved_model.load(str(folder / "savedmodel"))


def assert_recovers(home: Path, reviews: Path, whole: dict) -> None:
    """What was begun in ``home`` ends like ``whole``; if nothing was, it is done now."""
    assert_whole_or_absent(home)
    begun = list((home / "runs" / "sentiment").glob("2*"))
    if not begun:
        ok(unfold(home, "train", "sentiment", "--json", *small(reviews)))
    elif json.loads((begun[0] / "run.json").read_text())["status"] == "finished":
        done = unfold(home, "train", "sentiment", "--resume", begun[0].name)
        assert "is finished; there is nothing to resume" in done.stderr
        ok_or_sent = unfold(home, "track", "sentiment", "--run", begun[0].name)
        assert ok_or_sent.returncode == 0, ok_or_sent.stderr
    else:
        folder = resume_and_compare(home, "sentiment", whole)
        left = [p for p in folder.rglob(".*") if p.name != ".lock"]
        assert left == []
    assert_tracked_once(home)


def kill_when(home: Path, reviews: Path, seen: str, wait: float) -> None:
    """Train, and kill ``wait`` seconds after a line begins with ``seen``, or a file is there."""
    command = Command(home, "train", "sentiment", *small(reviews))
    if seen.startswith("*"):
        while not list((home / "runs" / "sentiment").glob(f"2*/{seen[1:]}")):
            if command.process.exitcode is not None:
                break
            time.sleep(0.005)
    elif seen:
        wait_for(seen, command)
    time.sleep(wait)
    if command.process.exitcode is None:
        os.kill(command.process.pid, signal.SIGKILL)
    command.wait()


@pytest.mark.parametrize("seen", ["*.savedmodel.*", "*figures/learning_curves.png"])
def test_killed_in_export_and_registration(seen, reviews, whole, tmp_path):
    home = fresh_store(tmp_path / "home", whole[0])
    kill_when(home, reviews, seen, 0.2)
    assert_recovers(home, reviews, whole[1])


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_any_moment(number, reviews, whole, tmp_path):
    """A third each: anywhere, between the epochs, and after training (export, registration)."""
    rng = random.Random(number)
    home = fresh_store(tmp_path / "home", whole[0])
    seen = ["", "epoch 1/", f"epoch {EPOCHS}/"][number % 3]
    kill_when(home, reviews, seen, rng.uniform(0, whole[2] if not seen else whole[2] / 2))
    assert_recovers(home, reviews, whole[1])


@pytest.mark.parametrize("grids", [1, 60])
def test_killed_while_the_cache_of_pictures_is_written(grids, photos, captioned, tmp_path):
    """What is in the cache then is whole, and the next training makes what is missing: the same but
    for the last bit of some numbers, which depends on what was looked at beside a picture."""
    home = tmp_path / "home"
    home.mkdir()
    command = Command(home, "train", "captioning", *captions.small(photos))
    while len(cached(home)) < grids:
        assert command.process.exitcode is None, command.err.read_text()
        time.sleep(0.002)
    os.kill(command.process.pid, signal.SIGKILL)
    command.wait()
    left, whole = cached(home), cached(captioned[0])
    assert grids <= len(left) < len(whole)
    for name, path in left.items():
        assert path.read_bytes() == whole[name].read_bytes()
    again = ok(unfold(home, "train", "captioning", "--json", *captions.small(photos)))
    now = cached(home)
    assert now.keys() == whole.keys()
    for name, path in now.items():
        made, expected = (np.frombuffer(p.read_bytes()[:-4], "<f2") for p in (path, whole[name]))
        np.testing.assert_allclose(made, expected, rtol=2e-3, atol=2e-3)
    assert again["scores"] == pytest.approx(captioned[1]["scores"], rel=0.02)


@pytest.fixture(scope="module")
def photos(trained_once) -> str:
    return trained_once("captioning").source


@pytest.fixture(scope="module")
def captioned(trained_once) -> tuple[Path, dict]:
    found = trained_once("captioning")
    return found.home, found.result


def cached(home: Path) -> dict[str, Path]:
    """The finished files of the features' cache, by name."""
    return {p.name: p for p in (home / "features").rglob("[!.]*") if p.is_file()}


@pytest.mark.parametrize("largest", [10_000, 60_000, 200_000])  # what it says fits
def test_full_disk_is_said_in_one_line(largest, reviews, whole, tmp_path):
    home = fresh_store(tmp_path / "home", whole[0])
    command = Command(home, "train", "sentiment", *small(reviews), largest_file=largest)
    done = command.wait()
    assert done.returncode in (0, 1), done.stderr
    if done.returncode:
        assert "Traceback" not in done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert "File too large" in errors[0]
    assert_whole_or_absent(home)
    for folder in (home / "runs" / "sentiment").glob("2*"):
        if json.loads((folder / "run.json").read_text())["status"] != "finished":
            resume_and_compare(home, "sentiment", whole[1])


def test_the_mlflow_server_is_gone_for_a_while(reviews, whole, tmp_path):
    home = fresh_store(tmp_path / "home", whole[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    command = ["-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(home / "mlartifacts")]
    done = unfold(home, "train", "sentiment", "--json", *small(reviews), **address)
    result = ok(done)
    assert result["scores"] == whole[1]["scores"]
    assert done.stderr.count("can be sent later") == 1
    with server(command, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"):
        until = time.monotonic() + 90
        while unfold(home, "track", "sentiment", **address).returncode:
            assert time.monotonic() < until
    assert_tracked_once(home)


def test_a_second_process_on_the_same_run_is_refused(reviews, whole, tmp_path):
    home = fresh_store(tmp_path / "home", whole[0])
    first = Command(home, "train", "sentiment", *small(reviews, "train.epochs=300"))
    wait_for("epoch 1/", first)
    (folder,) = (home / "runs" / "sentiment").glob("2*")
    second = unfold(home, "train", "sentiment", "--resume", folder.name)
    assert second.returncode == 2
    assert f"run {folder.name} is being trained already" in second.stderr
    os.kill(first.process.pid, signal.SIGKILL)
    first.wait()


def test_a_home_that_cannot_be_written_to_is_one_line(reviews):
    done = unfold(Path("/proc/nowhere"), "train", "sentiment", *small(reviews))
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "the runs folder: cannot write" in line]
    assert "Traceback" not in done.stderr
