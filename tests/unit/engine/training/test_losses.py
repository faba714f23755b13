"""The masked mean: right, and blind to padding."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engine.training.losses import (
    ClassCrossentropy,
    LabelCrossentropy,
    LabelCrossentropyMean,
    MaskedCrossentropy,
    PerToken,
    WeightedAccuracy,
    token_losses,
)


def case(seed: int, rows: int, time: int, extra: int = 0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(1, 5, (rows, time))
    targets[np.arange(time) >= rng.integers(0, time + 1, (rows, 1))] = 0
    logits = rng.normal(size=(rows, time, 5)).astype("float32")
    losses = -(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
    of_targets = np.take_along_axis(losses, targets[..., None], -1)[..., 0]
    real = targets > 0
    targets = np.pad(targets, [[0, 0], [0, extra]])
    logits = np.pad(logits, [[0, 0], [0, extra], [0, 0]], constant_values=3.0)
    return targets, logits, of_targets[real]


@given(st.integers(0, 100), st.integers(1, 4), st.integers(1, 6), st.integers(0, 3))
def test_mean_over_what_is_no_padding(seed, rows, time, extra):
    targets, logits, losses = case(seed, rows, time, extra)
    expected = losses.mean() if losses.size else 0.0
    np.testing.assert_allclose(MaskedCrossentropy()(targets, logits), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("unit", "of_nats"),
    [("nats", lambda n: n), ("perplexity", np.exp)],
)
def test_metric_weighs_tokens_not_batches(unit, of_nats):
    metric = PerToken(unit)
    together = []
    for seed, rows in ((1, 4), (2, 1), (3, 2)):
        targets, logits, losses = case(seed, rows, 6)
        metric.update_state(targets, logits)
        together.append(losses)
    expected = of_nats(np.concatenate(together).mean())
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-5)
    metric.reset_state()
    assert float(metric.total.numpy() if hasattr(metric.total, "numpy") else metric.total) == 0
    assert PerToken.from_config(metric.get_config()).unit == unit


def test_it_is_what_keras_minimises():
    """A model fitted with it has the loss that is reported, whatever the padding."""
    inputs = keras.Input((None,), dtype="int32")
    logits = keras.layers.Embedding(5, 5, embeddings_initializer="zeros")(inputs)
    model = keras.Model(inputs, logits)
    model.compile("sgd", loss=MaskedCrossentropy(), metrics=[PerToken("nats", name="nats")])
    targets = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    scores = model.evaluate(targets, targets, verbose=0, return_dict=True)
    np.testing.assert_allclose([scores["loss"], scores["nats"]], np.log(5), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_derivative_given_is_that_of_the_loss(smoothing):
    import tensorflow as tf

    rng = np.random.default_rng(2)
    logits = rng.normal(scale=3.0, size=(3, 4, 7)).astype("float64")
    targets = np.array([[1, 6, 0, 0], [2, 3, 1, 5], [4, 4, 4, 0]])
    weights = rng.normal(size=(3, 4))

    def total(z):
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        asked = smoothing / 7 + (1 - smoothing) * np.eye(7)[targets]
        return (-(asked * np.log(p)).sum(-1) * (targets != 0) * weights).sum()

    z = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(z)
        losses, _ = token_losses(targets, z, smoothing)
        value = tf.reduce_sum(losses * weights)
    assert float(value) == pytest.approx(total(logits), rel=1e-9)
    found, step = tape.gradient(value, z).numpy(), 1e-6
    for place in np.ndindex(*logits.shape):
        nudge = np.zeros_like(logits)
        nudge[place] = step
        slope = (total(logits + nudge) - total(logits - nudge)) / (2 * step)
        assert found[place] == pytest.approx(slope, abs=1e-6)


def test_very_large_logits_stay_finite():
    logits = np.array([[[1e4, -1e4, 0.0]]], "float32")
    losses, _ = token_losses(np.array([[1]]), logits)
    assert float(losses[0, 0]) == pytest.approx(2e4)


def class_case(seed: int, rows: int, classes: int):
    """Targets, logits, −log p of each target, and a weight for each class."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)).astype("float32")
    nats = np.log(np.exp(logits).sum(-1)) - logits[np.arange(rows), targets]
    return targets, logits, nats, rng.uniform(0.1, 9, classes)


@given(st.integers(0, 100), st.integers(1, 9), st.integers(2, 5))
def test_each_row_counts_with_the_weight_of_its_class(seed, rows, classes):
    targets, logits, nats, weights = class_case(seed, rows, classes)
    loss = ClassCrossentropy(weights.tolist())
    expected = (weights[targets] * nats).sum() / rows
    np.testing.assert_allclose(loss(targets, logits), expected, rtol=1e-5)
    # Rows that only fill a batch up have the weight 0.
    real = np.arange(rows) > 0
    if rows > 1:
        expected = (weights[targets] * nats)[real].sum() / (rows - 1)
        found = loss(targets, logits, sample_weight=real.astype("float32"))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(ClassCrossentropy()(targets, logits), nats.mean(), rtol=1e-5)


def test_balanced_weights_make_accuracy_the_mean_of_recalls():
    targets, logits, _, _ = class_case(1, 60, 3)
    counts = np.bincount(targets, minlength=3)
    metric = WeightedAccuracy((len(targets) / (3 * counts)).tolist())
    for part in np.array_split(np.arange(60), 4):
        metric.update_state(targets[part], logits[part])
    right = logits.argmax(-1) == targets
    recalls = [right[targets == c].mean() for c in range(3)]
    np.testing.assert_allclose(metric.result(), np.mean(recalls), rtol=1e-5)


def test_weighted_losses_are_saved_with_their_weights():
    for one in (ClassCrossentropy([1.0, 2.5]), WeightedAccuracy([1.0, 2.5])):
        saved = keras.saving.serialize_keras_object(one)
        again = keras.saving.deserialize_keras_object(json.loads(json.dumps(saved)))
        assert list(again.class_weights) == [1.0, 2.5]
    # What an earlier version saved has no weights.
    older = ClassCrossentropy.from_config({"name": "loss", "reduction": "sum_over_batch_size"})
    assert older.class_weights is None


def label_case(seed: int, rows: int, labels: int):
    """Padded numbers of labels, logits, and the binary cross-entropy of each row."""
    rng = np.random.default_rng(seed)
    hot = rng.integers(0, 2, (rows, labels))
    most = int(hot.sum(axis=1).max(initial=0)) + 1
    targets = np.zeros((rows, most), np.int32)
    for row, given_labels in enumerate(hot):
        numbers = rng.permutation(np.flatnonzero(given_labels) + 1)
        targets[row, : len(numbers)] = numbers
    logits = rng.normal(size=(rows, labels)).astype("float32") * 3
    p = 1 / (1 + np.exp(-logits.astype(float)))
    return targets, logits, -np.where(hot, np.log(p), np.log1p(-p)).mean(axis=1)


@given(st.integers(0, 100), st.integers(1, 5), st.integers(1, 6))
def test_loss_of_labels_is_the_mean_binary_cross_entropy(seed, rows, labels):
    targets, logits, nats = label_case(seed, rows, labels)
    np.testing.assert_allclose(LabelCrossentropy()(targets, logits), nats.mean(), rtol=1e-4)
    metric = LabelCrossentropyMean()
    metric.update_state(targets, logits)
    np.testing.assert_allclose(metric.result(), nats.mean(), rtol=1e-4)


def test_sure_and_wrong_labels_have_a_finite_loss():
    loss = LabelCrossentropy()(np.array([[1], [0]]), np.array([[-1e4], [1e4]], "float32"))
    np.testing.assert_allclose(loss, 1e4)
