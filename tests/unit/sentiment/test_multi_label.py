"""Texts with any number of labels: how they are read, trained, decided and scored."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from pipelines.engine.config import loader as configs
from pipelines.engine.core import plotting
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.splits import Splits
from pipelines.sentiment import label_evaluation, records
from pipelines.sentiment.calibration import Calibration, calibrated, calibration_of
from pipelines.sentiment.config import SentimentConfig
from pipelines.sentiment.multi_label import MultiLabel, best_f1_threshold
from pipelines.sentiment.records import MultiLabelText
from pipelines.sentiment.task import TASK

WORDS = {"music": "guitar", "film": "actor", "sport": "goal"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(source: str = "a.jsonl", **sections) -> SentimentConfig:
    data = {"source": source, "multi_label": True, **sections.pop("data", {})}
    return SentimentConfig.model_validate({"data": data, **sections})


def rows_of(count: int) -> list[dict]:
    """Texts with none, one, two or three labels, which their words tell."""
    rows = []
    for i in range(count):
        labels = [label for bit, label in enumerate(WORDS) if i >> bit & 1]
        words = [WORDS[label] for label in labels]
        rows.append({"text": " ".join([*words, f"the text {i}"]), "label": labels})
    return rows


def write(folder, rows, name: str = "a.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def load(source: str, **data) -> Splits:
    return records.load(config_of(source, data=data))


def everything(splits: Splits) -> list[MultiLabelText]:
    return [*splits.train, *splits.validation, *splits.test]


# Reading


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "semicolons", "disk"])
def test_lists_of_labels_are_read_in_every_form(folder, kind):
    rows, data = rows_of(64), {}
    expected = {row["text"]: sorted(row["label"]) for row in rows}
    if kind == "parquet":
        source = "a.parquet"
        pq.write_table(pa.Table.from_pylist(rows), folder / source)
    elif kind in ("csv", "semicolons"):
        source, mark = "a.csv", "|" if kind == "csv" else "; "
        lines = [f"{row['text']},{mark.join(row['label'])}" for row in rows]
        (folder / source).write_text("\n".join(["text,label", *lines]) + "\n")
        data = {} if kind == "csv" else {"separator": ";"}
    else:
        source = write(folder, rows)
        data = {"keep": "disk"} if kind == "disk" else {}
    splits = load(source, **data)
    assert {r.text: list(r.labels) for r in everything(splits)} == expected
    assert splits.report["labels"].keys() == WORDS.keys()


def test_labels_are_named_and_counted_once(folder):
    rows = [{"text": f"text {i}", "label": [0, 1, "0", 0.0][: i % 5]} for i in range(40)]
    splits = load(write(folder, rows), labels={"0": "calm", "1": "angry"})
    by_text = {r.text: r.labels for r in everything(splits)}
    assert by_text["text 0"] == []
    assert by_text["text 1"] == ["calm"]
    assert by_text["text 4"] == ["angry", "calm"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no 'label'"),
        (float("nan"), "no label"),
        ("nan", "no label"),
        ([None], "no label"),
        (["music", ""], "no label"),
        ([["music"]], "'label' is not a label"),
        ({"music": 1}, "'label' is not a label"),
    ],
)
def test_what_is_no_list_of_labels_is_counted(folder, value, reason):
    source = write(folder, [*rows_of(120), {"text": "x", "label": value}])
    assert load(source).report[source]["first_unusable"] == [f"{source}:121: {reason}"]


def test_unknown_labels_make_a_row_unusable(folder):
    source = write(folder, [*rows_of(120), {"text": "x", "label": ["music", "opera"]}])
    splits = load(source, labels={name: name for name in WORDS})
    assert splits.report[source]["first_unusable"] == [f"{source}:121: unknown label 'opera'"]


def test_texts_without_any_label_teach_nothing(folder):
    source = write(folder, [{"text": f"text {i}", "label": []} for i in range(40)])
    with pytest.raises(UserError) as caught:
        load(source)
    assert str(caught.value) == (
        "a.jsonl: training needs at least one label; after splitting there are no labels in 32 "
        "training rows (column 'label')"
    )


def test_a_column_of_texts_is_no_column_of_labels(folder):
    rows = [{"text": f"text {i}", "label": [f"id {i}"]} for i in range(60)]
    with pytest.raises(UserError, match="has 60 different labels in 60 rows: is this a class col"):
        load(write(folder, rows))


def test_the_only_text_with_a_label_is_for_training(folder):
    rows = [*rows_of(100), {"text": "aria", "label": ["film", "music", "opera"]}]
    for seed in range(5):
        config = config_of(write(folder, rows), seed=seed, data={"test": 0.3, "validation": 0.3})
        splits = records.load(config)
        assert "opera" in {label for r in splits.train for label in r.labels}
        assert "only one training text of the class 'opera'" in splits.report["notes"]


def test_combinations_that_are_all_different_are_split_too(folder):
    names = [f"l{i}" for i in range(12)]
    rows = [
        {"text": f"text {i}", "label": [n for bit, n in enumerate(names) if i >> bit & 1]}
        for i in range(0, 4096, 7)
    ]
    splits = load(write(folder, rows))
    assert 0.05 < len(splits.test) / len(rows) < 0.15
    assert records.labels_of(splits.test) == sorted(names)


# Configs


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("train.class_weights=balanced", "train.class_weights: with data.multi_label each label"),
        ("decision.threshold=0.8", "decision: with data.multi_label each label"),
        ("decision.accuracy=0.8", "decision: with data.multi_label each label"),
        ("model.ngrams={order: 2}", "model.ngrams: with data.multi_label n-grams are a model of"),
    ],
)
def test_keys_for_texts_with_one_class_are_refused(folder, override, part):
    (folder / "c.yaml").write_text("data: {source: a.jsonl, multi_label: true}\n")
    with pytest.raises(UserError) as caught:
        configs.load(folder / "c.yaml", SentimentConfig, [override])
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


# Targets, decisions and scores


@pytest.fixture(scope="module")
def splits() -> Splits:
    rows = [
        MultiLabelText(r["text"], sorted(r["label"]), f"a:{i}") for i, r in enumerate(rows_of(48))
    ]
    return Splits(rows[:24], rows[24:36], rows[36:], fingerprint="", report={})


def small_config() -> SentimentConfig:
    return config_of(
        text={"min_count": 1},
        model={"units": [4], "embedding": 3, "bidirectional": False},
        train={"batch_size": 4, "buckets": 3},
    )


def test_targets_are_the_numbers_of_the_labels(splits, tmp_path):
    config = small_config()
    processor = TASK.fit_processor(config, splits)
    processor.save(tmp_path)
    processor = TASK.processor.load(tmp_path)
    assert processor.multi_label
    assert processor.labels == ["film", "music", "sport"]
    _, targets = TASK.encode(processor, splits.train)
    hot = MultiLabel(config).hot(targets, 3)
    expected = [[float(name in r.labels) for name in processor.labels] for r in splits.train]
    np.testing.assert_array_equal(hot, expected)
    feed = TASK.feed(config, processor, splits)
    found = sorted(
        tuple(sorted(int(i) for i in row if i))
        for _, numbers in feed.train(0)
        for row in numbers.numpy()
    )
    assert found == sorted(
        tuple(processor.labels.index(name) + 1 for name in r.labels) for r in splits.train
    )


@given(st.lists(st.tuples(st.integers(0, 16), st.booleans()), min_size=1, max_size=20))
def test_no_threshold_has_a_higher_f1(pairs):
    probabilities = np.array([p / 16 for p, _ in pairs])
    truth = np.array([float(t) for _, t in pairs])

    def f1(threshold: float) -> float:
        chosen = probabilities >= threshold
        return float(2 * truth[chosen].sum() / (truth.sum() + chosen.sum()))

    found = best_f1_threshold(probabilities, truth)
    if not truth.any():
        assert found == 0.5
    else:
        assert f1(found) == pytest.approx(max(f1(t) for t in [0.0, *probabilities]))


@settings(max_examples=20)
@given(st.integers(0, 99))
def test_answers_are_the_labels_above_their_thresholds(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(5, 4)).astype(np.float32)
    names, thresholds = ["a", "b", "c", "d"], rng.uniform(0.1, 0.9, 4).tolist()
    how, calibration = MultiLabel(config_of()), Calibration(thresholds=thresholds)
    answer = how.answer(names, calibration)(tf.constant(logits))
    p = 1 / (1 + np.exp(-logits))
    for row in range(5):
        given_here = [i for i in np.argsort(-p[row]) if p[row, i] >= np.float32(thresholds[i])]
        expected = [names[i] for i in given_here]
        served = {name: tensor.numpy()[row] for name, tensor in answer.items()}
        assert served["labels"].tolist() == [n.encode() for n in expected] + [b""] * (
            4 - len(expected)
        )
        np.testing.assert_allclose(served["probabilities"], p[row], rtol=1e-5)
        told = how.present("text", served, names)
        assert told.json["labels"] == expected
        assert {row[0] for row in told.rows if row[2]} == set(expected)
        shown = served["probabilities"]
        said = how.describe(shown, names, calibration)
        assert said == (", ".join(f"{names[i]} ({shown[i]:.1%})" for i in given_here) or "(none)")


def evaluated(seed: int, rows: int = 30, labels: int = 3):
    rng = np.random.default_rng(seed)
    truth = rng.random((rows, labels)) < 0.4
    probabilities = np.clip(truth * 0.3 + rng.random((rows, labels)) * 0.7, 0.01, 0.99)
    thresholds = rng.uniform(0.2, 0.8, labels).astype(np.float32)
    texts = [MultiLabelText(f"text {i}", [], f"a:{i}") for i in range(rows)]
    names = [f"l{i}" for i in range(labels)]
    found = label_evaluation.evaluate(
        texts, truth, probabilities, names, temperature=1.5, thresholds=thresholds
    )
    return truth, probabilities, probabilities.astype(np.float32) >= thresholds, names, found


@settings(max_examples=20)
@given(st.integers(0, 999))
def test_scores_equal_the_ones_of_sklearn(seed):
    truth, probabilities, given_labels, names, found = evaluated(seed)
    scores = found.scores
    for average in ("micro", "macro"):
        expected = metrics.f1_score(truth, given_labels, average=average, zero_division=0)
        assert scores[f"{average}_f1"] == pytest.approx(expected)
    assert scores["accuracy"] == metrics.accuracy_score(truth, given_labels)
    assert scores["hamming_loss"] == pytest.approx(metrics.hamming_loss(truth, given_labels))
    assert scores["loss"] == pytest.approx(
        np.mean(
            [
                metrics.log_loss(t, p, labels=[0, 1])
                for t, p in zip(truth.T, probabilities.T, strict=True)
            ]
        )
    )
    by_label = metrics.precision_recall_fscore_support(truth, given_labels, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), by_label, strict=True):
        np.testing.assert_allclose([scores[f"{name}/{label}"] for label in names], values)
    if truth.any(axis=0).all() and not truth.all(axis=0).any():
        expected = metrics.roc_auc_score(truth, probabilities, average="macro")
        assert scores["roc_auc"] == pytest.approx(expected)


def test_tables_and_figures_of_an_evaluation(tmp_path):
    truth, _, given_labels, names, found = evaluated(3)
    assert found.tables["classes"].columns[-1] == "threshold"
    wrong = (truth != given_labels).any(axis=1)
    worst = found.tables["worst_mistakes"].rows
    assert {row[0] for row in worst} == {f"a:{i}" for i in np.flatnonzero(wrong)}
    assert [row[3] for row in worst] == sorted((row[3] for row in worst), reverse=True)
    for name, figure in found.figures.items():
        plotting.save_figure(figure, tmp_path / f"{name}.png")
    assert {p.stem for p in tmp_path.iterdir()} == {"reliability", "classes"}
    assert len(names) == len(found.tables["classes"].rows)


def test_a_model_of_labels_is_calibrated_explained_and_streamed(splits):
    config = small_config()
    processor = TASK.fit_processor(config, splits)
    model = TASK.calibrate(config, processor, TASK.build(config, processor), splits)
    assert len(calibration_of(model).thresholds) == 3
    sure = calibrated(TASK.build(config, processor), 1.0, [0.0, 1.0, 0.0])
    explanation = TASK.explain(config, processor, sure, "the guitar")
    assert {"film", "sport"} == {part.split(" ")[0] for part in explanation.answer.split(", ")}
    assert set(explanation.segments[0].curves) == set(processor.labels)
    endpoints = TASK.endpoints(config, processor, sure)
    state = endpoints["start"].function()
    whole = endpoints["serving_default"].function(tf.constant(["the guitar"]))
    first = endpoints["step"].function(tf.constant(["the gui"]), *state.values())
    state = [first[name] for name in state]
    second = endpoints["step"].function(tf.constant(["tar"]), *state)
    np.testing.assert_allclose(second["probabilities"], whole["probabilities"], rtol=1e-5)
    assert second["labels"].numpy().tolist() == whole["labels"].numpy().tolist()
    table = TASK.examples(config, processor, sure, splits)()
    assert table.columns == ["text", "true", "predicted", "confidence"]
    assert table.rows[0][1] == (", ".join(splits.validation[0].labels) or "(none)")
    scores = TASK.evaluate(config, processor, model, None, splits).scores
    assert 0 <= scores["micro_f1"] <= 1
