"""A file of predictions that was killed or met a full disk goes on where it stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.commands import Command, unfold
from tests.support.reviews import write_reviews

ROWS = 12_000


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("in") / "in.csv", ROWS, seed=3)


@pytest.fixture(scope="module")
def undisturbed(source, whole, tmp_path_factory) -> dict[str, bytes]:
    """The files that are not interrupted, by their endings."""
    found = {}
    for ending in (".csv", ".parquet"):
        out = tmp_path_factory.mktemp("out") / f"out{ending}"
        assert start(whole[0], source, out).wait().returncode == 0
        found[ending] = out.read_bytes()
    return found


def start(home: Path, source: Path, out: Path, **options) -> Command:
    return Command(home, *arguments(source, out), **options)


def arguments(source: Path, out: Path) -> list[str]:
    return ["predict", "sentiment", "--file", str(source), "--out", str(out)]


def stop(home: Path, source: Path, out: Path, number: signal.Signals, parts: int) -> str:
    """Stop the command once some parts are there, and return what it said."""
    command = start(home, source, out)
    while not (out.parent / f".{out.name}.parts" / f"part-{parts:08}").exists():
        assert command.process.exitcode is None, command.err.read_text()
        time.sleep(0.002)
    os.kill(command.process.pid, number)
    done = command.wait()
    assert done.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), done.stderr
    assert not out.exists()
    return done.stderr


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_it_goes_on_and_ends_like_one_that_was_not_stopped(
    ending, number, source, whole, undisturbed, tmp_path
):
    out = tmp_path / f"out{ending}"
    said = stop(whole[0], source, out, number, parts=3)
    if number != signal.SIGKILL:
        assert "not complete; the same command goes on after" in said
    stop(whole[0], source, out, signal.SIGKILL, parts=8)
    done = start(whole[0], source, out).wait()
    assert done.returncode == 0, done.stderr
    assert f"{out}: goes on after" in done.stderr
    assert out.read_bytes() == undisturbed[ending]
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_full_disk_is_one_line_and_keeps_the_parts(ending, source, whole, undisturbed, tmp_path):
    out = tmp_path / f"out{ending}"
    # Every part fits, the whole file does not.
    done = start(whole[0], source, out, largest_file=400_000).wait()
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: {out}: cannot be written: File too large"]
    assert not out.exists()
    done = start(whole[0], source, out).wait()
    assert done.returncode == 0, done.stderr
    assert f"goes on after {ROWS:,} of {ROWS:,} inputs" in done.stderr
    assert out.read_bytes() == undisturbed[ending]


def test_a_disk_that_takes_no_part_leaves_nothing_half_written(source, whole, tmp_path):
    out = tmp_path / "out.csv"
    done = start(whole[0], source, out, largest_file=10_000).wait()
    assert done.returncode == 1, done.stderr
    assert f"error: {out}: cannot be written: File too large" in done.stderr
    assert "goes on after 0 of" in done.stderr
    folder = tmp_path / ".out.csv.parts"
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_second_process_on_the_same_file_is_refused(source, whole, tmp_path):
    out = tmp_path / "out.csv"
    first = start(whole[0], source, out)
    while not (tmp_path / ".out.csv.parts" / "part-00000000").exists():
        assert first.process.exitcode is None, first.err.read_text()
        time.sleep(0.002)
    os.kill(first.process.pid, signal.SIGSTOP)
    done = unfold(whole[0], *arguments(source, out))
    os.kill(first.process.pid, signal.SIGCONT)
    assert first.wait().returncode == 0
    assert done.returncode == 2
    assert f"{out}: another process is writing it" in done.stderr
