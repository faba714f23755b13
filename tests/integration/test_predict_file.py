"""Files of inputs through the trained model of each pipeline."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.engine.export import savedmodel
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_task
from tests.support.commands import ok, unfold_in_process
from tests.support.pictures import encoded, shape
from tests.support.trained import TASKS, Trained, TrainOnce

TEXTS = {
    "sentiment": ["a brilliant film", "dull " * 40, "a", "the plot is awful and lifeless"],
    "translation": ["Here the old dog sings.", "Here the cat runs", "dog", "xyz the xyz big xyz"],
    "generation": ["The sun rises", "", "A star", "The moon rises in the"],
}


@pytest.fixture
def trained(request: pytest.FixtureRequest, trained_once: TrainOnce, monkeypatch) -> Trained:
    found = trained_once(request.param)
    monkeypatch.setenv("UNFOLD_HOME", str(found.home))
    return found


def tasks(*names: str) -> Any:
    return pytest.mark.parametrize("trained", names, indirect=True)


def predict(task: str, source: Path | str, out: Path, *more: str) -> dict[str, Any]:
    arguments = ["--file", str(source), "--out", str(out), *more]
    return ok(unfold_in_process("predict", task, "--json", *arguments))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def loaded(trained: Trained) -> tuple[Any, Any, Any]:
    run = Run(trained.folder)
    return get_task(trained.task), run.config(), savedmodel.load(run.require("savedmodel"))


def assert_same(one: Any, other: Any) -> None:
    """Assert that two answers agree, numbers up to rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-4, abs=2e-4)
    else:
        assert one == other


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, (colour, kind) in enumerate([("green", "ring"), ("red", "square"), ("blue", "cross")]):
        (folder / f"{i}.png").write_bytes(encoded(shape(colour, kind), "PNG"))
    (folder / "broken.jpg").write_bytes(b"no picture")
    return [str(folder / f"{name}") for name in ("0.png", "1.png", "2.png")]


@tasks("sentiment", "translation", "generation")
def test_a_batch_of_texts_is_answered_like_single_ones(trained):
    task, config, served = loaded(trained)
    texts = TEXTS[trained.task]
    together = task.predict_batch(config, served, texts)
    for text, found in zip(texts, together, strict=True):
        assert_same(found.json, task.predict(config, served, text).json)
        assert found.error is None
    assert task.predict_batch(config, served, []) == []


@tasks("captioning")
def test_a_batch_of_pictures_is_answered_like_single_ones(trained, photos):
    task, config, served = loaded(trained)
    gone, broken = "gone.png", photos[0].replace("0.png", "broken.jpg")
    together = task.predict_batch(config, served, [photos[0], gone, *photos[1:], broken, "\0"])
    assert [p.error for p in together] == [
        None, "gone.png: no such file", None, None, f"{broken}: not a picture",
        "\0: cannot be read: embedded null byte",
    ]  # fmt: skip
    for found, photo in zip([p for p in together if p.error is None], photos, strict=True):
        assert_same(found.json, task.predict(config, served, photo).json)


@tasks("forecasting")
def test_a_batch_of_series_is_forecast_like_single_ones(trained, tmp_path):
    """Of unequal lengths, too; a file that is missing does not take the others with it."""
    short = tmp_path / "short.csv"
    lines = Path(trained.source).read_text().splitlines()
    short.write_text("\n".join([lines[0], *lines[1:6], *lines[521:530]]))
    task, config, served = loaded(trained)
    first, gone, second = task.predict_batch(
        config, served, [trained.source, str(tmp_path / "gone.csv"), str(short)]
    )
    assert "no such file" in str(gone.error)
    assert_same(first.json, task.predict(config, served, trained.source).json)
    assert_same(second.json, task.predict(config, served, str(short)).json)
    assert [len(p.json["series"]) for p in (first, second)] == [2, 2]


@tasks("sentiment")
def test_texts_of_a_file_have_labels(trained, tmp_path):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = [["id", "text", "label"], *([i, t, "?"] for i, t in enumerate(TEXTS["sentiment"]))]
    with source.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=";").writerows([*rows, [9, " ", "?"]])
    result = predict("sentiment", source, out)
    assert (result["inputs"], result["unusable"], result["run"]) == (5, 1, trained.result["run"])
    assert any("'label_predicted'" in note for note in result["notes"])
    with out.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file, delimiter=";"))
    assert list(found[0]) == [
        "id", "text", "label", "label_predicted", "score", "probability_negative",
        "probability_positive", "error",
    ]  # fmt: skip
    task, config, served = loaded(trained)
    for row, text in zip(found[:4], TEXTS["sentiment"], strict=True):
        answer = task.predict(config, served, text).json
        assert (row["text"], row["label"], row["error"]) == (text, "?", "")
        assert row["label_predicted"] == answer["label"]
        assert float(row["score"]) == pytest.approx(answer["score"], abs=1e-5)
        for name, value in answer["probabilities"].items():
            assert float(row[f"probability_{name}"]) == pytest.approx(value, abs=1e-5)
    assert (found[4]["label_predicted"], found[4]["error"]) == ("", "'text' is empty")


@tasks("sentiment")
def test_the_encoding_of_a_file_can_be_named(trained, tmp_path):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes("text\nein schöner film\n".encode("cp1252"))
    result = predict("sentiment", source, out, "--set", "data.format.encoding=cp1252")
    assert result["unusable"] == 0
    assert out.read_text(encoding="utf-8-sig").splitlines()[1].startswith("ein schöner film,")


@tasks("translation")
def test_texts_of_a_file_are_translated(trained, tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts = TEXTS["translation"]
    source.write_text("".join(json.dumps({"src": t, "n": 1.0}) + "\n" for t in texts))
    predict("translation", source, out, "--column", "src")
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    task, config, served = loaded(trained)
    for row, text in zip(found, texts, strict=True):
        answer = task.predict(config, served, text).json
        expected = {"src": text, "n": 1.0, "translation": answer["text"]}
        assert_same(row, expected | {"score": answer["score"], "error": None})


@tasks("generation")
def test_prompts_of_a_file_are_continued(trained, tmp_path):
    from pyarrow import parquet

    source, out = tmp_path / "in.csv", tmp_path / "out.parquet"
    source.write_text("prompt,id\nThe sun rises,1\n,2\nThe sun rises,3\n")
    predict("generation", source, out, "--set", "sampling.temperature=0.5")
    rows = parquet.read_table(out).to_pylist()
    assert [(row["prompt"], row["id"], row["error"]) for row in rows] == [
        ("The sun rises", "1", None), ("", "2", None), ("The sun rises", "3", None),
    ]  # fmt: skip
    assert rows[0]["text"].startswith("The sun rises in the")
    assert rows[0]["text"] == rows[2]["text"]
    assert rows[1]["text"]


@tasks("captioning")
def test_pictures_of_a_folder_or_table_have_captions(trained, photos, tmp_path):
    folder = Path(photos[0]).parent
    result = predict("captioning", folder, tmp_path / "folder.csv")
    rows = read(tmp_path / "folder.csv")
    assert [row["image"] for row in rows] == [*photos, str(folder / "broken.jpg")]
    assert [row["error"] for row in rows] == ["", "", "", f"{folder / 'broken.jpg'}: not a picture"]
    assert "green ring" in rows[0]["caption"]
    assert (rows[3]["caption"], rows[3]["score"], result["unusable"]) == ("", "", 1)
    # Names are relative to the folder of the table.
    table = folder / "table.csv"
    table.write_text("n,image\n1,2.png\n2,gone.png\n3,\n4,0.png\n")
    predict("captioning", table, tmp_path / "table.csv")
    named = read(tmp_path / "table.csv")
    assert [row["image"] for row in named] == ["2.png", "gone.png", "", "0.png"]
    assert [row["caption"] for row in named] == [rows[2]["caption"], "", "", rows[0]["caption"]]
    assert named[1]["error"] == f"{folder / 'gone.png'}: no such file"
    assert named[2]["error"] == "'image' is empty"


@tasks("forecasting")
def test_series_of_a_file_are_forecast(trained, tmp_path):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    lines = Path(trained.source).read_text().splitlines()
    source.write_text("\n".join([*lines, "2020-01-01,CCC,n.a.,1,1", ""]))
    result = predict("forecasting", source, out)
    rows = read(out)
    task, config, served = loaded(trained)
    answer = task.predict(config, served, trained.source).json["series"]
    assert [(r["ticker"], r["date"]) for r in rows[:6]] == [
        (one["series"], date) for one in answer for date in one["dates"]
    ]
    levels = [name for name in rows[0] if name.startswith("quantile_")]
    assert len(levels) == len(config.model.quantiles)
    for name in levels:
        expected = [v for one in answer for v in one["quantiles"][name.removeprefix("quantile_")]]
        assert [float(r[name]) for r in rows[:6]] == pytest.approx(expected, rel=1e-5)
    assert (rows[6]["ticker"], rows[6]["date"], rows[6]["error"]) == ("CCC", "", "no usable row")
    assert (len(rows), result["inputs"], result["unusable"]) == (7, 3, 1)
    assert any("2 of 1,042 rows cannot be used" in note for note in result["notes"])


@tasks("forecasting")
def test_a_header_without_steps_gives_a_header(trained, tmp_path):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("date,ticker,close,high,low\n")
    assert predict("forecasting", source, out)["inputs"] == 0
    assert out.read_text().startswith("ticker,date,quantile_0.05,")
    assert read(out) == []


@tasks("forecasting")
def test_a_file_without_one_usable_step_says_why(trained, tmp_path):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("date,ticker,close,high,low\n2020-01-01,A,n.a.,1,1\nsoon,B,1,1,1\n")
    assert predict("forecasting", source, out)["unusable"] == 2
    assert [row["ticker"] for row in read(out)] == ["A", "B"]
    assert "2 of 2 rows cannot be used" in read(out)[0]["error"]


@tasks("sentiment")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--file", "in.csv"], "--file IN --out OUT"),
        (["--out", "out.csv"], "--file IN --out OUT"),
        (["--overwrite"], "--file IN --out OUT"),
        ([], "give an INPUT, or --file and --out"),
        (["a text", "--file", "in.csv", "--out", "out.csv"], "not both"),
        (["--file", "in.csv", "--out", "in.csv"], "in.csv: the input"),
        (["--file", "in.csv", "--out", "out.csv", "--column", "body"], "--column NAME"),
        (["--file", "in.csv", "--out", "out.csv", "--set", "seed=1"], "data.format.*"),
        (["--file", "in.csv", "--out", "out.csv", "--set", "data.format.quot=x"], "quot"),
    ],
)
def test_errors_of_the_command_are_one_line(trained, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("text\na\n")
    done = unfold_in_process("predict", "sentiment", *arguments)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in line
    assert sorted(tmp_path.iterdir()) == [tmp_path / "in.csv"]


@tasks("forecasting")
def test_columns_of_series_are_named_by_their_keys(trained, tmp_path):
    out = str(tmp_path / "out.csv")
    arguments = ["--file", trained.source, "--out", out, "--column", "close"]
    done = unfold_in_process("predict", "forecasting", *arguments)
    assert done.returncode == 2
    assert "name each by its key, e.g. --set data.date=NAME" in done.stderr


@tasks("sentiment")
def test_the_command_says_how_many_rows_have_no_answer(trained, tmp_path):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('text\na\n""\n')
    done = unfold_in_process("predict", "sentiment", "--file", str(source), "--out", str(out))
    assert done.returncode == 0
    assert done.stdout == (
        f"{out}: 1 of 2 inputs answered; 1 cannot be used (see the column 'error')\n"
    )
    assert f"warning: {source}:3: 'text' is empty" in done.stderr
    again = unfold_in_process("predict", "sentiment", "--file", str(source), "--out", str(out))
    assert again.returncode == 2
    assert f"{out}: exists already; to replace it: --overwrite" in again.stderr


def test_all_pipelines_are_here():
    assert set(TASKS) == {*TEXTS, "captioning", "forecasting"}
