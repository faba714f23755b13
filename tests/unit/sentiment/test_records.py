"""From files to labelled splits: what is kept, what is dropped, and what is said about it."""

import csv
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.splits import Splits
from pipelines.sentiment import records
from pipelines.sentiment.config import SentimentConfig, SentimentDataConfig


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, so that sources are named without their folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(folder):
    def write(name: str, *rows: dict) -> str:
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            if name.endswith(".jsonl"):
                file.writelines(json.dumps(row) + "\n" for row in rows)
            else:
                writer = csv.DictWriter(file, rows[0].keys())
                writer.writeheader()
                writer.writerows(rows)
        return name

    return write


def reviews(count: int, labels=("neg", "pos"), start: int = 0) -> list[dict]:
    return [
        {"text": f"text {i}", "label": labels[i % len(labels)]} for i in range(start, start + count)
    ]


def load(source: str, *, seed: int = 1, **data) -> Splits:
    return records.load(SentimentConfig(seed=seed, data=SentimentDataConfig(source=source, **data)))


def error(source: str, **data) -> str:
    with pytest.raises(UserError) as caught:
        load(source, **data)
    return str(caught.value)


def texts(split: list[records.LabelledText]) -> set[str]:
    return {r.text for r in split}


def everything(splits: Splits) -> list[records.LabelledText]:
    return [*splits.train, *splits.validation, *splits.test]


# Splitting


def test_shares_of_one_source(write):
    splits = load(write("a.csv", *reviews(100)), validation=0.1, test=0.2)
    for split, size in ((splits.train, 70), (splits.validation, 10), (splits.test, 20)):
        assert Counter(r.label for r in split) == {"neg": size / 2, "pos": size / 2}
    assert len(texts(everything(splits))) == 100
    assert splits.report["records"] == {"train": 70, "validation": 10, "test": 20}
    assert splits.report["labels"] == {"neg": 35, "pos": 35}
    assert splits.report["a.csv"] == {
        "rows": 100,
        "filtered_out": 0,
        "left_out": 0,
        "repeated": 0,
        "unusable": {},
        "first_unusable": [],
    }


def test_records_are_as_they_stand_in_the_file(write):
    rows = [{"text": f" Text {i}!\n", "label": f" {'ab'[i % 2]} "} for i in range(20)]
    splits = load(write("a.csv", *rows))
    assert texts(everything(splits)) == {row["text"] for row in rows}
    assert {r.label for r in everything(splits)} == {"a", "b"}
    places = {r.place: r.text for r in everything(splits)}
    assert places["a.csv:2"] == " Text 0!\n"
    assert places["a.csv:4"] == " Text 1!\n"  # each text has a line break in it


def test_same_seed_same_splits_and_fingerprint(write):
    source = write("a.csv", *reviews(40))
    first, again, other = load(source), load(source), load(source, seed=2)
    assert (first.train, first.validation, first.test) == (
        again.train,
        again.validation,
        again.test,
    )
    assert first.fingerprint == again.fingerprint
    assert first.test != other.test
    assert first.fingerprint != other.fingerprint


@pytest.mark.parametrize("change", [{"text": "other"}, {"label": "pos"}])
def test_fingerprint_sees_each_field(write, change):
    rows = reviews(40)
    before = load(write("a.csv", *rows)).fingerprint
    rows[0] = rows[0] | change
    assert load(write("a.csv", *rows)).fingerprint != before


def test_duplicates_fall_on_one_side(write):
    source = write("a.csv", *reviews(30), *reviews(30), *reviews(30))
    splits = load(source, test=0.3, validation=0.2)
    assert len(everything(splits)) == 90
    sides = [texts(s) for s in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, sides)) == 30


def test_held_out_files_are_taken_whole_and_out_of_training(write):
    source = write("all.csv", *reviews(20))
    test = write("test.csv", *reviews(4), *reviews(4, start=100))
    validation = write("validation.csv", *reviews(4, start=2))
    splits = load(source, test=test, validation=validation)
    assert [r.text for r in splits.test] == [f"text {i}" for i in (0, 1, 2, 3, 100, 101, 102, 103)]
    assert [r.place for r in splits.validation] == ["validation.csv:4", "validation.csv:5"]
    assert texts(splits.train) == {f"text {i}" for i in range(6, 20)}
    assert splits.report["validation_dropped_as_held_out"] == 2
    assert splits.report["train_dropped_as_held_out"] == 6
    assert {"all.csv", "test.csv", "validation.csv"} <= set(splits.report)


def test_held_out_file_and_a_share(write):
    source = write("all.csv", *reviews(40))
    splits = load(source, test=write("test.csv", *reviews(10)), validation=0.25)
    assert len(splits.test) == 10
    assert not texts(splits.test) & (texts(splits.train) | texts(splits.validation))
    assert texts(everything(splits)) == {f"text {i}" for i in range(40)}


def test_shares_that_leave_nothing(write):
    source = write("a.csv", *reviews(40))
    assert error(source, validation=0.5, test=0.5) == (
        "data.test and data.validation hold out 100% of a.csv: nothing is left to train on"
    )


def test_rare_class_stays_in_training(write):
    source = write("a.csv", *reviews(40), {"text": "so so", "label": "neutral"})
    splits = load(source, validation=0.1, test=0.6)
    assert "so so" in texts(splits.train)


def test_many_classes(write):
    labels = [f"class {i:03}" for i in range(150)]
    splits = load(write("a.csv", *reviews(1500, labels)), validation=0.1, test=0.1)
    assert records.labels_of(splits.train) == labels
    assert records.labels_of(splits.test) == labels
    assert splits.report["labels"] == dict.fromkeys(labels, 8)


# Labels


def test_names_for_labels(write):
    source = write("a.csv", *reviews(40, ("0", "1")))
    splits = load(source, labels={"0": "negative", "1": "positive"})
    by_text = {r.text: r.label for r in everything(splits)}
    assert by_text["text 0"] == "negative"
    assert by_text["text 1"] == "positive"


def test_two_labels_may_share_a_name(write):
    source = write("a.csv", *reviews(40, ("1", "2", "4", "5")))
    splits = load(source, labels={"1": "bad", "2": "bad", "4": "good", "5": "good"})
    assert records.labels_of(splits.train) == ["bad", "good"]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0, 1], ["0", "1"]),
        ([1, 1.0, 2.5], ["1", "2.5"]),
        ([-1, 10**20], ["-1", str(10**20)]),
        ([True, False], ["false", "true"]),
        (["yes", " yes", "no"], ["no", "yes"]),
    ],
)
def test_json_labels_of_any_kind(write, values, names):
    assert records.labels_of(load(write("a.jsonl", *reviews(60, values))).train) == names


@pytest.mark.parametrize("value", [["pos"], {"a": 1}])
def test_json_value_that_is_no_label_is_counted(write, value):
    source = write("a.jsonl", *reviews(99), {"text": "x", "label": value})
    splits = load(source)
    assert splits.report["a.jsonl"]["first_unusable"] == ["a.jsonl:100: 'label' is not a label"]


@pytest.mark.parametrize("value", [float("nan"), None, float("inf"), "nan", "None", "", " "])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_missing_label_is_no_class(write, name, value):
    source = write(name, *reviews(99), {"text": "x", "label": value})
    splits = load(source)
    (line,) = splits.report[name]["first_unusable"]
    assert line.startswith(f"{name}:{101 if name == 'a.csv' else 100}: no ")
    assert records.labels_of(splits.train) == ["neg", "pos"]


def feature(value):
    """Return a feature of a TFRecord file; without values for None."""
    if isinstance(value, float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    values = [] if value is None else [value.encode()]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


@pytest.mark.parametrize("value", [float("nan"), None, float("inf"), "nan", "None", "", " "])
def test_missing_label_in_tfrecord_is_no_class(folder, value):
    with tf.io.TFRecordWriter(str(folder / "a.tfrecord")) as file:
        for row in [*reviews(99), {"text": "x", "label": value}]:
            features = tf.train.Features(feature={k: feature(v) for k, v in row.items()})
            file.write(tf.train.Example(features=features).SerializeToString())
    splits = load("a.tfrecord")
    (line,) = splits.report["a.tfrecord"]["first_unusable"]
    assert line.startswith("a.tfrecord:100: no ")
    assert records.labels_of(splits.train) == ["neg", "pos"]


@pytest.mark.parametrize(
    ("labels", "value"),
    [
        (pa.float64(), float("nan")),
        (pa.float64(), float("inf")),
        (pa.float64(), None),
        (pa.string(), None),
        (pa.string(), "NaN"),
        (pa.dictionary(pa.int8(), pa.string()), None),
    ],
)
def test_missing_label_in_parquet_is_no_class(folder, labels, value):
    kinds = (0.0, 1.0) if labels == pa.float64() else ("neg", "pos")
    rows = reviews(99, kinds)
    column = pa.array([*(row["label"] for row in rows), value], labels)
    table = {"text": [*(row["text"] for row in rows), "x"], "label": column}
    pq.write_table(pa.table(table), folder / "a.parquet")
    splits = load("a.parquet")
    assert splits.report["a.parquet"]["unusable"] == {"no label": 1}
    assert len(records.labels_of(splits.train)) == 2


def test_too_many_missing_labels_are_an_error(write):
    rows = reviews(300)
    for row in rows[3::10]:
        row["label"] = float("nan")
    assert error(write("a.jsonl", *rows)).startswith(
        "a.jsonl: 30 of 300 rows cannot be used (no label: 30)"
    )


def test_class_that_the_config_calls_none(write):
    rows = reviews(40, ("None", "pos"))
    assert "(no label: 20)" in error(write("a.csv", *rows))
    names = {"None": "none", "pos": "pos"}
    assert records.labels_of(load("a.csv", labels=names).train) == ["none", "pos"]


def test_column_of_identifiers_is_no_class_column(write):
    rows = [row | {"label": f"id {i}"} for i, row in enumerate(reviews(60))]
    message = error(write("a.csv", *rows))
    assert message.startswith(
        "a.csv: the column 'label' has 60 different labels in 60 rows: is this a class column?"
    )
    assert "data.label" in message


def test_row_without_a_value_for_where_is_unusable(write):
    rows = [row | {"lang": "en"} for row in reviews(200)]
    rows[7]["lang"] = float("nan")
    source = write("a.jsonl", *rows)
    splits = load(source, where={"lang": "en"})
    assert splits.report["a.jsonl"]["first_unusable"] == ["a.jsonl:8: no 'lang'"]


def test_label_that_occurs_only_in_the_test(write):
    source = write("a.csv", *reviews(20))
    test = write("test.csv", {"text": "x", "label": "neutral"})
    assert error(source, test=test) == (
        "data.test: label 'neutral' does not occur in training; there are: neg, pos"
    )
    assert error(source, validation=test, test=0.2).startswith("data.validation: label 'neutral'")


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (reviews(20, ("pos",)), "only the label 'pos' in 16 training rows"),
        (reviews(1), "only the label 'neg' in 1 training rows"),
    ],
)
def test_training_needs_two_classes(write, rows, found):
    message = error(write("a.csv", *rows))
    assert message.startswith("a.csv: training needs at least two classes;")
    assert found in message
    assert message.endswith("(column 'label')")


def test_training_that_is_all_held_out(write):
    source = write("a.csv", *reviews(20))
    assert "there are no rows in 0 training rows" in error(source, test=source)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_empty_split_says_what_to_do(write, name):
    source = write("a.csv", *reviews(20))
    message = error(source, **({"validation": 0.2, "test": 0.2} | {name: 0.0}))
    assert message == (
        f"a.csv: the {name} split is empty (16 training rows); "
        f"give more rows, a larger data.{name}, or a source of its own"
    )


def test_few_rows(write):
    assert "the validation split is empty (4 training rows)" in error(write("a.csv", *reviews(4)))


# Rare classes


def test_a_class_that_is_too_rare_is_pointed_at(write):
    source = write("a.csv", *reviews(40), {"text": "so so", "label": "neutral"})
    splits = load(source)
    assert splits.report["notes"] == [
        "only one training text of the class 'neutral'",
        "no validation text of the class 'neutral'",
        "no test text of the class 'neutral'",
    ]
    assert "notes" not in load(write("b.csv", *reviews(40))).report


def test_of_many_rare_classes_some_are_named(write):
    rare = [{"text": f"rare {i}", "label": f"r{i}"} for i in range(7)]
    notes = load(write("a.csv", *reviews(40), *rare)).report["notes"]
    assert notes[0] == (
        "only one training text of the class 'r0', 'r1', 'r2', 'r3', 'r4' and 2 more"
    )


# Rows that cannot be used, and rows that are not wanted


def test_unusable_rows_are_skipped_counted_and_shown(write):
    bad = [
        {"text": "", "label": "pos"},
        {"text": " \t\n", "label": "pos"},
        {"text": "no label", "label": " "},
        {"text": "odd label", "label": "x" * 100},
    ]
    source = write("a.csv", *bad, *reviews(36))
    names = {"pos": "good", "neg": "bad"}
    splits = load(source, labels=names, max_bad_rows=0.1)
    assert len(everything(splits)) == 36
    assert splits.report["a.csv"] == {
        "rows": 40,
        "filtered_out": 0,
        "left_out": 0,
        "repeated": 0,
        "unusable": {
            "empty text": 2,
            "no label": 1,
            f"unknown label '{'x' * 40}'": 1,
        },
        "first_unusable": [
            "a.csv:2: empty text",
            "a.csv:3: empty text",
            "a.csv:5: no label",
            f"a.csv:6: unknown label '{'x' * 40}'",
        ],
    }
    first, *examples = error(source, labels=names).split("\n")
    assert first.startswith("a.csv: 4 of 40 rows cannot be used (empty text: 2, ")
    assert first.endswith("; data.max_bad_rows allows 1.0%")
    assert examples == [f"  {line}" for line in splits.report["a.csv"]["first_unusable"]]


def test_text_that_is_not_text_is_counted(write):
    source = write("a.jsonl", *reviews(99), {"text": 5, "label": "pos"})
    assert load(source).report["a.jsonl"]["first_unusable"] == ["a.jsonl:100: 'text' is not text"]


def test_bad_rows_of_a_held_out_file_count_on_their_own(write):
    source = write("a.csv", *reviews(500))
    test = write("test.csv", *reviews(3, start=900), {"text": "", "label": "pos"})
    assert error(source, test=test).startswith("test.csv: 1 of 4 rows cannot be used")


def test_where_keeps_some_rows(write):
    rows = [
        row | {"lang": ("en", "fr", "en ")[i % 3], "year": i % 2 + 2000, "ok": i % 5 > 0}
        for i, row in enumerate(reviews(60, ("a", "b", "c", "d")))
    ]
    source = write("a.jsonl", *rows)
    splits = load(source, where={"lang": "en", "year": "2001", "ok": "true"})
    expected = {
        r["text"] for r in rows if r["lang"].strip() == "en" and r["year"] == 2001 and r["ok"]
    }
    assert texts(everything(splits)) == expected
    assert splits.report["a.jsonl"]["filtered_out"] == 60 - len(expected)


def test_where_hides_the_bad_rows_of_others(write):
    rows = [row | {"lang": "en"} for row in reviews(20)]
    source = write("a.csv", *rows, *[{"text": "", "label": "", "lang": "fr"}] * 20)
    assert load(source, where={"lang": "en"}).report["a.csv"]["unusable"] == {}


def test_where_that_nothing_fits(write):
    source = write("a.csv", *reviews(20))
    assert error(source, where={"label": "neutral"}) == (
        "a.csv: no usable row: none of its 20 rows has label: neutral"
    )


def test_columns_by_other_names(write):
    rows = [{"review": r["text"], "stars": r["label"]} for r in reviews(20)]
    source = write("a.csv", *rows)
    assert len(everything(load(source, text="review", label="stars"))) == 20
    assert error(source, text="reviews", label="stars") == (
        "a.csv:1: no column 'reviews' (did you mean review?); there are: review, stars"
    )
    assert "no column 'lang'" in error(source, text="review", label="stars", where={"lang": "en"})


def test_empty_files(folder):
    (folder / "a.csv").write_text("")
    assert error("a.csv") == "a.csv: the file is empty"
    (folder / "a.csv").write_text("text,label\n")
    assert error("a.csv") == "a.csv: no usable row: it has no rows"
    (folder / "a.csv").write_text("text,label\n,\n")
    assert error("a.csv").startswith("a.csv: 1 of 1 rows cannot be used (empty text: 1)")


def test_missing_held_out_file_is_named(write):
    assert error(write("a.csv", *reviews(20)), test="b.csv") == (
        "data: b.csv: no such file (did you mean a.csv?)"
    )
