"""Scores against numbers made by hand, and pictures that can be drawn of any result."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from pipelines.engine.core import plotting
from pipelines.sentiment.evaluation import evaluate
from pipelines.sentiment.records import LabelledText

PNG = b"\x89PNG\r\n\x1a\n"


def records(count: int) -> list[LabelledText]:
    return [LabelledText(f"text {i}", "", f"a.csv:{i + 2}") for i in range(count)]


def of(truth, probabilities, labels):
    truth, probabilities = np.asarray(truth), np.asarray(probabilities, np.float64)
    return evaluate(records(len(truth)), truth, probabilities, labels)


def png_size(path) -> tuple[int, int]:
    raw = path.read_bytes()
    assert raw.startswith(PNG)
    return int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")


# Scores


def test_scores_made_by_hand():
    #            right        right        wrong        right
    scores = of(
        [0, 1, 0, 1], [[0.9, 0.1], [0.3, 0.7], [0.4, 0.6], [0.2, 0.8]], ["neg", "pos"]
    ).scores
    assert scores["accuracy"] == 0.75
    # neg: precision 1, recall 1/2; pos: precision 2/3, recall 1.
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert scores["loss"] == pytest.approx(-np.log([0.9, 0.7, 0.4, 0.8]).mean())
    # Each confidence has a bin to itself: |0.9 - 1|, |0.7 - 1|, |0.6 - 0|, |0.8 - 1|.
    assert scores["calibration_error"] == pytest.approx((0.1 + 0.3 + 0.6 + 0.2) / 4)
    # Each pos is more likely pos than each neg is: 0.7 and 0.8 against 0.1 and 0.6.
    assert scores["roc_auc"] == 1.0


def random_scores(rows: int, classes: int, seed: int):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return rng.integers(0, classes, rows), probabilities


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 99))
def test_scores_equal_the_ones_of_sklearn(rows, classes, seed):
    truth, probabilities = random_scores(rows, classes, seed)
    labels = [f"c{i}" for i in range(classes)]
    scores = of(truth, probabilities, labels).scores
    predicted = probabilities.argmax(axis=1)
    everywhere = np.arange(classes)
    assert scores["accuracy"] == metrics.accuracy_score(truth, predicted)
    assert scores["loss"] == pytest.approx(
        metrics.log_loss(truth, probabilities, labels=everywhere)
    )
    assert scores["macro_f1"] == pytest.approx(
        metrics.f1_score(truth, predicted, labels=everywhere, average="macro", zero_division=0)
    )
    if len(set(truth)) < classes:
        assert "roc_auc" not in scores
    elif classes == 2:
        assert scores["roc_auc"] == metrics.roc_auc_score(truth, probabilities[:, 1])
    else:
        assert scores["roc_auc"] == metrics.roc_auc_score(truth, probabilities, multi_class="ovr")
    assert all(math.isfinite(v) and type(v) is float for v in scores.values())


def test_sure_and_wrong_has_a_finite_loss():
    scores = of([0, 1], [[0.0, 1.0], [0.0, 1.0]], ["neg", "pos"]).scores
    assert scores["loss"] == pytest.approx(-math.log(1e-12) / 2)


def test_class_that_is_never_true_counts_in_the_mean_of_classes():
    evaluation = of([0, 0], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], ["a", "b", "c"])
    assert evaluation.scores["macro_f1"] == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert "roc_auc" not in evaluation.scores


def reference_calibration_error(confidence, correct, bins: int) -> float:
    total = 0.0
    for b in range(bins):
        inside = [
            (c, r) for c, r in zip(confidence, correct, strict=True)
            if b / bins <= c < (b + 1) / bins or (b == bins - 1 and c == 1)
        ]  # fmt: skip
        if inside:
            mean, right = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            total += len(inside) / len(confidence) * abs(mean - right)
    return total


@given(
    st.lists(st.tuples(st.integers(0, 1024), st.booleans()), min_size=1, max_size=30),
    st.sampled_from([1, 2, 4, 8, 16]),
)
def test_calibration_error_equals_its_definition(pairs, bins):
    # Sixteenths and their like lie exactly on the edges of bins.
    confidence = np.array([c / 1024 for c, _ in pairs])
    correct = np.array([r for _, r in pairs])
    assert plotting.expected_calibration_error(confidence, correct, bins=bins) == pytest.approx(
        reference_calibration_error(confidence, correct, bins)
    )


def test_calibration_error_of_the_extremes():
    error = plotting.expected_calibration_error
    assert error(np.ones(4), np.ones(4, bool)) == 0.0
    assert error(np.ones(4), np.zeros(4, bool)) == 1.0
    assert error(np.full(4, 0.75), np.array([1, 1, 1, 0], bool)) == pytest.approx(0.0)


# Classes


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 99))
def test_scores_of_classes_equal_the_ones_of_sklearn(rows, classes, seed):
    truth, probabilities = random_scores(rows, classes, seed)
    labels = [f"c{i}" for i in range(classes)]
    evaluation = of(truth, probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    expected = metrics.precision_recall_fscore_support(
        truth, predicted, labels=np.arange(classes), zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        found = [evaluation.scores[f"{name}/{label}"] for label in labels]
        np.testing.assert_allclose(found, values)
    table = evaluation.tables["classes"]
    assert table.columns == ["class", "precision", "recall", "f1", "support", "predicted"]
    assert [row[0] for row in table.rows] == labels
    columns = np.array([row[1:] for row in table.rows]).T
    np.testing.assert_allclose(columns[:4], expected, atol=1e-4)
    np.testing.assert_array_equal(columns[4], np.bincount(predicted, minlength=classes))


def test_very_many_classes_have_their_scores_in_the_table_only():
    truth, probabilities = random_scores(200, 60, 0)
    evaluation = of(truth, probabilities, [f"c{i}" for i in range(60)])
    assert not [name for name in evaluation.scores if "/" in name]
    assert len(evaluation.tables["classes"].rows) == 60


@pytest.mark.parametrize("label", ["C++", "../up", "a/b", "", "日本", "x" * 300, "a\nb"])
def test_any_class_has_a_metric_that_stores_accept(label):
    from pipelines.engine.runs import mlflow_names

    evaluation = of([0, 1], [[0.9, 0.1], [0.1, 0.9]], [label, "other"])
    keys = [mlflow_names.key(f"test/{name}") for name in evaluation.scores]
    assert len(set(keys)) == len(evaluation.scores)
    assert all(mlflow_names.key(key) for key in keys)


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("classes", [2, 60])
def test_the_figure_of_classes_fits_on_a_page(classes, tmp_path):
    truth, probabilities = random_scores(100, classes, 0)
    figure = of(truth, probabilities, [f"$c{i}" for i in range(classes)]).figures["classes"]
    plotting.save_figure(figure, tmp_path / "c.png")
    assert max(png_size(tmp_path / "c.png")) < 2_500


# Calibration


@settings(max_examples=25)
@given(st.floats(0.2, 5), st.integers(2, 4), st.integers(0, 99))
def test_the_calibration_error_before_the_temperature(temperature, classes, seed):
    truth, before = random_scores(30, classes, seed)
    logits = np.log(before) / temperature
    after = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = [f"c{i}" for i in range(classes)]
    evaluation = evaluate(records(30), truth, after, labels, temperature=temperature)
    plain = of(truth, before, labels).scores
    assert plain["temperature"] == 1.0
    assert plain["calibration_error_before"] == pytest.approx(plain["calibration_error"])
    assert evaluation.scores["temperature"] == temperature
    assert evaluation.scores["calibration_error_before"] == pytest.approx(
        plain["calibration_error"], abs=1e-6
    )
    assert evaluation.scores["accuracy"] == plain["accuracy"]
    assert len(evaluation.verdict) == (temperature != 1.0)


# Mistakes


def test_worst_mistakes_come_first():
    evaluation = of(
        [0, 1, 0, 1, 0],
        [[0.4, 0.6], [0.95, 0.05], [0.9, 0.1], [0.7, 0.3], [0.4, 0.6]],
        ["neg", "pos"],
    )
    table = evaluation.tables["worst_mistakes"]
    assert table.columns == ["place", "true", "predicted", "confidence", "text"]
    assert table.rows == [
        ["a.csv:3", "pos", "neg", 0.95, "text 1"],
        ["a.csv:5", "pos", "neg", 0.7, "text 3"],
        ["a.csv:2", "neg", "pos", 0.6, "text 0"],
        ["a.csv:6", "neg", "pos", 0.6, "text 4"],
    ]


def test_at_most_fifty_mistakes_and_their_beginnings():
    many = [LabelledText("x" * 5_000, "", f"a.csv:{i}") for i in range(80)]
    evaluation = evaluate(many, np.zeros(80, int), np.array([[0.1, 0.9]] * 80), ["neg", "pos"])
    rows = evaluation.tables["worst_mistakes"].rows
    assert [row[0] for row in rows] == [f"a.csv:{i}" for i in range(50)]
    assert {row[-1] for row in rows} == {"x" * 1_000}


def test_no_mistakes():
    evaluation = of([0, 1], [[0.9, 0.1], [0.1, 0.9]], ["neg", "pos"])
    assert evaluation.tables["worst_mistakes"].rows == []
    assert evaluation.scores["accuracy"] == evaluation.scores["macro_f1"] == 1.0


# Pictures


def test_figures_of_an_evaluation_are_drawn(tmp_path):
    truth, probabilities = random_scores(30, 3, 0)
    for name, figure in of(truth, probabilities, ["a", "b", "c"]).figures.items():
        plotting.save_figure(figure, tmp_path / f"{name}.png")
    found = {p.stem: png_size(p) for p in tmp_path.iterdir()}
    assert set(found) == {"confusion_matrix", "reliability", "coverage", "classes"}
    assert all(width > 300 and height > 200 for width, height in found.values())


def texts_of(figure) -> list[str]:
    (ax,) = figure.axes
    return [t.get_text() for t in ax.texts]


def test_confusion_matrix_shows_counts_and_shares():
    matrix = np.array([[3, 1], [0, 1_234]])
    assert texts_of(plotting.confusion_matrix(matrix, ["neg", "pos"])) == [
        "3\n75.0%", "1\n25.0%", "0\n0.0%", "1,234\n100.0%",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize(
    "labels",
    [["$x", "y$"], ["$\\frac$", "b_{$"], ["", " "], ["日本", "🙂"], ["l" * 200, "a\nb"]],
)
def test_any_label_can_be_drawn(labels, tmp_path):
    plotting.save_figure(
        plotting.confusion_matrix(np.eye(2, dtype=int), labels), tmp_path / "c.png"
    )
    width, height = png_size(tmp_path / "c.png")
    assert 300 < width < 4_000
    assert 300 < height < 4_000


@pytest.mark.parametrize("classes", [21, 1_500])
def test_many_classes_fit_on_a_picture(classes, tmp_path):
    matrix = np.eye(classes, dtype=int)
    plotting.save_figure(
        plotting.confusion_matrix(matrix, [f"c{i}" for i in range(classes)]), tmp_path / "c.png"
    )
    assert max(png_size(tmp_path / "c.png")) < 4_000


def test_confusion_of_a_class_without_records(tmp_path):
    plotting.save_figure(
        plotting.confusion_matrix(np.array([[2, 0], [0, 0]]), ["a", "b"]), tmp_path / "c.png"
    )
    assert png_size(tmp_path / "c.png")


def test_reliability_shows_the_bins_of_the_calibration_error(tmp_path):
    confidence, correct = np.array([0.3, 0.62, 0.68, 1.0]), np.array([True, False, True, True])
    figure = plotting.reliability_diagram(confidence, correct)
    (ax,) = figure.axes
    curve = next(line for line in ax.lines if line.get_label() == "model")
    np.testing.assert_allclose(curve.get_xydata(), [[0.3, 1], [0.65, 0.5], [1.0, 1.0]])
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], [0.25, 0.5, 0.25])
    np.testing.assert_allclose([bar.get_x() for bar in ax.patches], [0.3, 0.6, 0.9])
    error = plotting.expected_calibration_error(confidence, correct)
    assert f"{error:.3f}" in ax.get_title()
    plotting.save_figure(figure, tmp_path / "r.png")
    assert png_size(tmp_path / "r.png")


@pytest.mark.parametrize("epochs", [1, 7])
def test_learning_curves_have_a_panel_for_each_score(epochs, tmp_path):
    history = [
        {"loss": 1 / (e + 1), "val_loss": 1.0, "accuracy": 0.5, "val_accuracy": 0.4, "seconds": 9.0}
        for e in range(epochs)
    ]
    figure = plotting.learning_curves(history, "run")
    assert [ax.get_title() for ax in figure.axes] == ["loss", "accuracy"]
    training, validation = figure.axes[0].lines
    np.testing.assert_allclose(training.get_ydata(), [1 / (e + 1) for e in range(epochs)])
    np.testing.assert_allclose(validation.get_ydata(), 1.0)
    assert list(training.get_xdata()) == list(range(1, epochs + 1))
    plotting.save_figure(figure, tmp_path / "curves.png")
    assert png_size(tmp_path / "curves.png")
