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
    clean = {
        k: v for k, v in os.environ.items() if k not in ("INPUT", "GPU", "EXTRAS", "MAKEFLAGS")
    }

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "--no-print-directory", f"VENV={tmp_path}", *arguments],
            cwd=ROOT, env=clean | environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return run


@pytest.fixture
def uv(tmp_path):
    """Read the commands that `make` has given to `uv`, one list of arguments each."""
    log = tmp_path / "uv.log"
    for name in ("uv", "python"):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/sh\nprintf '%s\\037' {name} \"$@\" >> {log}; echo >> {log}\n")
        command.chmod(0o755)

    def calls() -> list[list[str]]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        calls = [line.split("\037")[:-1] for line in lines]
        return [arguments for name, *arguments in calls if name == "uv"]

    return calls


def extras_of(calls: list[list[str]]) -> list[str]:
    """The packages, with their extras, that were installed without ``--no-deps``."""
    return [c[-1] for c in calls if c[:2] == ["pip", "install"] and "--no-deps" not in c]


@pytest.mark.parametrize("value", ["music,demo", "music demo", "demo, music"])
def test_extras_are_installed(make, uv, value):
    done = make("setup", f"EXTRAS={value}")
    assert done.returncode == 0, done.stderr
    assert extras_of(uv()) == [".[demo,music]"]


def test_a_later_set_up_installs_the_extras_again(make, uv, tmp_path):
    assert make("setup", "EXTRAS=music").returncode == 0
    assert make("setup", "EXTRAS=bench").returncode == 0
    assert extras_of(uv()) == [".[music]", ".[bench,music]"]
    assert make("setup").returncode == 0
    assert uv() == []
    os.utime(tmp_path / ".ready-cpu", (0, 0))  # as after a change of pyproject.toml
    assert make("setup").returncode == 0
    calls = uv()
    assert calls[0][:2] == ["pip", "sync"]
    assert extras_of(calls) == [".[bench,music]"]


@pytest.mark.parametrize("first", ["#!{0}", "#!/bin/sh\n'''exec' '{0}'"], ids=["path", "shell"])
def test_an_environment_that_was_moved_is_installed_again(make, uv, tmp_path, first):
    """Its programs begin with the path of Python, whatever links lead to the folder."""
    command = tmp_path / "bin" / "unfold"
    (tmp_path / "link").symlink_to(tmp_path)
    for place in (tmp_path, tmp_path / "link"):
        command.write_text(first.format(place / "bin" / "python"))
        assert make("setup").returncode == 0
        assert uv() == []
    command.write_text(first.format("/former place/.venv/bin/python"))
    done = make("setup")
    assert done.returncode == 0, done.stderr
    assert "made in another folder" in done.stderr
    assert "--reinstall" in uv()[0]


@pytest.mark.parametrize("name", ["musik", "gpu", "cpu"])
def test_an_unknown_extra_is_an_error(make, uv, tmp_path, name):
    done = make("setup", f"EXTRAS={name}")
    assert done.returncode == 2
    assert f"error: EXTRAS: no extra {name}; there are: " in done.stderr
    assert extras_of(uv()) == []
    assert not (tmp_path / ".extras").exists()


@pytest.mark.parametrize("target", ["predict-sentiment", "explain-captioning"])
def test_an_input_that_is_missing_is_asked_for(make, target):
    done = make(target)
    assert done.returncode == 2
    assert f'error: give the input: make {target} INPUT="..."' in done.stderr
    assert done.stdout == ""


def test_new_data_that_is_missing_is_asked_for(make):
    done = make("drift-sentiment")
    assert done.returncode == 2
    assert "error: give the new data: make drift-sentiment FILE=new.csv" in done.stderr
    words = make("drift-sentiment", "FILE=new.csv", "FAIL_ABOVE=0.25").stdout.splitlines()
    assert words == ["drift", "sentiment", "--data", "new.csv", "--fail-above", "0.25"]


@pytest.mark.parametrize("text", ["", "costs $5 or $$(HOME)", 'it\'s "so so" \\ #1', "-funny"])
def test_an_input_arrives_as_it_is_given(make, text):
    for done in (make("predict-sentiment", f"INPUT={text}"), make("predict-sentiment", INPUT=text)):
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["predict", "sentiment", "--", text]


def test_a_file_of_inputs_needs_no_input(make):
    done = make("predict-sentiment", "FILE=in it.csv", "OUT=out.csv", "COLUMN=a b", "OVERWRITE=1")
    assert done.returncode == 0, done.stderr
    files = ["--file", "in it.csv", "--out", "out.csv", "--column", "a b", "--overwrite"]
    assert done.stdout.splitlines() == ["predict", "sentiment", *files]
    both = make("predict-sentiment", "FILE=in.csv", "INPUT=x").stdout.splitlines()
    assert both[-4:] == ["--file", "in.csv", "--", "x"]  # the command refuses both together


def test_a_file_is_that_of_the_command_line_only(make):
    assert make("predict-sentiment", FILE="in.csv", OUT="out.csv").returncode == 2


@pytest.mark.parametrize(
    "verb",
    [
        *(
            "train",
            "evaluate",
            "predict",
            "explain",
            "drift",
            "report",
            "export",
            "promote",
            "track",
        ),
        *("compare", "sweep"),
    ],
)
def test_the_name_of_a_model_is_that_of_the_command_line_only(make, verb):
    """Some systems have a variable NAME, with the name of the machine."""
    given = {"predict": ["INPUT=x"], "explain": ["INPUT=x"], "drift": ["FILE=x"]}.get(verb, [])
    words = make(f"{verb}-sentiment", "NAME=tickets", *given).stdout.splitlines()
    assert words[words.index("--name") + 1] == "tickets"
    assert "--name" not in make(f"{verb}-sentiment", *given, NAME="desktop").stdout.splitlines()


def test_an_image_is_of_a_named_model_and_a_kind_of_server(make):
    done = make("image", "NAME=tickets", "KIND=tensorflow-serving")
    assert done.stdout.splitlines() == ["image", "tickets", "--kind", "tensorflow-serving"]
    assert make("image", "NAME=tickets").stdout.splitlines() == ["image", "tickets"]
    done = make("image", NAME="desktop")
    assert done.returncode == 2
    assert "error: give the model: make image NAME=sentiment" in done.stderr


def test_folds_are_an_option_of_compare(make):
    words = make("compare-sentiment", "FOLDS=5").stdout.splitlines()
    assert words == ["compare", "sentiment", "--folds", "5"]
