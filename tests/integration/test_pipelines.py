"""Each pipeline from end to end: train, evaluate, predict, export, serve."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.commands import JAX, ok, unfold, unfold_in_process
from tests.support.pictures import encoded, shape
from tests.support.servers import Server, serving
from tests.support.trained import TASKS, Trained, TrainOnce

#: A question to each model, and what its answer must contain.
QUESTIONS = {
    "sentiment": ("a brilliant and touching film", "positive"),
    "captioning": ("photo.jpg", "green ring"),
    "translation": ("Here the old dog sings.", "Hund"),
    "forecasting": ("", "quantiles"),
    "generation": ("The sun rises in the", "east"),
}


@pytest.fixture(scope="module")
def exported(trained_once: TrainOnce, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an export of each of the five pipelines."""
    home = tmp_path_factory.mktemp("served")
    for task in TASKS:
        found = trained_once(task)
        shutil.copytree(found.folder / "savedmodel", home / "exports" / task / "1")
    return home


@pytest.fixture(scope="module")
def server(exported: Path) -> Iterator[Server]:
    with serving(exported) as started:
        yield started


@pytest.fixture
def trained(request: pytest.FixtureRequest, trained_once: TrainOnce) -> Trained:
    return trained_once(request.param)


@pytest.fixture
def question(trained: Trained, tmp_path: Path) -> str:
    text, _ = QUESTIONS[trained.task]
    if trained.task == "captioning":
        (tmp_path / text).write_bytes(encoded(shape("green", "ring", shift=3), "JPEG"))
        return str(tmp_path / text)
    return text or trained.source


every_task = pytest.mark.parametrize("trained", TASKS, indirect=True)


@every_task
def test_evaluating_gives_the_scores_of_training(trained, monkeypatch):
    monkeypatch.setenv("UNFOLD_HOME", str(trained.home))
    found = ok(unfold_in_process("evaluate", trained.task, "--json"))
    for name, value in trained.result["scores"].items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@every_task
def test_the_run_answers(trained, question, monkeypatch):
    monkeypatch.setenv("UNFOLD_HOME", str(trained.home))
    found = ok(unfold_in_process("predict", trained.task, "--json", "--", question))
    assert QUESTIONS[trained.task][1] in json.dumps(found)


@every_task
def test_the_run_is_exported(trained, monkeypatch, tmp_path):
    monkeypatch.setenv("UNFOLD_HOME", str(trained.copy(tmp_path / "home")))
    folder = Path(ok(unfold_in_process("export", trained.task, "--json"))["folder"])
    assert folder == tmp_path / "home" / "exports" / trained.task / "1"
    whole = trained.folder / "savedmodel" / "saved_model.pb"
    assert (folder / "saved_model.pb").read_bytes() == whole.read_bytes()


def body(task: str) -> dict[str, Any]:
    text, _ = QUESTIONS[task]
    if task == "captioning":
        picture = encoded(shape("green", "ring", shift=3), "JPEG")
        image = {"b64": base64.b64encode(picture).decode()}
        return {"image": image, "beam_width": 3, "max_length": 12}
    if task == "translation":
        return {"text": text, "beam_width": 3, "max_length": 20}
    if task == "generation":
        return {"prompt": text, "temperature": 0, "max_length": 1, "seed": 1}
    if task == "forecasting":
        close = np.linspace(10, 11, 30)
        return {
            "history": np.stack([close, close + 0.1, close - 0.1], axis=-1).tolist(),
            "lengths": 30,
            "series": "AAA",
            "time": (np.arange(30) * 86_400).tolist(),
            "future": (np.arange(30, 33) * 86_400).tolist(),
        }
    return {"text": text}


@pytest.mark.parametrize("task", TASKS)
def test_the_export_is_served(task, server):
    answer = server.post({"instances": [body(task)]}, f"/v1/models/{task}:predict")
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["predictions"]
    if task == "forecasting":
        assert np.shape(found if isinstance(found, list) else found["quantiles"]) == (3, 7)
    else:
        assert QUESTIONS[task][1] in json.dumps(found)


def test_a_model_is_trained_on_jax_and_exported_by_tensorflow(trained_once, tmp_path):
    # One graph for JAX to compile: that is most of this training.
    less = ["train.epochs=2", "train.buckets=1", "train.health=0", "model.bidirectional=false"]
    arguments = [*trained_once("sentiment").arguments, *(a for s in less for a in ("--set", s))]
    result = ok(unfold(tmp_path, "train", "sentiment", "--json", *arguments, **JAX))
    assert result["scores"]["accuracy"] >= 0.8
    assert json.loads((Path(result["folder"]) / "run.json").read_text())["backend"] == "jax"
    assert (Path(result["folder"]) / "savedmodel" / "saved_model.pb").exists()
