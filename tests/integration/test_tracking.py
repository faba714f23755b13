"""Runs in a real MLflow store, and through MLflow's own server."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from mlflow import MlflowClient
from mlflow.entities import Metric

import pipelines.engine.core.console
from pipelines.engine.core import plotting
from pipelines.engine.core.files import write_text
from pipelines.engine.export import savedmodel
from pipelines.engine.runs.run import Run
from pipelines.engine.runs.tracking import Tracker
from pipelines.sentiment.config import CONFIG
from pipelines.sentiment.processor import TextClasses
from pipelines.sentiment.task import TASK
from tests.support.processes import server


@pytest.fixture(scope="module")
def ready_store(tmp_path_factory) -> Path:
    """A database with MLflow's tables: making them takes seconds, copying does not."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def home(home, ready_store) -> Path:
    home.mkdir()
    (home / "mlflow.db").write_bytes(ready_store.read_bytes())
    return home


def make_run() -> tuple[Run, object]:
    config = CONFIG.model_validate(
        {"name": "tiny", "data": {"source": "mine.csv"}, "model": {"units": [3], "embedding": 2}}
    )
    processor = TextClasses(config.text, ["good", "bad"], ["no", "yes"])
    data = {"fingerprint": "abc123", "records": {"train": 8, "validation": 1, "test": 1}}
    run = Run.create(config, processor, data=data, backend="tensorflow", device="cpu")
    keras.utils.set_random_seed(3)
    model = TASK.build(config, processor)
    model.save(run.folder / "model.keras")
    savedmodel.write(
        run.folder / "savedmodel",
        model,
        TASK.endpoints(config, processor, model),
        processor.resources(),
    )
    plotting.save_figure(plotting.new_figure()[0], run.folder / "figures" / "empty.png")
    write_text(run.folder / "tables" / "t.csv", "a\r\n")
    return run, config


def epochs(count: int) -> list[dict[str, float]]:
    return [{"loss": 1.0 / (i + 1), "val_accuracy": 0.5 + i / 100} for i in range(count)]


def finish(run: Run) -> None:
    run.update(status="finished", scores={"accuracy": 0.75}, parameters=29, train_seconds=1.5)


def store(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home / 'mlflow.db'}")


def test_a_run_arrives_whole(home):
    run, config = make_run()
    tracker = Tracker(run, config, pipelines.engine.core.console.Console())
    assert tracker.publish()
    for n in (1, 2, 3):
        run.write_history(epochs(n))
        assert tracker.publish()
    finish(run)
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
    (version,) = client.search_model_versions("name='unfold-sentiment'")
    assert (int(version.version), version.run_id) == (run.info.mlflow.model_version, run_id)


def test_sending_again_repeats_nothing(home):
    run, config = make_run()
    run.write_history(epochs(2))
    finish(run)
    for _ in range(2):
        assert Tracker(run, config, pipelines.engine.core.console.Console()).finish("FINISHED")
    client = store(home)
    run_id = run.info.mlflow.run_id
    assert len(client.get_metric_history(run_id, "loss")) == 2
    assert len(client.search_model_versions("name='unfold-sentiment'")) == 1
    experiment = client.get_experiment_by_name("sentiment")
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_a_killed_run_goes_on_in_the_same_mlflow_run(home):
    run, config = make_run()
    run.write_history(epochs(1))
    Tracker(run, config, pipelines.engine.core.console.Console()).finish("KILLED")
    run_id = run.info.mlflow.run_id
    assert store(home).get_run(run_id).info.status == "KILLED"
    run.write_history(epochs(2))
    Tracker(run, config, pipelines.engine.core.console.Console()).publish()
    assert store(home).get_run(run_id).info.status == "RUNNING"
    assert [m.step for m in store(home).get_metric_history(run_id, "loss")] == [1, 2]


@pytest.mark.parametrize("noted", [{}, {"epochs": 1}, {"epochs": 0, "results": False}])
def test_killed_before_it_was_noted_nothing_is_sent_twice(noted, home):
    """What was sent is found in the store: the run by its tag, the epochs, the version."""
    run, config = make_run()
    run.write_history(epochs(2))
    finish(run)
    Tracker(run, config, pipelines.engine.core.console.Console()).finish("FINISHED")
    run_id = run.info.mlflow.run_id
    run.update(mlflow={"run_id": run_id} | noted if noted else {})
    assert Tracker(run, config, pipelines.engine.core.console.Console()).finish("FINISHED")
    client = store(home)
    assert run.info.mlflow.run_id == run_id
    assert [m.step for m in client.get_metric_history(run_id, "loss")] == [1, 2]
    assert len(client.search_model_versions("name='unfold-sentiment'")) == 1
    experiment = client.get_experiment_by_name("sentiment")
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_a_store_that_is_down_is_told_once_and_caught_up_with(home, monkeypatch, capfd):
    run, config = make_run()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    tracker = Tracker(run, config, pipelines.engine.core.console.Console())
    run.write_history(epochs(1))
    assert not tracker.publish()
    assert not tracker.publish()
    assert capfd.readouterr().err.count("warning: MLflow") == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    finish(run)
    assert Tracker(run, config, pipelines.engine.core.console.Console()).finish("FINISHED")
    assert len(store(home).get_metric_history(run.info.mlflow.run_id, "loss")) == 1


def test_words_of_users_are_tracked_under_valid_names(home, capfd):
    run, config = make_run()
    sources = [f"folder {i}/100% of ü?#{'x' * 100}.csv" for i in range(200)]
    config = config.model_copy(update={"data": config.data.model_copy(update={"source": sources})})
    run.write_history([{"loss": 1.0, "val_Volume ($)": 0.1, "val_Volume (€)": 0.2}])
    run.update(status="finished", scores={"accuracy": 0.75, "Change %": 0.5})
    assert Tracker(run, config, pipelines.engine.core.console.Console()).finish("FINISHED")
    assert "warning" not in capfd.readouterr().err
    sent = store(home).get_run(run.info.mlflow.run_id)
    assert sent.info.status == "FINISHED"
    assert len([name for name in sent.data.metrics if name.startswith("val_Volume")]) == 2
    assert len([name for name in sent.data.metrics if name.startswith("test/Change _")]) == 1
    assert len(sent.inputs.dataset_inputs[0].dataset.name) <= 500


def test_refused_content_is_not_reported_as_a_store_that_is_down(home, monkeypatch, capfd):
    run, config = make_run()
    run.write_history(epochs(1))
    monkeypatch.setattr(
        "pipelines.engine.runs.mlflow_content.epoch_metrics",
        lambda *args: [Metric("Volume ($)", 1.0, 0, 1)],
    )
    assert not Tracker(run, config, pipelines.engine.core.console.Console()).publish()
    message = capfd.readouterr().err
    assert "refuses" in message
    assert "Volume ($)" in message
    assert "sent later" not in message


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(process: subprocess.Popen[bytes], port: int, path: str, body: object = None) -> bytes:
    """The answer to one request, asked until the server is up."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}
    )
    for _ in range(120):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "the server ended"
            time.sleep(1)
    raise AssertionError("the server did not answer")


def test_mlflow_serves_the_registered_model(home):
    """The command of MLflow's manual, and a plain HTTP client."""
    run, config = make_run()
    finish(run)
    Tracker(run, config, pipelines.engine.core.console.Console()).finish("FINISHED")
    port = free_port()
    command = ["-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", "models:/unfold-sentiment/1", "--port", str(port)]
    with server(command, MLFLOW_TRACKING_URI=f"sqlite:///{home / 'mlflow.db'}") as process:
        records = {"dataframe_records": [{"text": "good"}, {"text": ""}]}
        predictions = json.loads(ask(process, port, "/invocations", records))["predictions"]
    served = savedmodel.load(run.folder / "savedmodel").signatures["serving_default"]
    expected = served(text=tf.constant(["good", ""]))
    labels = [raw.decode() for raw in expected["label"].numpy()]
    assert [p["label"] for p in predictions] == labels
    assert [p["score"] for p in predictions] == pytest.approx(
        expected["score"].numpy().tolist(), abs=1e-6
    )


def test_the_ui_shows_the_runs_of_the_same_store(home):
    run, config = make_run()
    run.write_history(epochs(2))
    finish(run)
    Tracker(run, config, pipelines.engine.core.console.Console()).finish("FINISHED")
    port = free_port()
    with server(["-m", "pipelines.cli", "ui", "--port", str(port)]) as process:
        assert b"<title>MLflow</title>" in ask(process, port, "/")
        found = json.loads(
            ask(process, port, "/api/2.0/mlflow/experiments/get-by-name?experiment_name=sentiment")
        )
        search = {"experiment_ids": [found["experiment"]["experiment_id"]]}
        (shown,) = json.loads(ask(process, port, "/api/2.0/mlflow/runs/search", search))["runs"]
        assert shown["info"]["run_name"] == run.id
        picture = ask(
            process,
            port,
            f"/get-artifact?path=figures/empty.png&run_uuid={shown['info']['run_id']}",
        )
    assert picture == (run.folder / "figures" / "empty.png").read_bytes()
