"""Runs and registered models through MLflow's own servers, and a plain HTTP client."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipelines.engine.core.console import Console
from pipelines.engine.export import savedmodel
from pipelines.engine.runs.run import Run
from pipelines.engine.runs.tracking import Tracker
from tests.support.alone import stands_alone
from tests.support.commands import empty_store
from tests.support.pictures import encoded, shape
from tests.support.processes import server
from tests.support.trained import TASKS
from tests.support.untrained import finish, write_run


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A home with a run in its MLflow store."""
    home = tmp_path_factory.mktemp("tracked")
    shutil.copy(empty_store(), home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOLD_HOME", str(home))
        run = write_run()
        run.write_history([{"loss": 1.0, "val_accuracy": 0.5}])
        finish(run)
        assert Tracker(run, run.config(), Console()).finish("FINISHED")
    return home, run


@pytest.fixture
def at_home(tracked: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNFOLD_HOME", str(tracked[0]))
    return tracked[0]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(process: subprocess.Popen[bytes], port: int, path: str, body: object = None) -> bytes:
    """Return the answer to a request, which is repeated until the server is ready."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}
    )
    until = time.monotonic() + 600
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "the server ended"
            time.sleep(0.2)
    raise AssertionError("the server did not answer")


def test_mlflow_serves_the_registered_model(tracked, at_home):
    """The command of MLflow's manual."""
    run, port = tracked[1], free_port()
    command = ["-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", "models:/unfold-sentiment/1", "--port", str(port)]
    with server(command, MLFLOW_TRACKING_URI=f"sqlite:///{at_home / 'mlflow.db'}") as process:
        records = {"dataframe_records": [{"text": "good"}, {"text": ""}]}
        predictions = json.loads(ask(process, port, "/invocations", records))["predictions"]
    served = savedmodel.load(run.folder / "savedmodel").signatures["serving_default"]
    expected = served(text=tf.constant(["good", ""]))
    labels = [raw.decode() for raw in expected["label"].numpy()]
    assert [p["label"] for p in predictions] == labels
    assert [p["score"] for p in predictions] == pytest.approx(
        expected["score"].numpy().tolist(), abs=1e-6
    )


def test_the_ui_shows_the_runs_of_the_same_store(tracked, at_home):
    run, port = tracked[1], free_port()
    with server(["-m", "pipelines.cli", "ui", "--port", str(port)]) as process:
        assert b"<title>MLflow</title>" in ask(process, port, "/")
        found = json.loads(
            ask(process, port, "/api/2.0/mlflow/experiments/get-by-name?experiment_name=sentiment")
        )
        search = {"experiment_ids": [found["experiment"]["experiment_id"]]}
        (shown,) = json.loads(ask(process, port, "/api/2.0/mlflow/runs/search", search))["runs"]
        assert shown["info"]["run_name"] == run.id
        path = f"/get-artifact?path=figures/empty.png&run_uuid={shown['info']['run_id']}"
        picture = ask(process, port, path)
    assert picture == (run.folder / "figures" / "empty.png").read_bytes()


#: Serves each model, as `mlflow models serve` does, and asks it one question.
_CLIENT = """
import json, threading, time, urllib.request
import mlflow, uvicorn
from mlflow.pyfunc.scoring_server import init
answers = {}
for task, (store, row) in json.loads(open(sys.argv[1]).read()).items():
    mlflow.set_tracking_uri(store)
    mlflow.set_registry_uri(store)
    app = init(mlflow.pyfunc.load_model(f"models:/unfold-{task}/1"))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    url, kind = f"http://127.0.0.1:{port}/invocations", {"Content-Type": "application/json"}
    asked = urllib.request.Request(url, json.dumps({"dataframe_records": [row]}).encode(), kind)
    (answers[task],) = json.load(urllib.request.urlopen(asked))["predictions"]
print(json.dumps(answers))
"""


def questions() -> dict[str, dict[str, Any]]:
    close = np.linspace(10, 11, 30)
    picture = base64.b64encode(encoded(shape("blue", "bar"))).decode()
    return {
        "sentiment": {"text": "a brilliant film"},
        "captioning": {"image": picture, "beam_width": 3, "max_length": 12},
        "translation": {
            "text": "Here the old dog sings.", "beam_width": 3, "max_length": 20,
        },
        "generation": {
            "prompt": "The sun rises in the", "temperature": 0, "max_length": 1, "seed": 1,
        },
        "forecasting": {
            "history": np.stack([close, close + 0.1, close - 0.1], axis=-1).tolist(),
            "lengths": 30,
            "series": "AAA",
            "time": (np.arange(30) * 86_400).tolist(),
            "future": (np.arange(30, 33) * 86_400).tolist(),
        },
    }  # fmt: skip


def test_every_registered_model_answers_without_this_project(trained_once, tmp_path):
    asked = {
        task: (f"sqlite:///{trained_once(task).home / 'mlflow.db'}", row)
        for task, row in questions().items()
    }
    assert set(asked) == set(TASKS)
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    found = stands_alone(_CLIENT, str(tmp_path / "asked.json"), folder=tmp_path)
    assert found["sentiment"]["label"] == "positive"
    assert "blue bar" in found["captioning"]["caption"]
    assert np.shape(found["captioning"]["alignment"])[1:] == (2, 2)
    assert "Hund" in found["translation"]["text"]
    assert found["generation"]["text"] == "The sun rises in the east"
    assert np.shape(found["forecasting"]["quantiles"]) == (3, 7)
