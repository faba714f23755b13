"""Tables of predictions: the input as it was, and the answers beside it, in every format."""

from __future__ import annotations

import csv
import datetime
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engine.config.schema import FormatConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.tables import ABSENT, open_table
from pipelines.engine.data.table_writers import (
    DelimitedWriter,
    JsonLinesWriter,
    ParquetWriter,
    TableWriter,
    WrittenRow,
    cell_text,
    check_ending,
    table_writer,
)

ANSWERS = {"label": str, "score": float, "error": str}
NO_ANSWER = [None, None, "empty"]


def whole(writer: TableWriter, folder: Path, *parts: Sequence[WrittenRow]) -> bytes:
    """Write a file in parts, and return its bytes."""
    paths = []
    for i, rows in enumerate(parts):
        paths.append(folder / f"part-{i}")
        with paths[-1].open("wb") as file:
            writer.write(rows, file)
    joined = io.BytesIO()
    writer.join(paths, joined)
    return joined.getvalue()


def parsed(raw: bytes, delimiter: str = ",") -> list[list[str]]:
    text = io.StringIO(raw.decode("utf-8", "surrogateescape"), newline="")
    return list(csv.reader(text, delimiter=delimiter, strict=True))


def test_delimited_cells_are_quoted_where_they_must_be(tmp_path):
    writer = DelimitedWriter(["a", "a"], ANSWERS, ";", mark=True)
    rows = [
        WrittenRow(["x;y", 'say "hi"'], ["good", 0.25, None]),
        WrittenRow(["two\nlines", "a\rb"], NO_ANSWER),
    ]
    raw = whole(writer, tmp_path, rows[:1], rows[1:])
    assert raw == (
        b"\xef\xbb\xbfa;a;label;score;error\n"
        b'"x;y";"say ""hi""";good;0.25;\n'
        b'"two\nlines";"a\rb";;;empty\n'
    )
    assert whole(writer, tmp_path) == b"\xef\xbb\xbfa;a;label;score;error\n"


def test_bytes_that_are_no_text_stay_in_csv_and_are_replaced_elsewhere(tmp_path):
    rows = [WrittenRow(["gr\udcfcn"], NO_ANSWER)]
    assert b"gr\xfcn" in whole(DelimitedWriter(["a"], ANSWERS), tmp_path, rows)
    assert "gr\ufffdn" in whole(JsonLinesWriter(["a"], ANSWERS), tmp_path, rows).decode()
    lone = [WrittenRow(["\ud800"], NO_ANSWER)]
    assert "\ufffd" in whole(DelimitedWriter(["a"], ANSWERS), tmp_path, lone).decode()


def test_an_object_keeps_its_text(tmp_path):
    texts = ['{"n": 1.50, "n": 2}', "{ }", '{"a": "}"}']
    rows = [WrittenRow([ABSENT], ["x", 0.5, None], text) for text in texts]
    lines = whole(JsonLinesWriter(["n"], ANSWERS), tmp_path, rows).decode().splitlines()
    added = '"label": "x", "score": 0.5, "error": null}'
    assert lines == [f'{{"n": 1.50, "n": 2, {added}', f"{{{added}", f'{{"a": "}}", {added}']


def test_absent_keys_are_not_written(tmp_path):
    rows = [WrittenRow([ABSENT, None], NO_ANSWER), WrittenRow([ABSENT, ABSENT], NO_ANSWER)]
    lines = whole(JsonLinesWriter(["a", "b"], ANSWERS), tmp_path, rows).decode().splitlines()
    none = {"label": None, "score": None, "error": "empty"}
    assert [json.loads(line) for line in lines] == [{"b": None} | none, none]


def test_parquet_keeps_types_and_joins_parts(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    types = [pa.list_(pa.int8()), pa.timestamp("ns")]
    when = datetime.datetime(2024, 5, 31, 12)
    writer = ParquetWriter(["a", "b"], ANSWERS, types)
    rows = [
        WrittenRow([[1, 2], when], ["x", 0.5, None]),
        WrittenRow([None, None], NO_ANSWER),
    ]
    raw = whole(writer, tmp_path, rows[:1], rows[1:])
    table = parquet.read_table(io.BytesIO(raw))
    assert table.schema.types == [*types, pa.string(), pa.float64(), pa.string()]
    assert table.to_pylist()[1] == {
        "a": None, "b": None, "label": None, "score": None, "error": "empty"
    }  # fmt: skip
    assert table.column("a").to_pylist() == [[1, 2], None]
    assert parquet.ParquetFile(io.BytesIO(raw)).num_row_groups == 1
    assert parquet.read_table(io.BytesIO(whole(writer, tmp_path))).num_rows == 0


def test_parquet_has_text_for_what_comes_from_elsewhere(tmp_path):
    from pyarrow import parquet

    rows = [WrittenRow([1, ABSENT], NO_ANSWER), WrittenRow(["", {"x": [True]}], NO_ANSWER)]
    raw = whole(ParquetWriter(["a", "b"], ANSWERS), tmp_path, rows)
    found = parquet.read_table(io.BytesIO(raw))
    assert found.column("a").to_pylist() == ["1", ""]
    assert found.column("b").to_pylist() == [None, '{"x": [true]}']


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1.50", "1.50"),
        (None, ""),
        (float("nan"), ""),
        (1.0, "1.0"),
        (True, "true"),
        ([1, "ü"], '[1, "ü"]'),
        (b"\xff", "/w=="),
        (datetime.date(2024, 5, 31), "2024-05-31"),
        ({"a": float("inf")}, '{"a": null}'),
    ],
)
def test_a_cell_as_text(value, text):
    assert cell_text(value) == text


@pytest.mark.parametrize(
    ("source", "out", "delimiter", "mark"),
    [
        ("in.csv", "out.csv", ";", True),
        ("in.csv", "out.CSV", ";", True),
        ("in.csv", "out.tsv", "\t", True),
        ("in.tsv", "out.csv", ",", False),
    ],
)
def test_a_delimited_file_is_written_like_the_input_of_its_ending(
    tmp_path, source, out, delimiter, mark
):
    content = "\ufefftext;x\na;b\n" if source == "in.csv" else "text\tx\na\tb\n"
    (tmp_path / source).write_text(content, encoding="utf-8")
    table = open_table(str(tmp_path / source), ["text"], FormatConfig())
    writer = table_writer(tmp_path / out, table, table.columns, ANSWERS)
    rows = [WrittenRow(row.cells, NO_ANSWER) for row in table.read()]
    raw = whole(writer, tmp_path, rows)
    assert raw.startswith(b"\xef\xbb\xbf") is mark
    found = parsed(raw.removeprefix(b"\xef\xbb\xbf"), delimiter)
    assert found == [["text", "x", *ANSWERS], ["a", "b", "", "", "empty"]]


def test_other_endings_are_an_error():
    with pytest.raises(UserError, match=r"out\.xlsx: .*\.csv, \.tsv, \.jsonl, \.parquet"):
        check_ending(Path("out.xlsx"))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TABLES = st.lists(st.tuples(TEXT, TEXT, st.none() | TEXT, st.none() | st.floats(0, 1)), max_size=9)


@given(TABLES, st.integers(0, 9), st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]))
def test_any_table_round_trips(tmp_path_factory, table, split, ending):
    """In parts or at once, every format has the same rows in the same order."""
    from pyarrow import parquet

    folder = tmp_path_factory.mktemp("out")
    columns, answers = ["a", "b"], {"label": str, "score": float}
    rows = [WrittenRow(row[:2], row[2:]) for row in table]
    writer: TableWriter
    if ending == ".jsonl":
        writer = JsonLinesWriter(columns, answers)
    elif ending == ".parquet":
        writer = ParquetWriter(columns, answers)
    else:
        writer = DelimitedWriter(columns, answers, "\t" if ending == ".tsv" else ",")
    raw = whole(writer, folder, rows[:split], rows[split:])
    names = [*columns, *answers]
    if ending == ".jsonl":
        found = [list(json.loads(line).values()) for line in raw.decode().split("\n")[:-1]]
    elif ending == ".parquet":
        found = [list(row.values()) for row in parquet.read_table(io.BytesIO(raw)).to_pylist()]
    else:
        head, *found = parsed(raw, "\t" if ending == ".tsv" else ",")
        assert head == names
        table = [(a, b, c or "", "" if d is None else str(d)) for a, b, c, d in table]
    assert found == [list(row) for row in table]
    if ending != ".parquet":  # whose groups of rows are those of the parts
        assert raw == whole(writer, folder, rows)
