"""New data is read as that of training is, with or without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.captioning.config import CONFIG as CAPTIONING
from pipelines.captioning.records import load_inputs as load_pictures
from pipelines.engine.core.errors import UserError
from pipelines.forecasting.config import CONFIG as FORECASTING
from pipelines.forecasting.records import load_inputs as load_series
from pipelines.generation.config import CONFIG as GENERATION
from pipelines.generation.records import load_inputs as load_documents
from pipelines.sentiment.config import CONFIG as SENTIMENT
from pipelines.sentiment.records import load_inputs as load_texts
from pipelines.translation.config import CONFIG as TRANSLATION
from pipelines.translation.records import load_inputs as load_pairs
from tests.support.pictures import encoded, shape


def write(folder: Path, text: str, name: str = "new.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def sentiment(**data: Any) -> Any:
    return SENTIMENT.model_validate({"data": {"source": "old.csv", **data}})


def test_labels_are_read_where_there_are_some(tmp_path):
    report: dict[str, Any] = {}
    source = write(tmp_path, "label,text\n1,good\n0,bad\n")
    found = load_texts(sentiment(labels={"0": "no", "1": "yes"}), source, report)
    assert [(r.text, r.label) for r in found] == [("good", "yes"), ("bad", "no")]
    assert report[source]["rows"] == 2


@pytest.mark.parametrize(("name", "content"), [
    ("new.csv", "text\ngood\nbad\n"),
    ("new.jsonl", '{"text": "good"}\n{"text": "bad"}\n'),
    ("new.jsonl", '{"text": "good", "label": null}\n{"text": "bad", "label": null}\n'),
])  # fmt: skip
def test_labels_are_not_needed(tmp_path, name, content):
    found = load_texts(sentiment(), write(tmp_path, content, name), {})
    assert [(r.text, r.label) for r in found] == [("good", ""), ("bad", "")]


def test_where_is_applied_if_the_data_has_its_columns(tmp_path):
    config = sentiment(where={"site": "a"})
    report: dict[str, Any] = {}
    source = write(tmp_path, "text,site\ngood,a\nbad,b\n")
    assert [r.text for r in load_texts(config, source, report)] == ["good"]
    assert "notes" not in report
    source = write(tmp_path, "text\ngood\nbad\n")
    assert [r.text for r in load_texts(config, source, report)] == ["good", "bad"]
    assert report["notes"] == [f"{source}: has no column 'site', so that data.where is not applied"]


def test_unusable_rows_are_counted_and_too_many_are_an_error(tmp_path):
    report: dict[str, Any] = {}
    source = write(tmp_path, 'text\ngood\n""\nbad\n')
    found = load_texts(sentiment(max_bad_rows=0.5), source, report)
    assert len(found) == 2
    assert report[source]["unusable"] == {"empty text": 1}
    with pytest.raises(UserError, match=r"1 of 3 rows cannot be used .*max_bad_rows allows 1"):
        load_texts(sentiment(), source, report)


@pytest.mark.parametrize(("load", "config", "column"), [
    (load_texts, SENTIMENT, "text"), (load_documents, GENERATION, "text"),
    (load_pairs, TRANSLATION, "input"), (load_pictures, CAPTIONING, "image"),
    (load_series, FORECASTING, "date"),
])  # fmt: skip
def test_a_column_of_the_input_that_is_missing_is_an_error(tmp_path, load, config, column):
    source = write(tmp_path, "a,b\n1,2\n")
    chosen = config.model_validate({"data": {"source": "old.csv", "where": {"c": "1"}}})
    with pytest.raises(UserError) as error:
        load(chosen, source, {})
    assert str(error.value) == f"{source}:1: no column {column!r}; there are: a, b"


def test_translations_are_not_needed(tmp_path):
    config = TRANSLATION.model_validate({"data": {"source": "old.csv", "max_characters": 9}})
    report: dict[str, Any] = {}
    source = write(tmp_path, "input\nHallo  Welt\nzu lang für uns\nja\n")
    found = load_pairs(config, source, report)
    assert [(p.input, p.output) for p in found] == [("ja", "")]
    assert report[source]["left_out"] == 2
    source = write(tmp_path, "input,output\nja,yes\n")
    assert [(p.input, p.output) for p in load_pairs(config, source, {})] == [("ja", "yes")]


def test_captions_are_not_needed(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(shape("red", "ring"), "PNG"))
    config = CAPTIONING.model_validate({"data": {"source": "old.csv", "max_bad_rows": 0.5}})
    report: dict[str, Any] = {}
    source = write(tmp_path, "image\na.png\na.png\ngone.png\n")
    (found,) = load_pictures(config, source, report)
    assert found.captions == ()
    assert report[source]["unusable"] == {"no such picture": 1}
    source = write(tmp_path, "image,caption\na.png,A ring .\na.png,Red .\n")
    (found,) = load_pictures(config, source, {})
    assert found.captions == ("A ring .", "Red .")


def test_series_are_read_whole_whatever_their_dates(tmp_path):
    config = FORECASTING.model_validate(
        {"data": {"source": "old.csv", "end": "2020-01-01", "where": {"market": "x"}}}
    )
    lines = [f"2024-01-{day:02},{day}" for day in range(1, 9)]
    source = write(tmp_path, "\n".join(["date,close", *lines, ""]))
    report: dict[str, Any] = {}
    (found,) = load_series(config, source, report)
    assert (found.start, found.stop, len(found.series)) == (0, 8, 8)
    assert "has no column 'market'" in report["notes"][0]
