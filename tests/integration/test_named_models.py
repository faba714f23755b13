"""Several models of one task: each name has runs, versions, a champion and exports of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.engine.config import loader
from pipelines.engine.core.files import write_text
from pipelines.engine.runs.info import MlflowRecord
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_config
from tests.support.commands import ok, prepare, unfold, unfold_in_process
from tests.support.reviews import small, write_reviews
from tests.support.servers import serving, wait
from tests.support.trained import TrainOnce

TEXT = "a brilliant and touching film"


@dataclass(frozen=True)
class Models:
    """A home with a run of each of three models of one task, in the order of their training."""

    home: Path
    reviews: Run
    tickets: Run
    mails: Run


def copy_run(source: Path, home: Path, name: str, model: str | None = None) -> Run:
    """Copy a finished run, perhaps as one of another model, and send it to the store."""
    run = Run(shutil.copytree(source, home / "runs" / "sentiment" / name))
    if model is not None:
        config = loader.load(source / "config.yaml", get_config("sentiment"))
        renamed = config.model_copy(update={"registered_model": model})
        write_text(run.folder / "config.yaml", loader.dump(renamed))
        run.update(registered_model=model)
    run.update(mlflow=MlflowRecord(), group=None)
    run.finish(scores=run.info.scores)
    done = unfold_in_process("track", "sentiment", "--run", name)
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="module")
def models(trained_once: TrainOnce, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    folder = tmp_path_factory.mktemp("named")
    home = folder / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOLD_HOME", str(home))
        prepare(home, ["train"])
        reviews = copy_run(trained_once("sentiment").folder, home, "reviews")
        data = write_reviews(folder / "tickets.csv", rows=200, seed=5)
        quick = ["train.epochs=1", "train.buckets=1", "train.health=0", "model.bidirectional=false"]
        arguments = ["--name", "tickets", *small(data, *quick)]
        trained = ok(unfold(home, "train", "sentiment", "--json", *arguments))
        assert trained["model"] == "tickets"
        tickets = Run(Path(trained["folder"]))
        mails = copy_run(tickets.folder, home, "mails", "mails")
        yield Models(home, reviews, tickets, mails)


@pytest.fixture
def here(models: Models, monkeypatch: pytest.MonkeyPatch) -> Models:
    monkeypatch.setenv("UNFOLD_HOME", str(models.home))
    return models


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = unfold_in_process(*arguments)
    assert done.returncode == 0, done.stderr
    return done


def refused(*arguments: str) -> str:
    done = unfold_in_process(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_each_name_is_a_registered_model(here):
    client = MlflowClient(f"sqlite:///{here.home / 'mlflow.db'}")
    for name, run in (
        ("sentiment", here.reviews),
        ("tickets", here.tickets),
        ("mails", here.mails),
    ):
        (version,) = client.search_model_versions(f"name='unfold-{name}'")
        assert version.run_id == run.info.mlflow.run_id
        assert client.get_run(version.run_id).data.tags["unfold.model"] == name


def test_the_default_model_answers_unless_another_is_named(here):
    """The runs of other names are newer."""
    done = command("predict", "sentiment", TEXT)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"model sentiment, run {here.reviews.id}: the latest; data ")
    assert f"test accuracy {here.reviews.info.scores['accuracy']:.4f}" in line
    assert "mails, tickets" in line
    named = command("predict", "sentiment", "--name", "tickets", TEXT)
    assert f"model tickets, run {here.tickets.id}: the latest; data " in named.stderr
    assert "tickets.csv" in named.stderr
    assert "mails" not in named.stderr
    explained = json.loads(
        command("explain", "sentiment", "--name", "mails", "--json", TEXT).stdout
    )
    assert explained["run"] == here.mails.id


def test_evaluate_scores_the_named_model(here):
    done = command("evaluate", "sentiment", "--json", "--name", "tickets")
    result = json.loads(done.stdout)
    assert (result["run"], result["model"]) == (here.tickets.id, "tickets")
    assert result["accuracy"] == pytest.approx(here.tickets.info.scores["accuracy"], abs=1e-6)
    assert f"model tickets, run {here.tickets.id}: " in done.stderr


def test_a_run_and_a_name_that_disagree_are_refused(here):
    line = refused("predict", "sentiment", "--run", here.reviews.id, "--name", "tickets", TEXT)
    assert "'sentiment'" in line
    assert "'tickets'" in line
    chosen = command("predict", "sentiment", "--run", here.tickets.id, TEXT)
    assert f"model tickets, run {here.tickets.id}" in chosen.stderr


def test_an_unknown_name_shows_the_known_ones(here):
    line = refused("predict", "sentiment", "--name", "tickts", TEXT)
    assert "unfold train sentiment --name tickts" in line
    assert "sentiment, mails, tickets" in line


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("sentiment", "translation"),
        ("sentiment", "Sentiment"),
        ("sentiment", "TICKETS"),
        ("translation", "tickets"),
        ("sentiment", "../tickets"),
        ("sentiment", "a/b"),
        ("sentiment", ""),
        ("sentiment", ".tickets"),
    ],
)
def test_a_name_that_a_training_cannot_have(here, task, name):
    before = {path: path.stat().st_mtime_ns for path in here.home.rglob("*.json")}
    line = refused("train", task, f"--name={name}")
    assert repr(name) in line
    assert {path: path.stat().st_mtime_ns for path in here.home.rglob("*.json")} == before


def test_promote_compares_within_a_name(here):
    client = MlflowClient(f"sqlite:///{here.home / 'mlflow.db'}")
    for name, run in (
        ("sentiment", here.reviews),
        ("tickets", here.tickets),
        ("mails", here.mails),
    ):
        done = command("promote", "sentiment", "--name", name, "--json")
        answer = json.loads(done.stdout)
        assert (answer["run"], answer["model"], answer["version"]) == (run.id, name, 1)
        version = client.get_model_version_by_alias(f"unfold-{name}", "champion")
        assert version.run_id == run.info.mlflow.run_id


def test_exports_are_served_side_by_side(here):
    for name, run in (("sentiment", here.reviews), ("tickets", here.tickets)):
        done = command("export", "sentiment", "--name", name, "--json")
        answer = json.loads(done.stdout)
        assert answer["folder"] == str(here.home / "exports" / name / "1")
        assert (answer["run"], answer["model"]) == (run.id, name)
        assert f"model {name}, run {run.id}: " in done.stderr
    assert "unfold export sentiment --name mails" in refused("serve", "tickets", "mails")
    with serving(here.home, names=["tickets", "sentiment"]) as server:
        wait(lambda: len(server.events("version served")) == 2)
        loaded = {event["model"]: event for event in server.events("version served")}
        for name, run in (("sentiment", here.reviews), ("tickets", here.tickets)):
            assert loaded[name]["run"] == run.id
            assert loaded[name]["score"] == run.info.scores["accuracy"]
            answer = json.loads(
                command("predict", "sentiment", "--name", name, "--json", TEXT).stdout
            )
            served = server.post({"instances": [TEXT]}, f"/v1/models/{name}:predict").json()
            assert served["predictions"][0]["score"] == pytest.approx(answer["score"], abs=1e-6)
        assert server.get("/v1/models/mails").status_code == 404
