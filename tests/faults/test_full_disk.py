"""A disk that is full, or cannot be written to, is one line, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import Command, resume_and_compare, unfold
from tests.support.recovery import (
    assert_whole_or_absent,
    fresh_store,
)
from tests.support.reviews import small


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


def test_a_home_that_cannot_be_written_to_is_one_line(reviews):
    done = unfold(Path("/proc/nowhere"), "train", "sentiment", *small(reviews))
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "the runs folder: cannot write" in line]
    assert "Traceback" not in done.stderr
