"""When a text gets a label: curves against counting, and answers that are left open."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engine.core import plotting
from pipelines.sentiment import plots
from pipelines.sentiment.calibration import Calibration, calibrated
from pipelines.sentiment.config import SentimentConfig
from pipelines.sentiment.decision import CERTAIN, CoverageCurve
from pipelines.sentiment.evaluation import evaluate
from pipelines.sentiment.records import LabelledText
from pipelines.sentiment.single_label import SingleLabel
from pipelines.sentiment.task import TASK
from tests.support.explaining import text_classes, untrained_sentiment

#: Confidences in sixteenths, of which several are equal, and whether each answer is right.
ANSWERS = st.lists(st.tuples(st.integers(8, 16), st.booleans()), min_size=1, max_size=30)


def curve_of(answers) -> tuple[CoverageCurve, np.ndarray, np.ndarray]:
    confidence = np.array([c / 16 for c, _ in answers])
    correct = np.array([r for _, r in answers])
    return CoverageCurve.of(confidence, correct), confidence, correct


@given(ANSWERS, st.floats(0, 1))
def test_the_curve_counts_the_answers_above_a_threshold(answers, threshold):
    curve, confidence, correct = curve_of(answers)
    above = confidence >= threshold
    coverage, accuracy = curve.at(threshold)
    assert coverage == pytest.approx(above.mean())
    if above.any():
        assert accuracy == pytest.approx(correct[above].mean())
    else:
        assert math.isnan(accuracy)


@given(ANSWERS, st.floats(0.05, 1))
def test_the_smallest_threshold_that_reaches_an_accuracy(answers, wanted):
    curve, confidence, correct = curve_of(answers)
    reached = [t for t in np.unique(confidence) if correct[confidence >= t].mean() >= wanted]
    found = curve.threshold_for(wanted)
    if not reached:
        assert found == CERTAIN
    elif min(reached) == confidence.min():
        assert found == 0.0
    else:
        assert found == min(reached)


@given(ANSWERS)
def test_the_table_shows_the_curve(answers):
    curve, confidence, correct = curve_of(answers)
    rows = curve.table().rows
    assert rows[0] == [0.0, 1.0, round(float(correct.mean()), 4)]
    for threshold, coverage, accuracy in rows:
        above = confidence >= threshold
        assert coverage == pytest.approx(above.mean(), abs=1e-4)
        assert accuracy == pytest.approx(correct[above].mean(), abs=1e-4)
    assert [row[0] for row in rows] == sorted({row[0] for row in rows})


def records(count: int) -> list[LabelledText]:
    return [LabelledText(f"text {i}", "", f"a.csv:{i + 2}") for i in range(count)]


def test_scores_of_the_texts_with_a_label():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.55, 0.45]])
    found = evaluate(records(4), np.array([0, 0, 1, 0]), probabilities, ["a", "b"], threshold=0.7)
    assert found.scores["accuracy"] == 0.75  # of all texts, as without a threshold
    assert found.scores["threshold"] == 0.7
    assert found.scores["coverage"] == 0.5
    assert found.scores["answered_accuracy"] == 1.0
    assert found.verdict == [
        "With the threshold 0.700, 50.0% of the texts get a label, and 100.0% of these labels are "
        "right."
    ]


def test_no_text_may_get_a_label():
    found = evaluate(records(1), np.array([0]), np.array([[0.6, 0.4]]), ["a", "b"], threshold=0.7)
    assert found.scores["coverage"] == 0.0
    assert "answered_accuracy" not in found.scores
    assert found.verdict == ["With the threshold 0.700, no text gets a label."]


@pytest.mark.parametrize("threshold", [None, 0.75, 0.999])
def test_the_curve_is_drawn(threshold, tmp_path):
    curve = CoverageCurve.of(np.linspace(0.5, 0.99, 30), np.arange(30) % 3 > 0)
    plotting.save_figure(plots.coverage(curve, threshold), tmp_path / "coverage.png")
    assert (tmp_path / "coverage.png").stat().st_size > 0


# Answers


def config_with(**decision) -> SentimentConfig:
    return SentimentConfig.model_validate({"data": {"source": "a.csv"}, "decision": decision})


def answers_to(config: SentimentConfig, logits, calibration=None) -> list[dict]:
    """The outputs of the export for each row of logits."""
    answer = SingleLabel(config).answer(["no", "yes"], calibration or Calibration())
    found = {name: t.numpy() for name, t in answer(tf.constant(logits, tf.float32)).items()}
    return [{name: rows[i] for name, rows in found.items()} for i in range(len(logits))]


def test_without_a_threshold_nothing_changes():
    (found,) = answers_to(config_with(), [[0.0, 0.1]])
    assert set(found) == {"label", "score", "probabilities"}
    told = SingleLabel(config_with()).present("text", found, ["no", "yes"])
    assert set(told.json) == {"text", "label", "score", "probabilities"}
    assert told.rows == [["yes", "52.5%"], ["no", "47.5%"]]


def test_a_label_below_the_threshold_is_left_open():
    config = config_with(threshold=0.7)
    unsure, sure = answers_to(config, [[0.0, 0.1], [3.0, 0.0]])
    assert (unsure["label"], unsure["answered"]) == (b"", False)
    assert (sure["label"], sure["answered"]) == (b"no", True)
    how = SingleLabel(config)
    told = how.present("text", unsure, ["no", "yes"])
    assert (told.json["label"], told.json["answered"]) == ("", False)
    assert told.rows[0] == ["don't know", ""]
    told = how.present("text", sure, ["no", "yes"])
    assert (told.json["label"], told.json["answered"]) == ("no", True)
    assert how.describe(unsure["probabilities"], ["no", "yes"], Calibration()) == (
        "don't know; yes (52.5%) is the most likely"
    )
    assert how.describe(sure["probabilities"], ["no", "yes"], Calibration()) == "no (95.3%)"


@given(st.floats(0, 1), st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=8))
def test_a_request_and_an_export_with_one_threshold_agree(threshold, gaps):
    config, logits = config_with(threshold=threshold), [[0.0, gap] for gap in gaps]
    with_it, without = answers_to(config, logits), answers_to(config_with(), logits)
    for served, plain in zip(with_it, without, strict=True):
        told = SingleLabel(config).present("text", plain, ["no", "yes"]).json
        assert told["label"] == served["label"].decode()
        assert told["answered"] == bool(served["answered"])
        assert told == SingleLabel(config).present("text", served, ["no", "yes"]).json


def test_the_threshold_of_a_request_overrides_that_of_the_export():
    chosen = Calibration(thresholds=[0.9])
    (found,) = answers_to(config_with(accuracy=0.9), [[0.0, 1.0]], chosen)
    assert not found["answered"]
    told = SingleLabel(config_with(accuracy=0.9)).present("text", found, ["no", "yes"]).json
    assert (told["label"], told["answered"]) == ("", False)
    for threshold, label in ((0.0, "yes"), (0.7, "yes"), (0.95, "")):
        config = config_with(accuracy=0.9, threshold=threshold)
        told = SingleLabel(config).present("text", found, ["no", "yes"]).json
        assert (told["label"], told["answered"]) == (label, label != "")


def test_an_accuracy_chooses_the_threshold():
    probabilities = np.array([[0.95, 0.05], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    hot = np.eye(2)[[0, 1, 1, 1]]
    assert SingleLabel(config_with(accuracy=0.9)).choose_thresholds(probabilities, hot) == [0.8]
    assert SingleLabel(config_with(accuracy=0.7)).choose_thresholds(probabilities, hot) == [0.0]
    assert SingleLabel(config_with(threshold=0.9)).choose_thresholds(probabilities, hot) is None


def test_an_accuracy_that_is_reached_nowhere_is_reported():
    config = config_with(accuracy=0.9)
    probabilities, hot = np.array([[0.6, 0.4], [0.8, 0.2]]), np.eye(2)[[1, 1]]
    thresholds = SingleLabel(config).choose_thresholds(probabilities, hot)
    assert thresholds == [CERTAIN]
    found = SingleLabel(config).evaluate(
        records(2), hot, probabilities, ["a", "b"], Calibration(thresholds=thresholds)
    )
    assert found.verdict == [
        "With the threshold 1.000, no text gets a label.",
        "No threshold reached decision.accuracy=0.9 on the validation split.",
    ]


def test_every_path_uses_the_threshold_of_the_model():
    config, processor, model = untrained_sentiment()
    after = calibrated(model, 1.0, [0.99])
    endpoints = TASK.endpoints(config, processor, after)
    answer = endpoints["serving_default"].function(tf.constant(["a good film"]))
    assert (answer["label"].numpy()[0], answer["answered"].numpy()[0]) == (b"", False)
    state = endpoints["start"].function()
    step = endpoints["step"].function(tf.constant(["a good film"]), *state.values())
    assert (step["label"].numpy()[0], step["answered"].numpy()[0]) == (b"", False)
    explained = TASK.explain(config, text_classes(), after, "a good film")
    assert explained.answer.startswith("don't know; ")
