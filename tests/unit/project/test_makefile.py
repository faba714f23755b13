"""What `make` hands on to the command."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support import ROOT


@pytest.fixture
def make(tmp_path):
    """`make` with a set-up that is done, whose command prints what it is given, a line each."""
    command = tmp_path / "bin" / "unfold"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    command.chmod(0o755)
    (tmp_path / ".ready-cpu").touch()
    clean = {k: v for k, v in os.environ.items() if k not in ("INPUT", "GPU", "MAKEFLAGS")}

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "--no-print-directory", f"VENV={tmp_path}", *arguments],
            cwd=ROOT, env=clean | environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("target", ["predict-sentiment", "explain-captioning"])
def test_an_input_that_is_missing_is_asked_for(make, target):
    done = make(target)
    assert done.returncode == 2
    assert f'error: give the input: make {target} INPUT="..."' in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("text", ["", "costs $5 or $$(HOME)", 'it\'s "so so" \\ #1', "-funny"])
def test_an_input_arrives_as_it_is_given(make, text):
    for done in (make("predict-sentiment", f"INPUT={text}"), make("predict-sentiment", INPUT=text)):
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["predict", "sentiment", "--", text]
