"""Temperatures against ones that are known, and the layer that divides by them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, softmax

from pipelines.engine.core.plotting import expected_calibration_error
from pipelines.engine.export import stateful
from pipelines.sentiment.calibration import (
    Calibration,
    calibrated,
    calibration_of,
    learn_temperature,
)
from pipelines.sentiment.config import SentimentConfig
from pipelines.sentiment.multi_label import MultiLabel
from pipelines.sentiment.single_label import SingleLabel
from tests.support.explaining import untrained_sentiment

CONFIG = SentimentConfig.model_validate({"data": {"source": "none.csv"}})
MULTI = SentimentConfig.model_validate({"data": {"source": "none.csv", "multi_label": True}})
SINGLE_LABEL, MULTI_LABEL = SingleLabel(CONFIG), MultiLabel(MULTI)


def drawn(temperature: float, rows: int, classes: int, seed: int = 0):
    """Logits that are right if divided by ``temperature``, and classes drawn by them."""
    rng = np.random.default_rng(seed)
    right = rng.normal(size=(rows, classes)) * 2
    truth = (softmax(right, axis=1).cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
    return right * temperature, np.eye(classes)[truth]


def learned(logits, hot, seed: int = 1) -> float:
    return learn_temperature(SINGLE_LABEL.losses, logits, hot, outcomes=hot.shape[1], seed=seed)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.3, 4), st.integers(2, 6), st.integers(0, 99))
def test_the_temperature_of_the_data_is_found(temperature, classes, seed):
    logits, hot = drawn(temperature, 4_000, classes, seed)
    found = learned(logits, hot)
    # Where 1 is nearly right it may be kept.
    assert found == pytest.approx(temperature, rel=0.12)


def test_no_temperature_has_a_smaller_loss():
    logits, hot = drawn(1.8, 2_000, 3)
    found = learned(logits, hot)

    def loss(temperature: float) -> float:
        return float(-(hot * log_softmax(logits / temperature, axis=1)).sum(axis=1).mean())

    # The rows that are added to the data move it a little.
    assert loss(found) <= min(map(loss, np.geomspace(0.1, 10, 400))) + 1e-4


def test_it_lowers_the_calibration_error_of_other_texts():
    logits, hot = drawn(2.0, 6_000, 2)
    temperature = learned(logits[:3_000], hot[:3_000])

    def error(t: float) -> float:
        p = softmax(logits[3_000:] / t, axis=1)
        return expected_calibration_error(p.max(axis=1), p.argmax(axis=1) == hot[3_000:].argmax(1))

    assert error(temperature) < 0.03 < 0.05 < error(1.0)


def test_a_temperature_that_does_not_help_is_not_used():
    """What it gains where it was learned, it loses elsewhere: the logits are right as they are."""
    kept = [learned(*drawn(1.0, 300, 3, seed)) == 1.0 for seed in range(20)]
    assert sum(kept) >= 8


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_have_no_temperature(rows):
    assert learned(np.ones((rows, 2)), np.ones((rows, 2))) == 1.0


@pytest.mark.parametrize("rows", [2, 10, 100])
def test_a_few_right_answers_are_no_proof(rows):
    logits = np.tile([[1.0, -1.0]], (rows, 1))
    confidence = softmax(logits / learned(logits, np.tile([[1.0, 0.0]], (rows, 1))), axis=1)
    assert confidence.max() <= max(softmax(logits, axis=1).max(), 1 - 0.5 / (rows + 2))


def test_the_temperature_of_labels():
    rng = np.random.default_rng(0)
    right = rng.normal(size=(2_000, 4)) * 2
    hot = (rng.random((2_000, 4)) < expit(right)).astype(float)
    found = learn_temperature(MULTI_LABEL.losses, right * 2.5, hot, outcomes=2, seed=1)
    assert found == pytest.approx(2.5, rel=0.1)


def test_losses_are_those_of_the_training():
    from pipelines.engine.training.losses import ClassCrossentropy, LabelCrossentropy

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(7, 3)).astype("float32") * 4
    hot = np.eye(3)[rng.integers(0, 3, 7)]
    expected = float(ClassCrossentropy()(hot.argmax(axis=1), logits))
    assert SINGLE_LABEL.losses(logits, hot).mean() == pytest.approx(expected, rel=1e-5)
    expected = float(LabelCrossentropy()(hot.argmax(axis=1)[:, None] + 1, logits))
    assert MULTI_LABEL.losses(logits, hot).mean() == pytest.approx(expected, rel=1e-5)


# The layer


def test_a_model_that_needs_nothing_stays_itself():
    _, _, model = untrained_sentiment()
    assert calibrated(model, 1.0, None) is model
    assert calibration_of(model).temperature == 1.0
    assert calibration_of(model).thresholds is None


@pytest.mark.parametrize("ngrams", [None, {"buckets": 32}, {"buckets": 32, "alone": True}])
def test_logits_are_divided_before_and_after_saving(ngrams, tmp_path):
    _, _, model = untrained_sentiment(ngrams=ngrams)
    for weight in model.weights:
        if weight.path.endswith("ngrams/w"):
            weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    ids = np.array([[3, 4, 5, 0], [6, 0, 0, 0]])
    after = calibrated(model, 2.5, [0.75])
    expected = model(ids).numpy() / 2.5
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(after(ids), expected, rtol=1e-6)
    assert len(after.weights) == len(model.weights)
    after.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(ids), expected, rtol=1e-6)
    assert calibration_of(again).temperature == 2.5
    assert calibration_of(again).thresholds == [0.75]
    assert again.layers[-1].get_config()["name"] == "calibration"


def test_a_text_that_is_read_in_pieces_is_calibrated_too():
    _, _, model = untrained_sentiment()
    after = calibrated(model, 3.0, None)
    ids = tf.constant([[3, 4, 5, 6]])
    _, state = stateful.read_on(after, ids[:, :2], None)
    logits, _ = stateful.read_on(after, ids[:, 2:], state)
    np.testing.assert_allclose(logits, model(ids).numpy() / 3.0, rtol=1e-5)


def test_half_precision_keeps_single_precision_logits():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        _, _, model = untrained_sentiment()
        assert calibrated(model, 2.0, None).outputs[0].dtype == "float32"
        assert Calibration(2.0).get_config()["temperature"] == 2.0
    finally:
        keras.config.set_dtype_policy(policy)
