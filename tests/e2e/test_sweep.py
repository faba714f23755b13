"""A search for the best keys: what is proposed, tried, pruned, gone on with and written down."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.engine.config import loader as configs
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_config
from tests.support.commands import unfold_in_process
from tests.support.reviews import SMALL, write_reviews

#: The second trial is the worse by far, whatever the machine.
SPACE = """
keys:
  train.learning_rate: {choices: [0.05, 1e-7]}
  model.units: {choices: [[3], [4]]}
trials: 2
seed: 5
pruning: {startup: 1, warmup: 0}
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> tuple[Path, list[str], dict, dict]:
    """A home with a search of two trials, then of three by two workers; and what was printed."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "space.yaml").write_text(SPACE)
    pairs = [f"data.source={write_reviews(folder / 'reviews.csv')}", *SMALL, "train.epochs=3"]
    pairs += ["model.cell=feedforward", "train.schedule=constant"]
    arguments = ["sweep", "sentiment", "--space", str(folder / "space.yaml"), "--json"]
    arguments += [argument for pair in pairs for argument in ("--set", pair)]
    home = tmp_path_factory.mktemp("home")
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOLD_HOME", str(home))
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            patch.setenv(name, "")
            patch.delenv(name)
        for more in ([], ["--trials", "3", "--workers", "2"]):
            done = unfold_in_process(*arguments, *more)
            assert done.returncode == 0, done.stderr
            found.append(json.loads(done.stdout))
    return home, arguments, found[0], found[1]


@pytest.fixture
def here(searched, monkeypatch) -> Path:
    monkeypatch.setenv("UNFOLD_HOME", str(searched[0]))
    return searched[0]


def by_status(status: str) -> list[Run]:
    return [run for run in Run.all("sentiment") if run.info.status == status]


def test_a_trial_without_promise_is_ended_early_and_says_so(searched, here):
    pruned = by_status("pruned")
    assert searched[3]["trials"]["pruned"] == len(pruned) > 0
    client = MlflowClient(f"sqlite:///{here / 'mlflow.db'}")
    for run in pruned:
        assert len(run.history) < 3
        assert run.config().train.learning_rate == 1e-7
        sent = client.get_run(run.info.mlflow.run_id)
        assert sent.info.status == "KILLED"
        assert sent.data.tags["unfold.status"] == "pruned"
        assert "**Pruned** after epoch" in sent.data.tags["mlflow.note.content"]
    # Trials are neither scored on the test split nor exported nor registered.
    for run in Run.all("sentiment"):
        assert not run.info.scores
        assert not (run.folder / "savedmodel").exists()
    assert not client.search_registered_models()


def test_a_search_goes_on_where_it_stopped(searched, here):
    _, arguments, first, second = searched
    assert sum(first["trials"].values()) == 2
    assert sum(second["trials"].values()) == 3
    assert first["folder"] == second["folder"]
    assert len(Run.all("sentiment")) == 3
    again = unfold_in_process(*arguments)
    assert json.loads(again.stdout) == second
    assert len(Run.all("sentiment")) == 3


def test_the_best_is_a_config_that_can_be_trained(searched, here):
    found = searched[3]
    best = configs.load(Path(found["best"]["config"]), get_config("sentiment"))
    assert best.train.learning_rate == found["best"]["keys"]["train.learning_rate"] == 0.05
    assert best.model.units == found["best"]["keys"]["model.units"]
    done = by_status("tried")
    assert found["best"]["val_accuracy"] == max(run.info.best for run in done)
    (winner,) = (r for r in done if r.info.group.key == f"trial-{found['best']['trial']:04d}")
    assert configs.flatten(winner.config()) | {"name": "x"} == configs.flatten(best) | {"name": "x"}


def test_what_was_tried_is_written_down(searched, here):
    folder = Path(searched[3]["folder"])
    with (folder / "trials.csv").open() as file:
        head, *rows = list(csv.reader(file))
    assert head[:2] == ["trial", "val_accuracy"]
    assert len(rows) == 3
    assert rows[0][0] == str(searched[3]["best"]["trial"])
    assert (folder / "sweep.png").stat().st_size > 10_000
    client = MlflowClient(f"sqlite:///{here / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("sentiment")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (r for r in runs if r.data.tags["unfold.kind"] == "sweep")
    assert parent.data.metrics["trials/pruned"] > 0
    children = {
        r.info.run_name for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    assert children == {f"trial-{n:04d}" for n in range(3)}
    assert {"best.yaml", "trials.csv"} <= {
        a.path for a in client.list_artifacts(parent.info.run_id)
    }
