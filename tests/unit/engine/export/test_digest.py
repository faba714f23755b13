"""The digest of a model's inputs and answers, and what is measured of requests."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.engine.core.drift import Histogram
from pipelines.engine.core.paths import EXPORT_DIGEST
from pipelines.engine.export.digest import Digest, Measure, MeasuredHistogram


def texts(*values: str) -> np.ndarray:
    return np.array([value.encode() for value in values], object)


def measured(how: str, array: np.ndarray, side: str = "input") -> list:
    measure = Measure(name="m", side=side, tensor="x", how=how)
    arrays = {"x": array}
    return measure.of(arrays, {}) if side == "input" else measure.of({}, arrays)


def test_texts_are_measured():
    array = texts("grün  wie\nGras", "")
    assert measured("characters", array) == [14, 0]
    assert measured("words", array) == [3, 0]
    assert measured("bytes", array) == [15, 0]
    assert measured("category", array, "output") == ["grün  wie\nGras", ""]
    assert measured("characters", np.array([b"\xff"], object)) == [1]


def test_series_are_measured_by_their_first_column():
    series = np.random.default_rng(0).normal(5, 2, size=(3, 7, 2))
    first = series[..., 0]
    size = np.abs(first).mean(axis=1)
    expected = {
        "steps": [7, 7, 7],
        "mean": first.mean(axis=1),
        "spread": first.std(axis=1),
        "variation": first.std(axis=1) / size,
        "change": np.abs(np.diff(first, axis=1)).mean(axis=1) / size,
    }
    for how, values in expected.items():
        np.testing.assert_allclose(measured(how, series), values, err_msg=how)
        np.testing.assert_allclose(measured(how, first), values, err_msg=how)


@pytest.mark.parametrize("how", ["steps", "mean", "spread", "variation", "change"])
@pytest.mark.parametrize("shape", [(), (0,), (2,), (0, 3), (2, 0), (2, 1), (2, 1, 0), (1, 2, 3, 4)])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e308])
def test_whatever_shape_a_client_sends_is_measured_without_an_error(how, shape, value):
    found = measured(how, np.full(shape, value))
    assert len(found) in (0, shape[0] if shape else 0)


def test_a_tensor_that_is_not_there_has_no_values():
    assert Measure(name="m", side="input", tensor="y", how="value").of({"x": np.ones(1)}, {}) == []


def digest() -> Digest:
    measure = Measure(name="words", side="input", tensor="text", how="words")
    histogram = Histogram.of_numbers(np.array([1.0, 2.0, 3.0]))
    return Digest(
        split="validation", records=5, used=3, answered=3, features={"tokens": histogram},
        measured=(MeasuredHistogram(measure=measure, histogram=histogram),),
    )  # fmt: skip


def test_a_digest_is_written_into_a_savedmodel(tmp_path):
    assert Digest.read(tmp_path) is None
    digest().write(tmp_path)
    assert Digest.read(tmp_path) == digest()
    assert [p.name for p in (tmp_path / EXPORT_DIGEST).parent.iterdir()] == [EXPORT_DIGEST.name]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"version": "x"}', "\xff"])
def test_a_damaged_digest_is_an_error(tmp_path, content):
    digest().write(tmp_path)
    (tmp_path / EXPORT_DIGEST).write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="damaged"):
        Digest.read(tmp_path)


def test_a_digest_of_a_newer_version_is_an_error(tmp_path):
    digest().model_copy(update={"version": 2}).write(tmp_path)
    with pytest.raises(ValueError, match="newer version"):
        Digest.read(tmp_path)
