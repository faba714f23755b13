"""Runs in a real MLflow store."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import keras
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs import mlflow_store, registry
from pipelines.engine.runs.run import Run
from pipelines.engine.runs.tracking import Tracker
from pipelines.workflows import report
from tests.support.commands import empty_store
from tests.support.untrained import finish, write_run


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A home with an empty store and a run that has been trained but not tracked."""
    home = tmp_path_factory.mktemp("prepared") / "home"
    home.mkdir()
    shutil.copy(empty_store(), home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOLD_HOME", str(home))
        write_run()
    return home


@pytest.fixture
def home(home, prepared) -> Path:
    shutil.copytree(prepared, home)
    return home


@pytest.fixture
def run(home) -> Run:
    (found,) = Run.all("sentiment")
    return found


@pytest.fixture
def config(run):
    return run.config()


def epochs(count: int) -> list[dict[str, float]]:
    return [{"loss": 1.0 / (i + 1), "val_accuracy": 0.5 + i / 100} for i in range(count)]


def store(home: Path) -> MlflowClient:
    uri = f"sqlite:///{home / 'mlflow.db'}"
    return MlflowClient(uri, uri)


def test_a_run_arrives_whole(home, run, config):
    tracker = Tracker(run, config, Console())
    assert tracker.publish()
    for n in (1, 2, 3):
        run.write_history(epochs(n))
        assert tracker.publish()
    finish(run)
    report.write(run, Console())
    assert tracker.finish("FINISHED")

    client = store(home)
    run_id = run.info.mlflow.run_id
    sent = client.get_run(run_id)
    assert sent.info.run_name == run.id
    assert sent.info.status == "FINISHED"
    assert sent.data.params["model.cell"] == "lstm"
    assert sent.data.params["train.clip_norm"] == "1.0"
    assert sent.data.tags["version.keras"] == keras.__version__
    assert sent.data.metrics["test/accuracy"] == 0.75
    history = client.get_metric_history(run_id, "val_accuracy")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.51), (3, 0.52)]
    (data,) = sent.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("mine.csv", "abc123")
    found = {a.path for a in client.list_artifacts(run_id)}
    assert {"config.yaml", "data.json", "figures", "tables", "processor", "keras"} <= found
    page = Path(client.download_artifacts(run_id, "report.html", str(home)))
    assert page.read_bytes() == (run.folder / "report.html").read_bytes()
    (version,) = client.search_model_versions("name='unfold-sentiment'")
    assert (int(version.version), version.run_id) == (run.info.mlflow.model_version, run_id)
    # The version is described by a model card, which begins with the description of the run.
    card = version.description
    assert card.startswith(sent.data.tags["mlflow.note.content"])
    for part in ("**Test accuracy 0.75 on 1 record; higher is better.**", "**Limits**", run.id):
        assert part in card


def test_sending_again_repeats_nothing(home, run, config):
    run.write_history(epochs(2))
    finish(run)
    for _ in range(2):
        assert Tracker(run, config, Console()).finish("FINISHED")
    client = store(home)
    run_id = run.info.mlflow.run_id
    assert len(client.get_metric_history(run_id, "loss")) == 2
    assert len(client.search_model_versions("name='unfold-sentiment'")) == 1
    experiment = client.get_experiment_by_name("sentiment")
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_a_killed_run_goes_on_in_the_same_mlflow_run(home, run, config):
    run.write_history(epochs(1))
    Tracker(run, config, Console()).finish("KILLED")
    run_id = run.info.mlflow.run_id
    assert store(home).get_run(run_id).info.status == "KILLED"
    run.write_history(epochs(2))
    Tracker(run, config, Console()).publish()
    assert store(home).get_run(run_id).info.status == "RUNNING"
    assert [m.step for m in store(home).get_metric_history(run_id, "loss")] == [1, 2]


@pytest.mark.parametrize("noted", [{}, {"epochs": 1}, {"epochs": 0, "results": False}])
def test_killed_before_it_was_noted_nothing_is_sent_twice(noted, home, run, config):
    """What was sent is found in the store: the run by its tag, the epochs, the version."""
    run.write_history(epochs(2))
    finish(run)
    Tracker(run, config, Console()).finish("FINISHED")
    run_id = run.info.mlflow.run_id
    run.update(mlflow={"run_id": run_id} | noted if noted else {})
    assert Tracker(run, config, Console()).finish("FINISHED")
    client = store(home)
    assert run.info.mlflow.run_id == run_id
    assert [m.step for m in client.get_metric_history(run_id, "loss")] == [1, 2]
    assert len(client.search_model_versions("name='unfold-sentiment'")) == 1
    experiment = client.get_experiment_by_name("sentiment")
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_a_store_that_is_down_is_told_once_and_caught_up_with(
    home, run, config, monkeypatch, capfd
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    tracker = Tracker(run, config, Console())
    run.write_history(epochs(1))
    assert not tracker.publish()
    assert not tracker.publish()
    assert capfd.readouterr().err.count("warning: MLflow") == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    finish(run)
    assert Tracker(run, config, Console()).finish("FINISHED")
    assert len(store(home).get_metric_history(run.info.mlflow.run_id, "loss")) == 1


def test_a_store_in_a_folder_whose_name_looks_like_an_address(tmp_path, monkeypatch):
    home = tmp_path / "folders" / "mine? 50%20 ü #1"
    monkeypatch.setenv("UNFOLD_HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):
        mlflow_store.find_experiment_id(mlflow_store.client(), "sentiment")
    assert list(home.parent.iterdir()) == [home]
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        found = database.execute("select name from experiments order by name").fetchall()
    assert found == [("Default",), ("sentiment",)]
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow has set it
    with pytest.raises(UserError, match=re.escape(f"{home}: MLflow cannot open a store")):
        mlflow_store.client()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    assert mlflow_store.client().search_experiments()


def test_words_of_users_are_tracked_under_valid_names(home, run, config, capfd):
    sources = [f"folder {i}/100% of ü?#{'x' * 100}.csv" for i in range(200)]
    config = config.model_copy(update={"data": config.data.model_copy(update={"source": sources})})
    run.write_history([{"loss": 1.0, "val_Volume ($)": 0.1, "val_Volume (€)": 0.2}])
    run.update(status="finished", scores={"accuracy": 0.75, "Change %": 0.5})
    assert Tracker(run, config, Console()).finish("FINISHED")
    assert "warning" not in capfd.readouterr().err
    sent = store(home).get_run(run.info.mlflow.run_id)
    assert sent.info.status == "FINISHED"
    assert len([name for name in sent.data.metrics if name.startswith("val_Volume")]) == 2
    assert len([name for name in sent.data.metrics if name.startswith("test/Change _")]) == 1
    assert len(sent.inputs.dataset_inputs[0].dataset.name) <= 500


def test_refused_content_is_not_reported_as_a_store_that_is_down(
    home, run, config, monkeypatch, capfd
):
    run.write_history(epochs(1))
    monkeypatch.setattr(
        "pipelines.engine.runs.mlflow_content.epoch_metrics",
        lambda *args: [Metric("Volume ($)", 1.0, 0, 1)],
    )
    assert not Tracker(run, config, Console()).publish()
    message = capfd.readouterr().err
    assert "refuses" in message
    assert "Volume ($)" in message
    assert "sent later" not in message


def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on in another folder, as a new process does: MLflow remembers the store it was told."""
    monkeypatch.setenv("UNFOLD_HOME", str(folder))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)


def all_uris(home: Path) -> list[str]:
    """Every URI of the store that says where artifacts are."""
    client = store(home)
    experiment = client.get_experiment_by_name("sentiment")
    uris = [experiment.artifact_location]
    for run in client.search_runs([experiment.experiment_id]):
        uris += [run.info.artifact_uri, f"file://{run.data.tags['unfold.folder']}"]
    for version in client.search_model_versions("name='unfold-sentiment'"):
        uris.append(client.get_model_version_download_uri("unfold-sentiment", version.version))
    return uris


@pytest.mark.parametrize(
    ("place", "copied"), [("with a space, ü and 100% #1", False), ("a copy", True)]
)
def test_a_store_follows_its_folder(home, run, config, tmp_path, monkeypatch, place, copied):
    """Artifacts of old and new runs are beside the store, and nothing is at the old place."""
    finish(run)
    assert Tracker(run, config, Console()).finish("FINISHED")
    new = tmp_path / place
    before = all_uris(home)
    shutil.copytree(home, new) if copied else home.rename(new)
    in_folder(new, monkeypatch)
    later = write_run()
    finish(later)
    assert Tracker(later, config, Console()).finish("FINISHED")
    uris = all_uris(new)
    assert len(uris) == len(before) + 3
    assert {uri for uri in uris if not uri.startswith((new.as_uri(), f"file://{new}/"))} == set()
    client = store(new)
    for each in (run, later):
        found = Run(new / "runs" / "sentiment" / each.id).info.mlflow
        files = {a.path for a in client.list_artifacts(found.run_id)}
        assert {"config.yaml", "keras"} <= files
    registry.promote(Run(new / "runs" / "sentiment" / run.id))
    shutil.rmtree(new / "runs")  # the registry has the model too
    champion = registry.champion("sentiment", "sentiment")
    with registry.savedmodel("sentiment", champion) as folder:
        assert (folder / "saved_model.pb").exists()
    assert home.exists() is copied
    if copied:
        assert all_uris(home) == before


def test_a_store_that_the_user_chose_is_not_changed(home, run, config, tmp_path, monkeypatch):
    """Several folders may share it; its artifacts stay where the first one has put them."""
    finish(run)
    assert Tracker(run, config, Console()).finish("FINISHED")
    before = all_uris(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    monkeypatch.setenv("UNFOLD_HOME", str(tmp_path / "other"))
    later = write_run()
    finish(later)
    assert Tracker(later, config, Console()).finish("FINISHED")
    assert set(before) <= set(all_uris(home))


def test_a_moved_store_that_cannot_be_changed_costs_a_warning(
    home, run, config, tmp_path, monkeypatch, capfd
):
    finish(run)
    assert Tracker(run, config, Console()).finish("FINISHED")
    new = home.rename(tmp_path / "moved")
    in_folder(new, monkeypatch)
    database = sqlite3.connect(new / "mlflow.db")
    database.execute("CREATE TRIGGER held BEFORE UPDATE ON experiments BEGIN "
                     "SELECT RAISE(ABORT, 'the table is held'); END")  # fmt: skip
    database.commit()
    database.close()
    later = write_run()
    finish(later)
    assert not Tracker(later, config, Console()).finish("FINISHED")
    message = capfd.readouterr().err
    assert "warning: MLflow at" in message
    assert f"moved here from {home}" in message
    assert "the table is held" in message
    assert not home.exists()
