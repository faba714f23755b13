"""Every row of a file is answered or marked, in order, and an interrupted file goes on."""

from __future__ import annotations

import csv
import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engine.core import signals
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.missing import is_missing
from pipelines.engine.tasks.base import Prediction, Task
from pipelines.sentiment.config import SentimentConfig
from pipelines.workflows import loaded_model, predict_file
from pipelines.workflows.loaded_model import LoadedModel
from pipelines.workflows.predict_file import FileJob, answer_table, check_job

CONFIG = SentimentConfig.model_validate({"data": {"source": "none"}})


class Shout(Task):
    """A task without a network: upper case, and no answer to questions."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict_batch(self, config, served, examples):
        self.batches.append(len(examples))
        return [
            Prediction.failed(text, "a question")
            if "?" in text
            else Prediction(text, [], [], {"loud": text.upper(), "score": float(len(text))})
            for text in examples
        ]

    def answer_columns(self, config, served):
        return {"loud": str, "score": float}

    def answer_rows(self, config, prediction):
        return [[prediction.json["loud"], prediction.json["score"]]]


# What is needed to train is not needed here.
Shout.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def handlers():
    """Put the handlers of signals back that every job replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def answer(
    source: Path, out: Path, *, task: Task | None = None, run: str = "1", **options: Any
) -> dict[str, Any]:
    settings = {"column": None, "overwrite": False} | options
    job = check_job(CONFIG, str(source), out, **settings)
    model = LoadedModel(task or Shout(), CONFIG, None, run)
    return answer_table(model, job, Console(silent=True))


def read(path: Path) -> list[list[str]]:
    text = path.read_bytes().decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def table(path: Path, count: int) -> Path:
    """Write texts of all lengths, of which every seventh is empty and every eleventh a question."""
    texts = [
        "" if i % 7 == 0 else "why?" if i % 11 == 0 else "a" * (1 + i % 50) for i in range(count)
    ]
    lines = ["id,text", *(f"{i},{text}" for i, text in enumerate(texts))]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_every_row_has_an_answer_or_a_reason(tmp_path):
    task, out = Shout(), tmp_path / "out.csv"
    result = answer(table(tmp_path / "in.csv", 1200), out, task=task)
    header, *rows = read(out)
    assert header == result["columns"] == ["id", "text", "loud", "score", "error"]
    assert [row[0] for row in rows] == [str(i) for i in range(1200)]
    for number, text, loud, score, error in rows:
        if int(number) % 7 == 0:
            assert (text, loud, score, error) == ("", "", "", "'text' is empty")
        elif text == "why?":
            assert (loud, score, error) == ("", "", "a question")
        else:
            assert (loud, float(score), error) == (text.upper(), len(text), "")
    unusable = sum(row[4] != "" for row in rows)
    assert (result["inputs"], result["rows"], result["unusable"]) == (1200, 1200, unusable)
    assert result["first_unusable"][0] == f"{tmp_path / 'in.csv'}:2: 'text' is empty"
    assert len(result["first_unusable"]) == 5
    assert max(task.batches) == loaded_model._BATCH
    assert list(tmp_path.glob(".*")) == []


def test_long_texts_come_in_small_batches(monkeypatch):
    monkeypatch.setattr(loaded_model, "_BATCH_LENGTH", 100)
    task = Shout()
    texts = ["a" * 300, "b", "c" * 50, "d" * 50, "e" * 40]
    found = LoadedModel(task, CONFIG, None, "1").predict_all(texts)
    assert [p.json["loud"] for p in found] == [text.upper() for text in texts]
    assert task.batches == [1, 2, 2]
    assert LoadedModel(task, CONFIG, None, "1").predict_all([]) == []


NAMES = ["loud", "error", "loud_predicted", "x", "x", ""]


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")),
            min_size=7,
            max_size=7,
        ),
        max_size=8,
    ),
    st.permutations(["text", *NAMES]),
    st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]),
)
def test_any_table_keeps_its_rows_and_columns(tmp_path_factory, rows, header, ending):
    from pyarrow import parquet

    folder = tmp_path_factory.mktemp("files")
    with (folder / "in.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    config = SentimentConfig.model_validate({"data": {"source": "x", "format": {"quote": '"'}}})
    out = folder / f"out{ending}"
    job = check_job(config, str(folder / "in.csv"), out, column=None, overwrite=False)
    result = answer_table(LoadedModel(Shout(), config, None, "1"), job, Console(silent=True))
    added = ["loud_predicted_predicted", "score", "error_predicted"]
    columns = [*header, *added]
    if ending in (".csv", ".tsv"):
        with out.open(newline="", encoding="utf-8") as text:
            found = list(csv.reader(text, delimiter="\t" if ending == ".tsv" else ",", strict=True))
        assert found.pop(0) == columns
    else:
        second = len(header) - 1 - header[::-1].index("x")
        columns[second] = "x_2"
        if ending == ".jsonl":
            lines = out.read_text(encoding="utf-8").split("\n")[:-1]
            records = [json.loads(line) for line in lines]
        else:
            assert parquet.read_schema(out).names == columns
            records = parquet.read_table(out).to_pylist()
        assert all(list(record) == columns for record in records)
        found = [list(record.values()) for record in records]
    assert result["columns"] == columns
    assert [row[:7] for row in found] == rows
    place = header.index("text")
    for row in found:
        empty, asks = is_missing(row[place]), "?" in row[place]
        assert (row[-1] or None) == ("'text' is empty" if empty else "a question" if asks else None)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_stopped_file_goes_on_and_ends_as_if_it_had_not(tmp_path, ending):
    source = table(tmp_path / "in.csv", 1200)
    whole, out = tmp_path / f"whole{ending}", tmp_path / f"out{ending}"
    expected = answer(source, whole)

    class Interrupted(Shout):
        def predict_batch(self, config, served, examples):
            if len(self.batches) == 20:  # in the second part
                signal.raise_signal(signal.SIGINT)
            return super().predict_batch(config, served, examples)

    with pytest.raises(KeyboardInterrupt):
        answer(source, out, task=Interrupted())
    assert not out.exists()
    task = Shout()
    result = answer(source, out, task=task)
    assert sum(task.batches) < 600
    assert out.read_bytes() == whole.read_bytes()
    assert result | {"out": ""} == expected | {"out": ""}


@pytest.mark.parametrize(
    ("change", "said"),
    [("input", "another input"), ("run", "another run"), (None, "goes on after")],
)
def test_another_job_starts_anew_and_says_so(tmp_path, capsys, change, said):
    source, out = table(tmp_path / "in.csv", 1200), tmp_path / "out.csv"

    class Failing(Shout):
        def predict_batch(self, config, served, examples):
            if len(self.batches) == 20:
                raise OSError(28, "No space left on device")
            return super().predict_batch(config, served, examples)

    job = check_job(CONFIG, str(source), out, column=None, overwrite=False)
    with pytest.raises(OSError, match="No space"):
        answer_table(LoadedModel(Failing(), CONFIG, None, "1"), job, Console())
    assert "the same command goes on after 512 of 1,200 inputs" in capsys.readouterr().err
    if change == "input":
        source.write_text(source.read_text() + "\n1200,more")
    job = check_job(CONFIG, str(source), out, column=None, overwrite=False)
    model = LoadedModel(Shout(), CONFIG, None, "2" if change == "run" else "1")
    answer_table(model, job, Console())
    assert said in capsys.readouterr().err
    assert len(read(out)) == 1201 + (change == "input")


def test_a_header_alone_gives_a_header(tmp_path):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\n")
    result = answer(source, out)
    assert out.read_text() == "text,loud,score,error\n"
    assert "no rows, and the output only a header" in predict_file.summary(result)


def test_no_usable_row_is_a_file_of_reasons(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": null}\n{"text": 1}\n{"text": "nan"}\n{"text": ["a"]}\n{"x": 1}\n')
    result = answer(source, out)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    empty, other = "'text' is empty", "'text' is not text"
    assert [row["error"] for row in found] == [empty, other, empty, other, empty]
    assert (result["inputs"], result["unusable"]) == (5, 5)
    assert "0 of 5 inputs answered; 5 cannot be used (see the column 'error')" in (
        predict_file.summary(result)
    )


def test_broken_utf8_is_a_reason_and_stays(tmp_path):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes("text,x\ngrün,a\nb,grün\n".encode("cp1252"))
    answer(source, out)
    assert out.read_bytes() == (
        b"text,x,loud,score,error\ngr\xfcn,a,,,broken UTF-8 in column 'text'\nb,gr\xfcn,B,1.0,\n"
    )


def test_another_column_can_hold_the_inputs(tmp_path):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("message\na\n")
    answer(source, out, column="message")
    assert read(out)[1] == ["a", "A", "1.0", ""]


@pytest.mark.parametrize(
    ("source", "out", "options", "words"),
    [
        ("in.csv", "out.xlsx", {}, "out.xlsx: a file of predictions ends with one of: .csv"),
        ("in.csv", "there.csv", {}, "there.csv: exists already; to replace it: --overwrite"),
        ("in.csv", "in.csv", {"overwrite": True}, "in.csv: the input; name another file"),
        ("in.csv", "folder.csv", {"overwrite": True}, "folder.csv: a folder, not a file"),
        ("gone.csv", "out.csv", {}, "gone.csv: no such file"),
        ("in.csv", "in.csv/out.csv", {}, "the folder of predictions: cannot write to"),
        (
            "in.csv",
            "out.csv",
            {"column": "body"},
            "no column 'body'; there are: id, text; name the column of inputs: --column NAME",
        ),
    ],
)
def test_an_error_of_the_user_is_one_line_and_writes_nothing(
    tmp_path, monkeypatch, source, out, options, words
):
    monkeypatch.chdir(tmp_path)
    table(Path("in.csv"), 3)
    Path("there.csv").write_text("precious")
    Path("folder.csv").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        answer(Path(source), Path(out), **options)
    message = str(error.value)
    assert words in message
    assert "\n" not in message
    assert sorted(tmp_path.rglob("*")) == before
    assert Path("there.csv").read_text() == "precious"


def test_overwrite_replaces_the_file_at_the_end(tmp_path):
    source, out = table(tmp_path / "in.csv", 3), tmp_path / "out.csv"
    out.write_text("old")
    signals.install()
    answer(source, out, overwrite=True)
    assert len(read(out)) == 4


def test_by_default_a_task_answers_in_json(tmp_path):
    class Plain(Shout):
        answer_columns, answer_rows = Task.answer_columns, Task.answer_rows

    source, out = table(tmp_path / "in.csv", 3), tmp_path / "out.csv"
    answer(source, out, task=Plain())
    header, *rows = read(out)
    assert header == ["id", "text", "prediction", "error"]
    assert json.loads(rows[1][2]) == {"loud": "AA", "score": 2.0}


def test_the_job_has_the_config_column(tmp_path):
    job = check_job(CONFIG, str(table(tmp_path / "in.csv", 1)), tmp_path / "o.csv",
                    column=None, overwrite=False)  # fmt: skip
    assert isinstance(job, FileJob)
    assert job.column == "text"
