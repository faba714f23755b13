"""The Python API on the runs that all tests share."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

import pipelines
from pipelines import Experiment, Model, UserError, load, train
from pipelines.api.training import resolve
from pipelines.engine.config import loader
from pipelines.engine.runs.run import Run
from tests.support import ROOT, reviews
from tests.support.trained import TASKS

TEXTS = ["a great and lovely film", "poor dull weak", "", "fine"]


@pytest.fixture
def model(trained_once, monkeypatch) -> Model:
    monkeypatch.setenv("UNFOLD_HOME", str(trained_once("sentiment").home))
    return load("sentiment")


def test_many_inputs_are_answered_as_each_alone(model):
    for text, answer in zip(TEXTS, model.predict(TEXTS), strict=True):
        alone = model.predict(text).json
        assert answer.json["label"] == alone["label"]
        assert answer.json["probabilities"] == pytest.approx(alone["probabilities"], rel=1e-4)
    assert model.predict([]) == []


def test_a_table_keeps_its_columns_and_marks_what_cannot_be_used(model):
    frame = pd.DataFrame(
        {"id": [7, 8, 9], "text": [TEXTS[0], None, TEXTS[1]], "label": ["x", "y", "z"]},
        index=[3, 1, 2],
    )
    found = model.predict(frame)
    assert list(found.columns[:3]) == ["id", "text", "label"]
    assert list(found.index) == [3, 1, 2]
    assert list(frame.columns) == ["id", "text", "label"], "the table itself was changed"
    expected = [model.predict(TEXTS[i]).json["label"] for i in (0, 1)]
    assert [found["label_predicted"][i] for i in (3, 2)] == expected
    assert found["error"].isna().tolist() == [True, False, True]
    assert found["error"][1] == "'text' is empty"
    renamed = frame.rename(columns={"text": "message"})
    again = model.predict(renamed, column="message")
    assert again["label_predicted"].tolist() == found["label_predicted"].tolist()


def test_threads_share_a_model(model):
    texts = [f"{word} {i % 5}" for i in range(12) for word in ("great lovely", "dull poor")]
    expected = [model.predict(text).json for text in texts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: model.predict(text).json, texts))
    assert found == expected


def test_other_data_are_scored(model, trained_once, tmp_path):
    own = model.evaluate()
    assert own == pytest.approx(model.scores)
    other = reviews.write_reviews(tmp_path / "other.csv", rows=60, seed=5)
    scores = model.evaluate(str(other))
    assert scores.records == 60
    assert scores.keys() >= {"accuracy", "macro_f1"}


def test_an_explanation_is_saved_where_it_is_wanted(model, tmp_path):
    explained = model.explain(TEXTS[0])
    files = explained.save(tmp_path / "pages")
    assert {path.parent for path in files} == {tmp_path / "pages"}
    assert all(path.stat().st_size for path in files)
    assert explained.json["answer"]


@pytest.mark.parametrize("task", TASKS)
def test_each_task_is_loaded_by_its_name(task, trained_once, monkeypatch):
    trained = trained_once(task)
    monkeypatch.setenv("UNFOLD_HOME", str(trained.home))
    model = load(task)
    assert (model.task, model.run) == (task, trained.folder.name)
    assert model.scores == pytest.approx(trained.result["scores"])
    assert load(run=model.run[:15]).run == model.run
    assert model.history


def test_a_stream_goes_on_as_the_whole_text_does(trained_once, monkeypatch):
    trained = trained_once("generation")
    monkeypatch.setenv("UNFOLD_HOME", str(trained.home))
    run = Run(trained.folder)
    greedy = {"temperature": 0.0, "seed": 1}
    config = run.config(["sampling.temperature=0", "sampling.max_length=5"])
    whole = Model(run, config).predict("the ol").json["text"]
    with load("generation").stream() as stream:
        stream.send("the ", max_length=0, **greedy)
        with pytest.raises(UserError, match="send: give"):
            stream.send("the ")  # leaves the state as it was
        answer = stream.send("ol", max_length=5, **greedy)
    assert "the ol" + answer["text"] == whole
    with pytest.raises(UserError, match="closed"):
        stream.send("the ", max_length=0, **greedy)


def test_a_model_that_needs_the_whole_text_has_no_stream(model):
    assert model.config.model.bidirectional
    with pytest.raises(UserError, match="cannot stream"):
        model.stream()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.predict(3), "predict takes a text, a list of texts or a DataFrame, not int"),
        (lambda m: m.predict(["a", 3]), "input 2: must be text, not int"),
        (lambda m: m.predict("\ud800"), "input 1: not text in UTF-8"),
        (lambda m: m.predict(pd.DataFrame({"a": ["x"]})), "has no column 'text'"),
        (lambda m: m.predict("a", column="b"), "column is for tables only"),
        (lambda m: m.evaluate(3), "evaluate: must be a source, not int"),
        (lambda m: load("nothing"), "no model 'nothing'"),
        (lambda m: load(), "name a model"),
        (lambda m: load("sentiment", version="best"), "must be latest or champion"),
        (lambda m: load(run="none-such"), "no such run"),
        (lambda m: train(3), "must be the path of a YAML file"),
        (lambda m: train({"data": {"source": "a.csv"}}), "task"),
        (lambda m: train("nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_mistakes_are_user_errors(model, call, message):
    with pytest.raises(UserError) as error:
        call(model)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_a_mapping_and_a_config_are_the_same():
    path = ROOT / "configs/sentiment/csv.yaml"
    changes = ["data.source=tickets.csv", "train.epochs=2"]
    config = Experiment.load(path, changes)
    mapping = config.model_dump(mode="json")
    dumped = {loader.dump(resolve(given)) for given in (config, mapping)}
    dumped.add(loader.dump(resolve(path, None, changes)))
    assert len(dumped) == 1
    assert resolve(config, "tickets").model_name == "tickets"


def test_training_gives_a_model_and_the_process_its_settings_back(tmp_path, home, capsys):
    source = reviews.write_reviews(tmp_path / "reviews.csv")
    small = [pair for pair in reviews.small(source) if pair != "--set"]
    script = f"""
import json, os, signal, sys, threading
from pipelines import load, train
handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
found = []
def work():
    found.append(train("configs/sentiment/default.yaml", name="tickets", overrides={small!r},
                       progress=False))
thread = threading.Thread(target=work)  # as in a notebook server: not the main thread
thread.start()
thread.join()
assert handlers == [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
assert "MLFLOW_TRACKING_URI" not in os.environ
model = load("tickets")
assert model.run == found[0].run
print(json.dumps(model.predict("fine").json))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] in ("negative", "positive")


def test_an_import_is_cheap_and_changes_nothing():
    script = """
import logging, os, signal, sys, threading, warnings
import numpy, ruamel.yaml  # both add filters for warnings of their own

def state():
    return (
        dict(os.environ), logging.root.level, logging.root.handlers[:], warnings.filters[:],
        [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)], threading.active_count(),
    )

before = state()
from pipelines import Experiment, Model, load, resume, train
assert state() == before, (before, state())
heavy = {"keras", "tensorflow", "mlflow", "pandas", "jax", "matplotlib"} & sys.modules.keys()
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_the_package_names_what_it_offers():
    assert set(pipelines.__all__) <= set(dir(pipelines))
    with pytest.raises(AttributeError):
        pipelines.nothing  # noqa: B018
    assert (Path(pipelines.__file__).parent / "py.typed").exists()
