"""Between records and model: ids, class numbers, batches and probabilities stay in step."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.splits import Splits
from pipelines.engine.text.vocabulary import UNKNOWN
from pipelines.sentiment import model as models
from pipelines.sentiment.calibration import calibration_of
from pipelines.sentiment.config import (
    SentimentConfig,
    SentimentDataConfig,
    SentimentModelConfig,
    SentimentTextConfig,
    SentimentTrainConfig,
)
from pipelines.sentiment.processor import TextClasses
from pipelines.sentiment.records import LabelledText
from pipelines.sentiment.task import TASK, probabilities

CONFIG = SentimentConfig(
    seed=3,
    data=SentimentDataConfig(source="reviews.csv"),
    text=SentimentTextConfig(min_count=1, max_tokens=4, keep="head"),
    model=SentimentModelConfig(cell="gru", units=[4], embedding=3, bidirectional=True),
    train=SentimentTrainConfig(batch_size=4, buckets=3),
)
LABELS = ["bad", "good", "größer"]


def record(i: int) -> LabelledText:
    return LabelledText(" ".join(f"w{j}" for j in range(i, i + i % 6 + 1)), LABELS[i % 3], f"a:{i}")


@pytest.fixture(scope="module")
def splits():
    records = [record(i) for i in range(25)]
    return Splits(records[:15], records[15:20], records[20:], fingerprint="", report={})


@pytest.fixture(scope="module")
def processor(splits):
    return TASK.fit_processor(CONFIG, splits)


def test_processor_learns_from_the_training_split_only(splits, processor):
    words = {w for r in splits.train for w in r.text.split()}
    assert set(processor.tokenizer.vocabulary) == words
    assert not {"w23", "w24"} & words
    assert processor.labels == LABELS
    assert processor.resources() == [processor.tokenizer]


def test_processor_is_the_same_after_being_saved(splits, processor, tmp_path):
    processor.save(tmp_path)
    loaded = TASK.processor.load(tmp_path)
    assert loaded.labels == processor.labels
    assert loaded.config == processor.config
    texts = [r.text for r in splits.test] + ["", "W1 w99 w2 w3 w4", "é"]
    for one, two in zip(loaded.encode(texts), processor.encode(texts), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "config",
    [
        SentimentTextConfig(),
        SentimentTextConfig(lowercase=False, max_tokens=None),
        SentimentTextConfig(keep="tail"),
    ],
)
def test_settings_of_the_text_are_saved(config, tmp_path):
    TextClasses(config, ["a"], ["x", "y"]).save(tmp_path)
    loaded = TextClasses.load(tmp_path)
    assert loaded.config == config
    assert loaded.tokenizer.lowercase == config.lowercase
    assert loaded.tokenizer.max_tokens == config.max_tokens
    assert loaded.tokenizer.keep == config.keep


def test_numbers_of_labels(processor):
    numbers = processor.numbers(["größer", "bad", "bad", "good"])
    assert numbers.tolist() == [2, 0, 0, 1]
    assert numbers.dtype == np.int32
    with pytest.raises(UserError, match="not trained on the label 'neutral'; it knows: bad, good,"):
        processor.numbers(["good", "neutral"])


def weights_of(class_weights, splits) -> list[float] | None:
    train = CONFIG.train.model_copy(update={"class_weights": class_weights})
    config = CONFIG.model_copy(update={"train": train})
    return TASK.fit_processor(config, splits).class_weights


def test_balanced_weights_are_those_of_sklearn(splits):
    from sklearn.utils.class_weight import compute_class_weight

    some = Splits(splits.train[:13], [], [], fingerprint="", report={})
    found = weights_of("balanced", some)
    truth = [r.label for r in some.train]
    expected = compute_class_weight("balanced", classes=np.array(LABELS), y=truth)
    np.testing.assert_allclose(found, expected)
    assert weights_of(None, some) is None


def test_classes_without_a_weight_have_the_weight_one(splits):
    assert weights_of({"good": 2.5}, splits) == [1.0, 2.5, 1.0]
    with pytest.raises(UserError) as caught:
        weights_of({"neutral": 3.0, "good": 2.0}, splits)
    assert str(caught.value) == (
        "train.class_weights: no training text has the class 'neutral'; "
        "there are: bad, good, größer"
    )


def test_weights_are_saved_with_the_processor(tmp_path):
    TextClasses(SentimentTextConfig(), ["a"], ["x", "y"], [0.5, 2.0]).save(tmp_path)
    processor = TextClasses.load(tmp_path)
    assert processor.class_weights == [0.5, 2.0]
    objective = TASK.objective(CONFIG, processor)
    assert objective.loss.class_weights == [0.5, 2.0]
    assert objective.monitor == "val_weighted_accuracy"
    assert [m.name for m in objective.metrics()] == ["accuracy", "weighted_accuracy"]
    plain = TASK.objective(CONFIG, TextClasses(SentimentTextConfig(), ["a"], ["x", "y"]))
    assert (plain.loss.class_weights, plain.monitor) == (None, "val_accuracy")


def test_the_model_is_calibrated_on_the_validation_split(splits, processor):
    many = Splits(splits.train, splits.train * 20, splits.test, fingerprint="", report={})
    model = TASK.build(CONFIG, processor)
    V = model.get_layer("V")
    V.set_weights([w * 30 for w in V.get_weights()])  # much too sure
    after = TASK.calibrate(CONFIG, processor, model, many)
    temperature = calibration_of(after).temperature
    assert temperature > 2
    rows, truth = TASK.encode(processor, many.validation)

    def loss(model) -> float:
        p = probabilities(model, rows, CONFIG)
        return float(-np.log(p[np.arange(len(truth)), truth]).mean())

    assert loss(after) < loss(model)
    off = CONFIG.model_copy(update={"calibration": "none"})
    assert TASK.calibrate(off, processor, model, many) is model


def test_feed_gives_each_record_with_its_label(splits, processor):
    feed = TASK.feed(CONFIG, processor, splits)

    def pairs(batches) -> list[tuple]:
        return sorted(
            (tuple(i for i in row if i), int(number))
            for ids, numbers in batches
            for row, number in zip(ids.numpy().tolist(), numbers.numpy(), strict=True)
        )

    def expected(records) -> list[tuple]:
        ids = processor.encode([r.text for r in records])
        numbers = [LABELS.index(r.label) for r in records]
        return sorted((tuple(row.tolist()), n) for row, n in zip(ids, numbers, strict=True))

    assert pairs(feed.train(0)) == pairs(feed.train(7)) == expected(splits.train)
    assert pairs(feed.validation()) == expected(splits.validation)


def test_feed_repeats_an_epoch_and_shuffles_between_epochs(splits, processor):
    def order(epoch: int) -> list[list[int]]:
        feed = TASK.feed(CONFIG, processor, splits)
        return [numbers.numpy().tolist() for _, numbers in feed.train(epoch)]

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_feed_counts_its_steps_and_tokens(splits, processor):
    feed = TASK.feed(CONFIG, processor, splits)
    batches = [ids.numpy() for ids, _ in feed.train(0)]
    assert feed.steps == len(batches)
    assert feed.tokens == sum((ids > 0).sum() for ids in batches)
    assert feed.padded_tokens == sum(ids.size for ids in batches)


def test_probabilities_are_in_the_order_of_the_texts(splits, processor):
    model = models.build(CONFIG.model, vocabulary=processor.tokenizer.size, classes=3, seed=1)
    rows = processor.encode([r.text for r in splits.train] + [""])
    got = probabilities(model, rows, CONFIG)
    assert got.shape == (16, 3)
    np.testing.assert_allclose(got.sum(axis=1), 1)
    for row, expected in zip(rows, got, strict=True):
        ids = row if len(row) else np.zeros(1, np.int32)
        exp = np.exp(np.asarray(model.predict_on_batch(ids[None])[0], np.float64))
        np.testing.assert_allclose(exp / exp.sum(), expected, rtol=1e-5)


def test_evaluation_names_the_records_it_got_wrong(splits, processor):
    model = TASK.build(CONFIG, processor)
    evaluation = TASK.evaluate(CONFIG, processor, model, None, splits)
    wrong = evaluation.tables["worst_mistakes"].rows
    assert evaluation.scores["accuracy"] == pytest.approx(1 - len(wrong) / len(splits.test))
    by_place = {r.place: r for r in splits.test}
    for place, true, predicted, _, text in wrong:
        assert by_place[place].label == true != predicted
        assert by_place[place].text == text


def test_the_most_frequent_class_of_the_training_is_the_baseline(splits, processor):
    model = TASK.build(CONFIG, processor)
    # In training, "good" is the most frequent; of the test, "größer" is.
    counted = replace(splits, report={"labels": {"bad": 3, "good": 9, "größer": 2}})
    found = TASK.evaluate(CONFIG, processor, model, None, counted)
    share = np.mean([r.label == "good" for r in splits.test])
    assert found.baselines == {"most_frequent_class": pytest.approx(share)}
    low, high = found.intervals["accuracy"]
    assert low <= found.scores["accuracy"] <= high


def test_limits_are_counted(splits, processor):
    counted = replace(splits, report={"labels": {"bad": 3, "good": 90, "größer": 49}})
    rows = processor.encode([r.text for r in splits.test])
    unknown = np.mean(np.concatenate([np.asarray(row) for row in rows]) == UNKNOWN)
    words, cut, rare = TASK.limits(CONFIG, processor, counted)
    assert f"{unknown:.1%} of the words are unknown" in words
    assert cut.startswith(f"It reads 4 words of a text at most: {np.mean(rows.lengths >= 4):.1%}")
    assert rare == "Classes with fewer than 50 training texts: bad (3), größer (49)."
    whole = CONFIG.model_copy(update={"text": SentimentTextConfig(max_tokens=None)})
    assert len(TASK.limits(whole, processor, splits)) == 1
