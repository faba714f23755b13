"""The command as a user runs it: real processes, real files, a real MLflow store."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

from pipelines.cli import main
from pipelines.engine.runs.run import Run
from tests.support.commands import (
    Command,
    interrupt,
    ok,
    resume_and_compare,
    unfold,
    variables,
)
from tests.support.recovery import assert_tracked_once
from tests.support.reviews import small, write_reviews


@pytest.fixture
def unfold_here(tmp_path, monkeypatch, capfd):
    """The command inside this process, for what ends before any training."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main.main(list(arguments))
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, int(end.value.code or 0), out, err)

    monkeypatch.setenv("UNFOLD_HOME", str(tmp_path))
    return run


@pytest.fixture(scope="module")
def reviews(trained_once) -> Path:
    return Path(trained_once("sentiment").source)


@pytest.fixture(scope="module")
def trained(trained_once) -> tuple[Path, dict]:
    """A home with one finished run, and what ``train --json`` printed."""
    found = trained_once("sentiment")
    return found.home, found.result


def test_training_learns_what_the_words_say(trained):
    _, result = trained
    assert result["scores"]["accuracy"] >= 0.95
    assert {name for name in result["scores"] if "/" not in name} == {
        "accuracy", "macro_f1", "roc_auc", "loss",
        "calibration_error", "calibration_error_before", "temperature",
    }  # fmt: skip
    assert {name for name in result["scores"] if "/" in name} == {
        f"{score}/{label}"
        for score in ("precision", "recall", "f1", "support")
        for label in ("negative", "positive")
    }


def test_a_run_folder_holds_all_there_is_to_know(trained):
    _, result = trained
    folder = Path(result["folder"])
    info = json.loads((folder / "run.json").read_text())
    assert info["status"] == "finished"
    assert info["scores"] == result["scores"]
    assert info["data"]["records"] == {"train": 280, "validation": 60, "test": 60}
    assert info["backend"] == "tensorflow"
    assert info["versions"]["keras"]
    for name in (
        "config.yaml", "history.json", "model.keras", "processor/vocabulary.json",
        "figures/learning_curves.png", "figures/confusion_matrix.png", "figures/reliability.png",
        "figures/explained_1.html", "figures/explained_2.png", "figures/coverage.png",
        "figures/classes.png", "tables/classes.csv", "tables/thresholds.csv",
        "tables/worst_mistakes.csv", "tables/examples_by_epoch.csv", "savedmodel/saved_model.pb",
    ):  # fmt: skip
        assert (folder / name).stat().st_size > 0, name


def test_evaluate_on_a_file_of_ones_own(trained, tmp_path):
    home, _ = trained
    other = write_reviews(tmp_path / "other.csv", rows=50, seed=9)
    result = ok(unfold(home, "evaluate", "sentiment", "--json", "--set", f"data.test={other}"))
    assert result["records"] == 50
    assert result["accuracy"] >= 0.9


def test_predict_answers_in_json_and_as_a_table(trained):
    home, _ = trained
    texts = ["a brilliant and touching film", "the plot was dull and awful"]
    answer = ok(unfold(home, "predict", "sentiment", "--json", *texts))
    assert [p["label"] for p in answer["predictions"]] == ["positive", "negative"]
    one = ok(unfold(home, "predict", "sentiment", "--json", "--", "-funny"))
    assert one["text"] == "-funny"
    assert one["score"] == pytest.approx(max(one["probabilities"].values()))
    assert sum(one["probabilities"].values()) == pytest.approx(1)
    table = unfold(home, "predict", "sentiment", texts[0])
    assert table.returncode == 0
    assert table.stdout.index("positive") < table.stdout.index("negative")


def test_explain_shows_what_predict_answers(trained_once, monkeypatch, capfd, tmp_path):
    found = trained_once("sentiment")
    home, result = found.copy(tmp_path), found.result
    text = "a brilliant and touching film"
    monkeypatch.setenv("UNFOLD_HOME", str(home))

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main.main(["explain", "sentiment", *arguments])
        out, err = capfd.readouterr()
        assert end.value.code == 0, err
        return out

    paths = [Path(line) for line in run("--", text).splitlines()]
    assert [p.suffix for p in paths] == [".html", ".png"]
    assert {p.parent for p in paths} == {home / "explain" / "sentiment"}
    told = json.loads(run("--json", "--", text))
    assert told["files"] == [str(p) for p in paths]
    assert told["run"] == result["run"]
    (part,) = told["parts"]
    assert part["tokens"] == text.split()
    answer = ok(unfold(home, "predict", "sentiment", "--json", text))
    for label, curve in part["curves"].items():
        assert curve[-1] == pytest.approx(answer["probabilities"][label], abs=1e-5)
    assert [layer["backward"] for layer in part["layers"]] == [False, True]
    for layer in part["layers"]:
        assert np.shape(layer["values"]["forget_gate"]) == (5, 6)


def test_a_model_of_another_version_is_not_explained(trained, unfold_here, tmp_path):
    _, result = trained
    folder = shutil.copytree(result["folder"], tmp_path / "runs" / "sentiment" / result["run"])
    note = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(note | {"git_commit": "0123456789abcdef"}))
    removed = type("RemovedLayer", (keras.layers.Dense,), {})
    keras.Sequential([keras.Input((3,)), removed(2)]).save(folder / "model.keras")
    message = refused(unfold_here("explain", "sentiment", "funny"))
    assert f"run {result['run']} was made by another version at commit 01234567" in message
    assert "unfold train sentiment" in message
    assert not (tmp_path / "explain" / "sentiment").exists() or not list(
        (tmp_path / "explain" / "sentiment").iterdir()
    )


def test_predict_takes_any_text(trained):
    home, _ = trained
    texts = ["", "   ", "😀😀🎉", "word " * 50_000, "日本語", "\x00\x07", "<br />"]
    answers = ok(unfold(home, "predict", "sentiment", "--json", "-", given="\n".join(texts) + "\n"))
    assert [a["text"] for a in answers["predictions"]] == texts
    for answer in answers["predictions"]:
        assert 0.5 <= answer["score"] <= 1


def test_export_versions_rise_and_are_whole(trained_once, tmp_path):
    found = trained_once("sentiment")
    home, result = found.copy(tmp_path), found.result
    first = ok(unfold(home, "export", "sentiment", "--json"))
    second = ok(unfold(home, "export", "sentiment", "--json", "--run", result["run"][-4:]))
    assert Path(second["folder"]).name == str(int(Path(first["folder"]).name) + 1)
    assert (Path(second["folder"]) / "saved_model.pb").exists()


def test_the_saved_config_reproduces_the_run_to_the_bit(trained, reviews, tmp_path):
    _, result = trained
    config = Path(result["folder"]) / "config.yaml"
    again = ok(unfold(tmp_path, "train", "sentiment", "--json", "--config", str(config)))
    assert again["scores"] == result["scores"]
    first, second = (
        variables(Path(r["folder"]) / "checkpoints" / "checkpoint.npz") for r in (result, again)
    )
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_equals_uninterrupted(stop, trained, reviews, tmp_path, monkeypatch):
    """Stopped by force inside an epoch, resumed, and the same weights to the bit.

    The folder has characters in its name that mean something else in a URI.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = tmp_path / "folders" / "mine? 50%20 ü #1"
    interrupt(home, "sentiment", small(reviews), stop)
    folder = resume_and_compare(home, "sentiment", trained[1])
    assert len(json.loads((folder / "history.json").read_text())) == 4
    assert_tracked_once(home)
    assert list(home.parent.iterdir()) == [home]
    exported = ok(unfold(home, "export", "sentiment", "--json"))
    assert (Path(exported["folder"]) / "saved_model.pb").is_file()


def test_two_trainings_at_once_on_one_store(reviews, tmp_path):
    commands = [
        Command(
            tmp_path, "train", "sentiment", "--json",
            *small(reviews, "train.epochs=1", f"seed={seed}"),
        )
        for seed in (1, 2)
    ]  # fmt: skip
    ended = [command.wait() for command in commands]
    assert not any("warning" in done.stderr for done in ended)
    results = [ok(done) for done in ended]
    assert len({r["run"] for r in results}) == 2
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("sentiment")
    runs = client.search_runs([experiment.experiment_id])
    assert {r.info.run_name for r in runs} == {r["run"] for r in results}
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert len(client.search_model_versions("name='unfold-sentiment'")) == 2


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a user's mistake; nothing on standard output, no traceback."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train", "sentimnt"], "no task 'sentimnt'; there are: sentiment"),
        (["train"], "TASK"),
        (["trian", "sentiment"], "trian"),
        (["train", "sentiment", "--set", "model.cel=gru"], "did you mean cell?"),
        (["train", "sentiment", "--set", "model.cell"], "write it as key=value"),
        (["train", "sentiment", "--config", "nowhere.yaml"], "nowhere.yaml: no such config file"),
        (["train", "sentiment", "--set", "data.source=nowhere.csv"], "nowhere.csv: no such file"),
        (["train", "sentiment", "--set", "device=gpu"], "no GPU is visible"),
        (["train", "sentiment", "--resume", "abc"], "run abc: no such run"),
        (["train", "sentiment", "--resume", "a", "--set", "seed=2"], "leave out --config"),
        (["evaluate", "sentiment"], ": unfold train sentiment, or set UNFOLD_HOME"),
        (["predict", "sentiment", "x"], "no finished sentiment run yet"),
        (["predict", "sentiment"], "INPUT"),
        (["explain", "sentiment", "x"], "no finished sentiment run yet"),
        (["explain", "sentiment"], "INPUT"),
        (["explain", "sentiment", "--set", "seed=2", "x"], "a request of sentiment can choose"),
        (["export", "sentiment", "--run", "abc"], "run abc: no such run"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(unfold_here, tmp_path, arguments, part):
    assert part in refused(unfold_here(*arguments))
    assert not list(tmp_path.rglob("run.json"))


def test_a_foreign_backend_is_refused(unfold_here, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    message = refused(unfold_here("train", "sentiment"))
    assert "must be one of tensorflow, jax" in message


def test_an_output_folder_that_cannot_be_written_is_noticed_first(
    unfold_here, monkeypatch, tmp_path, reviews
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNFOLD_HOME", str(tmp_path / "file"))
    assert "cannot write to" in refused(unfold_here("train", "sentiment", *small(reviews)))


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        (["good,yes"], "needs at least two classes"),
        (["good,yes", "fine,yes", "nice,yes", "well,yes"], "only the label 'yes'"),
        (["good,yes", ",no", "bad"], "2 of 3 rows cannot be used"),
        ([], "no usable row"),
    ],
)
def test_a_table_that_cannot_be_learned_from(unfold_here, tmp_path, rows, part):
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["text,label", *rows]) + "\n")
    assert part in refused(unfold_here("train", "sentiment", *small(table)))
    assert not list(tmp_path.rglob("run.json"))


def test_an_exploding_loss_stops_the_run_and_says_so(tmp_path, reviews):
    done = unfold(
        tmp_path, "train", "sentiment",
        *small(reviews, "train.optimizer=sgd", "train.clip_norm=null", "train.learning_rate=1e38"),
    )  # fmt: skip
    assert done.returncode == 1
    assert "the gradient exploded" in done.stderr
    assert "Traceback" not in done.stderr
    folder = next((tmp_path / "runs" / "sentiment").glob("2*"))
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"


def test_an_unreachable_tracking_server_costs_a_warning_not_the_training(tmp_path, reviews):
    """Nothing listens on the discard port of the loopback."""
    lost = unfold(
        tmp_path, "train", "sentiment", "--json", *small(reviews, "train.epochs=1"),
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )  # fmt: skip
    result = ok(lost)
    assert lost.stderr.count("warning: MLflow at http://127.0.0.1:9 cannot be used") == 1
    assert ok(unfold(tmp_path, "evaluate", "sentiment", "--json"))["run"] == result["run"]
    with Run(Path(result["folder"])).locked():  # as if it were being trained
        held = unfold(tmp_path, "track", "sentiment", "--run", result["run"])
    assert (held.returncode, "is being trained already" in held.stderr) == (2, True)
    for _ in range(2):  # sent again, nothing is there twice
        sent = unfold(tmp_path, "track", "sentiment", "--run", result["run"])
        assert sent.returncode == 0, sent.stderr
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.search_runs([client.get_experiment_by_name("sentiment").experiment_id])[0]
    assert run.info.status == "FINISHED"
    assert {"val_accuracy", "best/val_accuracy", "test/accuracy"} <= run.data.metrics.keys()
    for name in run.data.metrics:
        assert len(client.get_metric_history(run.info.run_id, name)) == 1, name
