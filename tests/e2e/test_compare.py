"""Variants side by side, and the champion among what was trained: real processes, a real store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.engine.core.errors import UserError
from pipelines.engine.runs import profiling
from pipelines.engine.runs.run import Run
from tests.support import ROOT
from tests.support.commands import Command, unfold_in_process, wait_for
from tests.support.reviews import SMALL, write_reviews


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> list[str]:
    """A comparison of a cell that learns nothing in so few steps with n-grams, which do."""
    source = write_reviews(tmp_path_factory.mktemp("data") / "reviews.csv")
    pairs = [f"data.source={source}", *SMALL, "train.learning_rate=0.0005", "model.units=[2]"]
    settings = [argument for pair in pairs for argument in ("--set", pair)]
    return ["compare", "sentiment", "--seeds", "3", "--only", "n-grams", "rnn", *settings]


@pytest.fixture(scope="module")
def compared(asked, tmp_path_factory) -> tuple[Path, dict, str]:
    """A home with a comparison that was interrupted and gone on with; what it printed then."""
    home = tmp_path_factory.mktemp("home")
    command = Command(home, *asked)
    wait_for("  epoch 1/", command)
    command.process.terminate()
    ended = command.wait(120)
    assert ended.returncode == 130
    assert "the same command continues from here" in ended.stderr
    (folder,) = (home / "runs" / "sentiment").glob("2*")
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOLD_HOME", str(home))
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            patch.setenv(name, "")
            patch.delenv(name)
        done = unfold_in_process(*asked, "--json")
    assert done.returncode == 0, done.stderr
    return home, json.loads(done.stdout), folder.name


@pytest.fixture
def here(compared, monkeypatch) -> Path:
    monkeypatch.setenv("UNFOLD_HOME", str(compared[0]))
    return compared[0]


@pytest.fixture
def client(here) -> MlflowClient:
    return MlflowClient(f"sqlite:///{here / 'mlflow.db'}")


def run_of(found: dict, variant: str) -> Run:
    return Run.find("sentiment", found["variants"][variant]["runs"][0])


def test_an_interrupted_comparison_goes_on_where_it_stopped(compared, here):
    _, found, begun = compared
    assert found["variants"]["n-grams"]["runs"] == [begun]
    assert len(run_of(found, "n-grams").history) == 4
    assert len(Run.all("sentiment")) == 2


def test_what_is_done_is_not_done_again(compared, asked, here):
    again = unfold_in_process(*asked)
    assert again.stderr.count("done before") == 2
    assert len(Run.all("sentiment")) == 2
    rows = [line.split() for line in again.stdout.splitlines()]
    assert [row[0] for row in rows if row[:1] in (["n-grams"], ["rnn"])] == ["n-grams", "rnn"]


def test_the_table_says_what_the_runs_say(compared, here):
    _, found, _ = compared
    for name in ("n-grams", "rnn"):
        info, said = run_of(found, name).info, found["variants"][name]
        assert said["mean"] == info.scores["accuracy"]
        assert said["deviation"] is None
        for cost in ("parameters", "train_seconds", "peak_memory_mb", "latency_ms"):
            assert said[cost] == getattr(info, cost) > 0, cost
        assert info.peak_memory_mb > 200  # TensorFlow alone is more
    assert found["variants"]["n-grams"]["mean"] > found["variants"]["rnn"]["mean"]
    folder = Path(found["folder"])
    assert json.loads((folder / "comparison.json").read_text()) == found
    assert "| n-grams |" in (folder / "comparison.md").read_text()
    assert (folder / "comparison.png").stat().st_size > 10_000


def test_mlflow_has_one_parent_and_its_children(compared, client):
    _, found, _ = compared
    experiment = client.get_experiment_by_name("sentiment")
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    children = {name: r for name, r in runs.items() if "mlflow.parentRunId" in r.data.tags}
    assert set(children) == {"n-grams-seed-3", "rnn-seed-3"}
    (parent,) = (r for name, r in runs.items() if name not in children)
    assert parent.info.status == "FINISHED"
    assert {r.data.tags["mlflow.parentRunId"] for r in children.values()} == {parent.info.run_id}
    assert parent.data.metrics["accuracy/rnn"] == found["variants"]["rnn"]["mean"]
    assert "| rnn |" in parent.data.tags["mlflow.note.content"]
    assert {a.path for a in client.list_artifacts(parent.info.run_id)} == {
        "comparison.md", "comparison.json", "comparison.png"
    }  # fmt: skip
    for name, child in children.items():
        metrics = child.data.metrics
        assert {"test/accuracy", "cost/latency_ms", "best/val_accuracy"} <= set(metrics), name
        assert "Test accuracy" in child.data.tags["mlflow.note.content"]
        # Neither twice nor not at all, interrupted or not.
        epochs = client.get_metric_history(child.info.run_id, "val_loss")
        assert [m.step for m in epochs] == [1, 2, 3, 4]


def test_runs_of_a_comparison_are_never_the_latest(here):
    with pytest.raises(UserError, match="no finished sentiment run yet"):
        Run.find("sentiment", None)


def test_the_champion_gives_way_to_no_worse_model(compared, here, client):
    _, found, _ = compared
    good, poor = run_of(found, "n-grams"), run_of(found, "rnn")
    assert "no finished sentiment run" in unfold_in_process("export", "sentiment").stderr

    def promote(run: Run, *more: str) -> subprocess.CompletedProcess[str]:
        return unfold_in_process("promote", "sentiment", "--run", run.id, *more)

    def alias() -> str:
        return client.get_model_version_by_alias("unfold-sentiment", "champion").run_id

    assert "the first" in promote(poor).stdout
    assert "is the champion already" in promote(poor).stdout
    assert promote(good).returncode == 0
    assert alias() == good.info.mlflow.run_id
    refused = promote(poor)
    assert refused.returncode == 2
    assert f"is worse than the champion, run {good.id}: accuracy" in refused.stderr
    assert alias() == good.info.mlflow.run_id

    data = good.info.data
    good.update(data=data.model_copy(update={"test_fingerprint": "of other records"}))
    try:
        assert promote(poor, "--force").returncode == 0
        refused = promote(good)
        assert refused.returncode == 2
        assert "scored on other test data (of other records)" in refused.stderr
    finally:
        good.update(data=data)
    assert promote(good).returncode == 0

    exported = unfold_in_process("export", "sentiment", "--json")
    assert f"run {good.id}: the champion, version" in exported.stderr
    answer = json.loads(exported.stdout)
    assert (answer["run"], answer["champion"]) == (good.id, True)
    # It may have been trained on another machine: then it comes from the registry.
    (good.folder / "savedmodel").rename(good.folder / "elsewhere")
    try:
        fetched = json.loads(unfold_in_process("export", "sentiment", "--json").stdout)["folder"]
    finally:
        (good.folder / "elsewhere").rename(good.folder / "savedmodel")
    for file in ("saved_model.pb", "variables/variables.index"):
        assert (Path(fetched) / file).read_bytes() == (
            good.folder / "savedmodel" / file
        ).read_bytes()
    named = json.loads(unfold_in_process("export", "sentiment", "--json", "--run", poor.id).stdout)
    assert (named["run"], named["champion"]) == (poor.id, False)


def test_a_registry_that_cannot_be_asked(compared, here, monkeypatch, tmp_path):
    broken = tmp_path / "mlflow.db"
    broken.write_text("this is no database, whatever its name says" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{broken}")
    run = run_of(compared[1], "rnn")
    for arguments in (["export", "sentiment"], ["promote", "sentiment", "--run", run.id]):
        done = unfold_in_process(*arguments)
        assert done.returncode == 2
        assert "cannot be used" in done.stderr
        assert "Traceback" not in done.stderr
    assert unfold_in_process("export", "sentiment", "--run", run.id).returncode == 0


def test_a_process_knows_its_peak_and_not_that_of_its_parent():
    block = b"\1" * 300_000_000
    grown = profiling.peak_memory_mb()
    assert grown > len(block) / 1e6
    del block
    assert profiling.peak_memory_mb() == pytest.approx(grown, rel=0.05)
    code = "from pipelines.engine.runs import profiling; print(profiling.peak_memory_mb())"
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert float(child.stdout) < grown - 150


def test_requests_are_taken_from_all_over_a_split():
    assert profiling.sample_evenly(list(range(41)))[:3] == [0, 2, 4]
    assert profiling.sample_evenly(list(range(41)))[-1] == 40
    assert profiling.sample_evenly([7]) == [7]
