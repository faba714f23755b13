"""A store for a training that is disturbed, and what must be true once it has recovered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import tensorflow as tf
from mlflow import MlflowClient

from pipelines.engine.runs.mlflow_store import local_uri
from tests.support.commands import ok, resume_and_compare, unfold
from tests.support.reviews import small

#: Of the small training of sentiment.
EPOCHS = 4


def fresh_store(home: Path, whole: Path) -> Path:
    """A home whose MLflow store has its tables, which cost seconds to make, and nothing else."""
    home.mkdir()
    shutil.copy(whole / "mlflow.db", home)
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    for run in client.search_runs([client.get_experiment_by_name("sentiment").experiment_id]):
        client.delete_run(run.info.run_id)
    for version in client.search_model_versions("name='unfold-sentiment'"):
        client.delete_model_version(version.name, version.version)
    return home


def assert_tracked_once(home: Path) -> None:
    """One run in MLflow, each epoch of each metric once, one registered version."""
    client = MlflowClient(local_uri(home))
    experiment = client.get_experiment_by_name("sentiment")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FINISHED"
    for name in tracked.data.metrics:
        steps = [metric.step for metric in client.get_metric_history(tracked.info.run_id, name)]
        by_epoch = not name.startswith(("test/", "best/", "cost/"))
        assert steps == (list(range(1, EPOCHS + 1)) if by_epoch else [0]), name
    (version,) = client.search_model_versions("name='unfold-sentiment'")
    assert version.run_id == tracked.info.run_id


def assert_whole_or_absent(home: Path) -> None:
    for folder in (home / "runs" / "sentiment").glob("2*"):
        json.loads((folder / "run.json").read_text())
        if (folder / "savedmodel").exists():
            tf.saved_model.load(str(folder / "savedmodel"))


def assert_recovers(home: Path, reviews: Path, whole: dict) -> None:
    """What was begun in ``home`` ends like ``whole``; if nothing was, it is done now."""
    assert_whole_or_absent(home)
    begun = list((home / "runs" / "sentiment").glob("2*"))
    if not begun:
        ok(unfold(home, "train", "sentiment", "--json", *small(reviews)))
    elif json.loads((begun[0] / "run.json").read_text())["status"] == "finished":
        done = unfold(home, "train", "sentiment", "--resume", begun[0].name)
        assert "is finished; there is nothing to resume" in done.stderr
        ok_or_sent = unfold(home, "track", "sentiment", "--run", begun[0].name)
        assert ok_or_sent.returncode == 0, ok_or_sent.stderr
    else:
        folder = resume_and_compare(home, "sentiment", whole)
        left = [p for p in folder.rglob(".*") if p.name != ".lock"]
        assert left == []
    assert_tracked_once(home)
