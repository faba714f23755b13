"""The commands and options of ``unfold``, and its exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipelines.cli import main
from pipelines.cli.predict import split_lines
from pipelines.engine.core.addresses import listen
from pipelines.engine.tasks.catalog import BUILT_IN
from tests.support import ROOT

#: Every option that users have; each command also has ``--help``.
OPTIONS = {
    "train": "--config --name --set --resume --coordinator --processes --process-id --json",
    "evaluate": "--run --name --config --json --set",
    "predict": "--file --out --column --overwrite --run --name --config --json --set --attention "
    "--chart --midi --score",
    "explain": "--run --name --config --json --set",
    "drift": "--data --run --name --config --json --set --fail-above",
    "report": "--run --name --config --json",
    "export": "--run --name --config --json",
    "promote": "--run --name --force --json",
    "track": "--run --name",
    "serve": "--config --host --port --grpc-port --set",
    "image": "--kind",
    "compare": "--config --name --set --seeds --folds --only --json",
    "sweep": "--config --name --space --set --trials --workers --storage --json",
    "demo": "--host --port",
    "lab": "--fast --only --seed",
    "ui": "--host --port",
}
WITHOUT_TASK = ("serve", "image", "demo", "lab", "ui")


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main.main(list(arguments))
    return int(end.value.code or 0)


def test_help_lists_every_command(capsys):
    assert exit_code("--help") == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line.startswith(" " * 4)] == [*OPTIONS]


@pytest.mark.parametrize("command", OPTIONS)
def test_help_of_a_command_names_its_options(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert exit_code(command, "--help") == 0
    out = capsys.readouterr().out
    words = out[out.index("options:") :].split()
    assert [word for word in words if word.startswith("--")] == [
        "--help",
        *OPTIONS[command].split(),
    ]
    assert ("TASK" in out.split()) is (command not in WITHOUT_TASK)
    assert (", ".join(BUILT_IN) in out) is (command not in WITHOUT_TASK)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["trian", "unfold --help"]),
        (["evaluate"], ["TASK", "unfold evaluate --help"]),
        (["sweep", "sentiment", "--trials", "0"], ["--trials", "'0'", "unfold sweep --help"]),
        (["evaluate", "sentimental"], ["sentimental", *BUILT_IN]),
        (["train", "sentiment", "--resume", "x", "--set", "seed=1"], ["--resume", "--set"]),
        (["train", "sentiment", "--processes", "2"], ["--coordinator", "--process-id"]),
        (["predict", "sentiment", "fine", "--midi", "tune.mid"], ["--midi", "sentiment"]),
        (["predict", "generation", "--midi", "tune.mid", "--", "A", "B"], ["--midi", "2 inputs"]),
        (["predict", "sentiment", "\udcff"], ["input 1", "UTF-8"]),
        (["predict", "sentiment", "fine", "--set", "seed=1"], ["--set seed=1", "sentiment"]),
    ],
)
def test_an_error_of_the_user_is_one_line_and_exit_code_2(arguments, words, capsys):
    assert exit_code(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    message = " ".join(captured.err.split())
    assert message.startswith("error: ")
    for word in words:
        assert word in message


def test_parsing_imports_neither_tensorflow_nor_keras():
    code = (
        "import sys; from pipelines.cli.main import make_parser; make_parser();"
        "print(sorted({'tensorflow', 'keras', 'jax', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_package_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: unfold ")


def test_without_gradio_the_demo_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert exit_code("demo") == 2
    assert "make demo" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["ui", "demo"])
def test_port_in_use(command, capfd, tmp_path, monkeypatch):
    if command == "demo":
        pytest.importorskip("gradio")
    monkeypatch.setenv("UNFOLD_HOME", str(tmp_path))
    with listen("127.0.0.1", 0) as listener:
        port = str(listener.getsockname()[1])
        assert exit_code(command, "--port", port) == 2
    err = capfd.readouterr().err
    assert f"127.0.0.1:{port}: the port is in use" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_a_folder_without_runs_is_named_and_stays_empty(command, capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("UNFOLD_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert exit_code(command, "sentiment", *(["x"] if command == "predict" else [])) == 2
    err = capfd.readouterr().err
    assert str(tmp_path) in err
    assert "unfold train sentiment" in err
    assert "UNFOLD_HOME" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["ui", "--port", "0"], ["serve"], ["train", "--help"]])
def test_an_empty_folder_stays_empty(arguments, tmp_path, monkeypatch):
    monkeypatch.delenv("UNFOLD_HOME")
    monkeypatch.chdir(tmp_path)
    assert exit_code(*arguments) == (0 if "--help" in arguments else 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"\xef\xbb\xbfa\r\nb\r\n", ["a", "b"]),
        (b"a\rb\n\nc", ["a\rb", "", "c"]),
        (b"\xff\r\n", ["\udcff"]),
    ],
)
def test_lines_of_stdin(data, lines):
    assert split_lines(data) == lines
