"""A training that is killed loses nothing: resumed, it ends like one that was not."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.commands import Command, unfold, wait_for
from tests.support.recovery import (
    EPOCHS,
    assert_recovers,
    fresh_store,
)
from tests.support.reviews import small

#: Kills at random moments: `make faults` asks for more of them.
KILLS = int(os.environ.get("UNFOLD_KILLS", "3"))


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
