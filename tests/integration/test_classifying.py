"""Rare classes, calibrated probabilities, open answers and lists of labels, from file to server."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from pipelines.engine.runs.loading import load_model
from pipelines.engine.runs.run import Run
from pipelines.sentiment import task  # noqa: F401 (registers the layers of its models)
from pipelines.sentiment.calibration import calibration_of
from tests.support.commands import ok, unfold, unfold_in_process
from tests.support.grpc_client import GrpcClient
from tests.support.reviews import BAD, GOOD, PLAIN, small
from tests.support.servers import Server, serving

pytestmark = pytest.mark.thorough

#: What says neither the one nor the other.
UNCLEAR = "the film is a plot"


@dataclass(frozen=True)
class Finished:
    """A finished run, and a server of its export."""

    home: Path
    result: dict
    messages: str
    server: Server

    def run(self) -> Run:
        return Run(Path(self.result["folder"]))


def write_unlike(path: Path) -> Path:
    """A table of which a tenth is negative, with wrong labels and one text of a third class."""
    rng = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(500):
            label = int(i % 10 > 0)
            shown = label if rng.random() < 0.9 else 1 - label
            words = rng.choices(PLAIN, k=rng.randint(3, 20)) + rng.choices([BAD, GOOD][shown], k=2)
            writer.writerow([" ".join(words) + f" {i}.", ["negative", "positive"][label]])
        writer.writerow(["nothing to say", "neutral"])
    return path


def write_lists(path: Path) -> Path:
    """Texts with none, one or two labels, each told by its words."""
    rng = random.Random(0)
    words = {"praise": GOOD, "blame": BAD}
    with path.open("w", encoding="utf-8") as file:
        for i in range(400):
            labels = [label for bit, label in enumerate(words) if i >> bit & 1]
            told = [word for label in labels for word in rng.choices(words[label], k=2)]
            text = rng.choices(PLAIN, k=rng.randint(3, 20)) + told
            rng.shuffle(text)
            file.write(json.dumps({"text": " ".join(text) + f" {i}.", "label": labels}) + "\n")
    return path


@pytest.fixture(scope="module")
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("classifying")
    source, settings = request.param
    home = folder / "home"
    done = unfold(
        home, "train", "sentiment", "--json", *small(source(folder / "data.jsonl"), *settings)
    )
    result = ok(done)
    ok(unfold(home, "export", "sentiment", "--json"))
    with serving(home, "grpc_port=0") as server:
        yield Finished(home, result, done.stderr, server)


@pytest.fixture(autouse=True)
def at_home(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFOLD_HOME", str(finished.home))


def predict(*arguments: str) -> dict:
    return ok(unfold_in_process("predict", "sentiment", "--json", *arguments))


UNLIKE = pytest.mark.parametrize(
    "finished",
    [
        (
            lambda path: write_unlike(path.with_suffix(".csv")),
            ["train.class_weights=balanced", "decision.accuracy=0.9", "model.bidirectional=false"],
        )
    ],
    ids=["unlike"],
    indirect=True,
)


@UNLIKE
def test_a_rare_class_is_learned_and_scored(finished):
    scores = finished.result["scores"]
    assert scores["recall/negative"] > 0.5
    assert scores["support/negative"] == 8  # 15 % of 50, rounded
    assert scores["support/neutral"] == 0
    assert "warning: only one training text of the class 'neutral'" in finished.messages
    assert "warning: no test text of the class 'neutral'" in finished.messages
    history = finished.run().history
    assert all(0 <= record["val_weighted_accuracy"] <= 1 for record in history)
    assert finished.run().info.monitor == "val_weighted_accuracy"


@UNLIKE
def test_the_run_says_what_was_learned_from_the_validation_split(finished):
    info, layer = finished.run().info, calibration_of(load_model(finished.run()))
    assert info.scores["temperature"] == layer.temperature
    assert info.scores["threshold"] == layer.thresholds[0]
    assert any(line.startswith("With the threshold") for line in info.verdict)
    again = ok(unfold_in_process("evaluate", "sentiment", "--json"))
    assert {name: again[name] for name in info.scores} == pytest.approx(info.scores, rel=1e-4)


@UNLIKE
def test_command_and_server_leave_the_same_answers_open(finished):
    texts = [UNCLEAR, "superb and touching", "awful and boring"]
    answers = predict(*texts)["predictions"]
    reply = finished.server.post(
        {"instances": [{"text": text} for text in texts]}, "/v1/models/sentiment:predict"
    )
    assert reply.status_code == 200, reply.text
    for found, served in zip(answers, reply.json()["predictions"], strict=True):
        assert found["label"] == served["label"]
        assert found["answered"] == served["answered"] == (found["label"] != "")
        assert found["score"] == pytest.approx(served["score"], rel=1e-5)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "sentiment"
    request.inputs["text"].CopyFrom(tf.make_tensor_proto(texts))
    outputs = GrpcClient(finished.server).predictions.Predict(request, timeout=60).outputs
    answered = tf.make_ndarray(outputs["answered"])
    assert answered.dtype == bool
    assert answered.tolist() == [found["answered"] for found in answers]
    assert tf.make_ndarray(outputs["label"]).tolist() == [a["label"].encode() for a in answers]


@UNLIKE
def test_a_request_may_choose_its_threshold(finished):
    always = predict("--set", "decision.threshold=0", UNCLEAR)
    never = predict("--set", "decision.threshold=1", UNCLEAR)
    assert (always["answered"], never["answered"]) == (True, False)
    assert always["label"] == max(always["probabilities"], key=always["probabilities"].get)
    assert never["label"] == ""
    assert never["probabilities"] == always["probabilities"]
    shown = unfold_in_process("predict", "sentiment", "--set", "decision.threshold=1", UNCLEAR)
    assert "don't know" in shown.stdout


@UNLIKE
def test_a_text_that_is_streamed_is_decided_alike(finished):
    served = tf.saved_model.load(str(finished.run().folder / "savedmodel"))
    whole = served.signatures["serving_default"](text=tf.constant([UNCLEAR]))
    state = dict(served.signatures["start"]())
    answer = served.signatures["step"](text=tf.constant([UNCLEAR]), **state)
    for name in ("label", "answered"):
        assert answer[name].numpy().tolist() == whole[name].numpy().tolist()
    np.testing.assert_allclose(answer["score"], whole["score"], rtol=1e-4)


@pytest.mark.parametrize("finished", [(write_lists, ["data.multi_label=true"])], indirect=True)
def test_texts_with_several_labels(finished):
    scores = finished.result["scores"]
    assert scores["micro_f1"] > 0.8
    assert {"accuracy", "macro_f1", "hamming_loss", "f1/praise", "temperature"} <= scores.keys()
    texts = ["superb and touching but awful and boring", "superb and touching", UNCLEAR]
    answers = predict(*texts)["predictions"]
    assert [sorted(a["labels"]) for a in answers] == [["blame", "praise"], ["praise"], []]
    reply = finished.server.post(
        {"instances": [{"text": text} for text in texts]}, "/v1/models/sentiment:predict"
    )
    for found, served in zip(answers, reply.json()["predictions"], strict=True):
        assert [label for label in served["labels"] if label] == found["labels"]
        assert len(served["labels"]) == len(served["probabilities"]) == 2
    shown = unfold_in_process("predict", "sentiment", texts[1])
    assert "yes" in shown.stdout
    explained = ok(unfold_in_process("explain", "sentiment", "--json", texts[0]))
    assert "praise" in explained["answer"]
    assert "blame" in explained["answer"]
