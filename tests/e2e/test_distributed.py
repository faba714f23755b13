"""One training on several devices ends where one device ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipelines.engine.config import loader as configs
from pipelines.engine.core.errors import ProcessLostError, UserError
from pipelines.engine.training.cluster import Cluster, Location
from pipelines.engine.training.distribution import pad_batch
from pipelines.engine.training.losses import ClassCrossentropy, MaskedCrossentropy, PerToken
from pipelines.sentiment.config import SentimentConfig
from tests.support import ROOT, prices
from tests.support.commands import JAX, anew, ok, variables
from tests.support.reviews import small, write_reviews

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    return prices.write_prices(tmp_path_factory.mktemp("data"))


#: Little for JAX to compile, which is most of the time of these trainings.
QUICK = ["train.health=0", "train.buckets=1", "model.bidirectional=false"]


def together(
    home: Path, *arguments: str, second: list[str] | None = None
) -> list[subprocess.Popen[str]]:
    """The command in two processes that train together, the second one told something else where
    it cannot see what the first one can."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = ["--coordinator", f"127.0.0.1:{free.getsockname()[1]}", "--processes", "2"]
    command = [sys.executable, "-m", "pipelines.cli", "train"]
    told = [arguments, arguments if second is None else second]
    return [
        subprocess.Popen(
            [*command, *told[number], *place, "--process-id", str(number)],
            # The second one is to write nothing: it cannot.
            env=os.environ | JAX | {"UNFOLD_HOME": str(home) if number == 0 else "/dev/null"},
            stdout=subprocess.PIPE, stderr=(home / f"err{number}").open("w"), text=True,
        )
        for number in (0, 1)
    ]  # fmt: skip


def stop_after(home: Path, line: str, *arguments: str) -> None:
    """Train in one process, and interrupt it once a line of its progress begins so."""
    said = home / "progress"
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "train", *arguments],
        env=os.environ | JAX | {"UNFOLD_HOME": str(home)},
        stdout=subprocess.DEVNULL, stderr=said.open("w"),
    )  # fmt: skip
    while line not in said.read_text():
        assert process.poll() is None, said.read_text()
        time.sleep(0.02)
    process.terminate()
    assert process.wait(timeout=300) == 130, said.read_text()


def checkpoint(folder: str | Path) -> dict[str, np.ndarray]:
    return variables(Path(folder) / "checkpoints" / "checkpoint.npz")


def assert_same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def chosen(source, tmp_path_factory) -> list[str]:
    """The options of a training that is long enough to be stopped in its middle."""
    file = prices.fresh(tmp_path_factory.mktemp("config"))
    settings = [*prices.small(source, "train.epochs=6"), "--set", "data.ratios={}"]
    return ["--config", str(file), *settings, "--set", "train.health=0"]


@pytest.fixture(scope="module")
def alone(chosen, tmp_path_factory) -> dict:
    """What one process prints that trains alone."""
    home = tmp_path_factory.mktemp("alone")
    return ok(anew(home, "train", "forecasting", "--json", *chosen, **JAX))


def assert_ends_like(alone: dict, folder: str | Path, scores: dict[str, float]) -> None:
    assert_same(checkpoint(alone["folder"]), checkpoint(folder))
    for name, score in alone["scores"].items():
        assert scores[name] == pytest.approx(score, rel=1e-3, abs=1e-4), name


def test_two_processes_train_as_one_does(chosen, alone, tmp_path):
    processes = together(
        tmp_path, "forecasting", "--json", *chosen, "--set", "train.distribute=jax"
    )
    out, silent = (process.communicate(timeout=600)[0] for process in processes)
    assert [p.returncode for p in processes] == [0, 0], (tmp_path / "err0").read_text()
    assert silent == ""
    result = json.loads(out)
    assert_ends_like(alone, result["folder"], result["scores"])


def test_a_lost_process_ends_the_other_and_one_alone_goes_on(tmp_path):
    reviews = write_reviews(tmp_path / "reviews.csv")
    chosen = small(reviews, *QUICK, "train.distribute=jax")
    # More epochs than there is time for until the second one, which looks every 2 s, is gone.
    long = ["--set", "train.epochs=120", "--set", "train.patience=null"]
    first, second = together(tmp_path, "sentiment", *chosen, *long)
    said = tmp_path / "err0"
    while "epoch 2/" not in said.read_text():
        assert first.poll() is None, said.read_text()
        time.sleep(0.05)
    second.kill()  # it stands by for the one that computes, which ends with it
    second.wait()
    assert first.wait(timeout=300) == 1, said.read_text()
    errors = [line for line in said.read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: process 1 of this training is lost; continue from")
    (folder,) = (tmp_path / "runs" / "sentiment").glob("2*")
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    trained = len(json.loads((folder / "history.json").read_text()))
    stop_after(tmp_path, f"epoch {trained + 2}/", "sentiment", "--resume", folder.name)
    assert len(json.loads((folder / "history.json").read_text())) > trained


LEAVING = """
import sys, time
from pipelines.engine.training import cluster
joined = cluster.join(cluster.Location(sys.argv[1], 2, int(sys.argv[2])))
cluster._HEARTBEAT, cluster._LOST_AFTER = 0.5, 5.0
if joined.process_id == 0:
    time.sleep(7)
joined.require_equal("config", "the same")
if joined.process_id == 0:
    time.sleep(7)  # it writes what they have trained
joined.leave()
cluster.exit_process(0)
"""


def test_the_others_wait_for_the_one_that_writes():
    """Longer than until a silent process counts as lost, and than one look for its word takes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LEAVING, address, number],
            env=os.environ | JAX, stderr=subprocess.PIPE, text=True,
        )
        for number in "01"
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "DEADLINE" not in said[1]


def test_what_one_began_two_go_on_with(chosen, alone, tmp_path):
    stop_after(tmp_path, "epoch 2/", "forecasting", *chosen, "--set", "train.distribute=jax")
    (folder,) = (tmp_path / "runs" / "forecasting").glob("2*")
    assert len(json.loads((folder / "history.json").read_text())) < 6
    processes = together(
        tmp_path, "forecasting", "--json", "--resume", folder.name,
        second=["forecasting", "--config", str(folder / "config.yaml")],
    )  # fmt: skip
    out, _ = (process.communicate(timeout=600)[0] for process in processes)
    assert [p.returncode for p in processes] == [0, 0], (tmp_path / "err0").read_text()
    assert_ends_like(alone, folder, json.loads(out)["scores"])


@pytest.mark.parametrize("lost", [True, False])
def test_a_connection_that_breaks_is_a_loss_and_another_error_stays(lost):
    pytest.importorskip("jax")
    cluster = object.__new__(Cluster)
    cluster._loss, cluster._raised = "process 1 is lost", False
    words = "UNKNOWN: Gloo AllGather failed: Connection closed by peer" if lost else "a shape"
    kind, said = (ProcessLostError, "is lost") if lost else (ValueError, "a shape")
    with pytest.raises(kind, match=said), cluster.detect_loss():
        raise ValueError(words)
    assert cluster._raised == lost


def test_two_devices_of_one_process_train_as_one_does(tmp_path):
    """In a process of its own, whose processor looks like two devices."""
    script = ROOT / "tests/support/mirrored.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, apart in json.loads(done.stdout.splitlines()[-1]).items():
        assert apart["weights"] < 1e-6, name
        assert apart["record"] < 1e-5, name
        assert apart["clipped"] == 1.0  # the case in which Keras would go another way


# Rows without weight


def test_filled_up_rows_have_no_weight():
    inputs = {"ids": tf.constant([[1, 2], [3, 4], [5, 6]])}
    got, targets, weights = pad_batch((inputs, tf.constant([7, 8, 9])), 2)
    np.testing.assert_array_equal(got["ids"], [[1, 2], [3, 4], [5, 6], [5, 6]])
    np.testing.assert_array_equal(targets, [7, 8, 9, 9])
    np.testing.assert_array_equal(weights, [1, 1, 1, 0])
    whole = pad_batch((inputs, tf.constant([7, 8, 9])), 3)
    np.testing.assert_array_equal(whole[2], [1, 1, 1])


def test_a_row_without_weight_changes_no_loss_and_no_metric():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 4, 6)).astype(np.float32)
    ids = rng.integers(0, 6, (5, 4))
    weights = np.array([1, 1, 1, 1, 0], np.float32)
    for loss, targets, outputs in (
        (MaskedCrossentropy(0.1), ids, logits),
        (ClassCrossentropy(), ids[:, 0], logits[:, 0]),
    ):
        some = float(loss(targets[:4], outputs[:4]))
        assert float(loss(targets, outputs, weights)) == pytest.approx(some, rel=1e-5)
        assert float(loss(targets, outputs)) != pytest.approx(some, rel=1e-3)
    one, other = PerToken("nats"), PerToken("nats")
    one.update_state(ids, logits, weights)
    other.update_state(ids[:4], logits[:4])
    assert float(one.result()) == pytest.approx(float(other.result()), rel=1e-5)


# What is asked for


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, None, None), None),
        (("a:1", 2, 1), Location("a:1", 2, 1)),
        (("[::1]:99", 1, 0), Location("[::1]:99", 1, 0)),
    ],
)
def test_a_place_from_the_command_line(given, expected):
    assert Location.resolve(*given) == expected


def test_a_place_from_the_environment(monkeypatch):
    for name, value in (
        ("JOB_ADDRESSES", "a:1,b:1"), ("NUM_PROCESSES", "2"), ("PROCESS_ID", "1")
    ):  # fmt: skip
        monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    assert Location.resolve(None, None, None) == Location("a:1", 2, 1)
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "one")
    with pytest.raises(UserError, match="must be numbers"):
        Location.resolve(None, None, None)


def test_a_launcher_says_the_place(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "3")
    place = Location.resolve(None, None, None)
    assert place == Location(None, None, None)
    assert place.is_follower
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert Location.resolve(None, None, None) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a:1", 2, None), "all three must be given"),
        (("a", 2, 0), "a is not HOST:PORT"),
        (("a:x", 2, 0), "a:x is not HOST:PORT"),
        (("a:99999", 2, 0), "is not HOST:PORT"),
        (("a:1", 2, 2), "process 2 of 2"),
    ],
)
def test_half_a_place_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        Location.resolve(*given)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("MultiWorkerMirroredStrategy", "does not train one model"),
        ("multi_worker_mirrored", "to train on several hosts use: jax"),
        ("ParameterServerStrategy", "does not train under ParameterServer"),
        ("tpu", "must be 'none', 'mirrored' or 'jax'"),
    ],
)
def test_what_does_not_work_is_refused_with_the_reason(asked, why, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(f"data: {{source: x}}\ntrain: {{distribute: {asked}}}\n")
    with pytest.raises(UserError, match=why):
        configs.load(file, SentimentConfig)
