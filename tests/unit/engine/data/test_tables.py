"""Tables of inputs: every row and cell is kept, and unusable rows say why."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engine.config.schema import FormatConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.tables import ABSENT, InputTable, open_table


def opened(path: Path, *columns: str, **settings: object) -> InputTable:
    return open_table(str(path), columns or ("text",), FormatConfig(**settings))


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def cells(table: InputTable) -> list[list[object]]:
    rows = list(table.read())
    assert len(rows) == table.rows
    return [list(row.cells) for row in rows]


def reasons(table: InputTable) -> list[str | None]:
    return [row.reason for row in table.read()]


def test_rows_of_a_spreadsheet_are_kept(tmp_path):
    """A byte order mark, semicolons, a quoted line end, an empty name and repeated ones."""
    text = '\ufefftext;x;;x\r\n"two\r\nlines";1;2;3\r\n;;;\r\nshort\r\n\r\n\r\n'
    table = opened(written(tmp_path / "a.csv", text))
    assert table.columns == ["text", "x", "", "x"]
    assert cells(table) == [
        ["two\r\nlines", "1", "2", "3"],
        ["", "", "", ""],
        ["short", "", "", ""],
    ]
    assert reasons(table) == [None, None, None]
    assert (table.delimiter, table.marked) == (";", True)
    assert any("separated by ';'" in note for note in table.notes)


def test_rows_with_too_few_or_too_many_fields_say_so_and_lose_nothing(tmp_path):
    table = opened(written(tmp_path / "a.csv", "id,text\n1\n2,b\n3,c,d,e\n"))
    assert cells(table) == [["1", ""], ["2", "b"], ["3", "c"]]
    assert reasons(table) == [
        "fewer fields than the header has",
        None,
        "more fields than the header has: 'd', 'e'",
    ]


def test_a_header_within_the_file_is_a_row(tmp_path):
    content = b"\xef\xbb\xbftext,x\na,1\n\xef\xbb\xbftext,x\nb,2\n"
    table = opened(written(tmp_path / "a.csv", content))
    assert reasons(table) == [None, "another header", None]


def test_a_table_without_a_header_has_numbers(tmp_path):
    table = opened(written(tmp_path / "a.tsv", "a\tb\nc\td\te\n"), "1")
    assert table.columns == ["1", "2", "3"]
    assert cells(table) == [["a", "b", ""], ["c", "d", "e"]]


def test_another_encoding_is_named_or_keeps_its_bytes(tmp_path):
    file = written(tmp_path / "a.csv", "text\ngrün\n".encode("cp1252"))
    table = opened(file, encoding="cp1252")
    assert (cells(table), table.marked) == ([["grün"]], True)
    assert cells(opened(file)) == [["gr\udcfcn"]]


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_a_header_alone_is_a_table_without_rows(tmp_path, ending):
    table = opened(written(tmp_path / f"a{ending}", "text\n"))
    assert (table.rows, cells(table)) == (0, [])


def test_objects_keep_their_text_and_what_is_none_is_kept_in_the_reason(tmp_path):
    lines = ['{"text": "a", "n": 1.50}', "", "[1]", '{"x": {"y": []}, "text": null}', "{oops"]
    lines += ['{"text": "b", "text": "c"}']
    table = opened(written(tmp_path / "a.jsonl", "\ufeff" + "\n".join(lines)))
    assert table.columns == ["text", "n", "x"]
    rows = list(table.read())
    assert table.rows == len(rows) == 5
    assert [row.text for row in rows] == [lines[0], None, lines[3], None, lines[5]]
    assert [list(row.cells) for row in rows][:3] == [
        ["a", 1.5, ABSENT],
        [ABSENT] * 3,
        [None, ABSENT, {"y": []}],
    ]
    assert [row.reason for row in rows] == [
        None,
        "not a JSON object: [1]",
        None,
        "not JSON (Expecting property name enclosed in double quotes): {oops",
        "the key 'text' occurs several times",
    ]
    assert rows[1].place.endswith("a.jsonl:3")


def test_columns_of_parquet_keep_their_types_and_repeated_names(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    fields = [("text", pa.string()), ("n", pa.int8()), ("n", pa.list_(pa.float32()))]
    columns = [["a", None], [1, None], [[0.5], []]]
    arrays = [pa.array(c, kind) for c, (_, kind) in zip(columns, fields, strict=True)]
    parquet.write_table(
        pa.Table.from_arrays(arrays, schema=pa.schema(fields)), tmp_path / "a.parquet"
    )
    table = opened(tmp_path / "a.parquet")
    assert table.columns == ["text", "n", "n"]
    assert cells(table) == [["a", 1, [0.5]], [None, None, []]]
    assert list(table.types) == [kind for _, kind in fields]


def test_compressed_files_are_found_and_read(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text\na\n"))
    assert cells(opened(tmp_path / "a.csv")) == [["a"]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "id,txt\n1,a\n", ["no column 'text'", "did you mean txt?", "id, txt", "ADVICE"]),
        ("a.csv", "text,text\na,b\n", ["the column 'text' occurs 2 times"]),
        ("a.csv", "", ["the file is empty"]),
        ("a.csv", b"PK\x03\x04zip", ["zip archive", ".xlsx"]),
        ("a.jsonl", '{"a": 1}\n', ["no column 'text'", "there are: a", "ADVICE"]),
        ("a.jsonl", "\n", ["no JSON object"]),
        ("a.parquet", "no", ["not a readable Parquet file"]),
        ("a.csv.gz", "text", ["a damaged .gz file"]),
        ("a.xlsx", "", ["a.xlsx: a file of inputs is one of .csv, .tsv, .jsonl, .parquet"]),
        ("a.txt", "a", ["one of .csv"]),
    ],
)
def test_a_file_that_is_no_table_of_inputs_is_one_line(tmp_path, name, content, words):
    file = written(tmp_path / name, content)
    with pytest.raises(UserError) as error:
        open_table(str(file), ["text"], FormatConfig(), advice="; ADVICE")
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("source", "words"),
    [("gone.csv", "no such file"), (".", "a folder"), ("*.csv", "not a pattern"), (" ", "no name")],
)
def test_only_pictures_come_in_folders(tmp_path, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        open_table(source, ["text"], FormatConfig())


def test_pictures_of_folders_and_patterns_are_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos/b.PNG", "photos/in/a.jpg", "photos/.hidden.jpg", "photos/notes.txt"):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        written(Path(name), "x")
    endings = (".jpg", ".png")
    table = open_table("photos", ["image"], FormatConfig(), pictures=endings)
    assert (table.columns, table.folder) == (["image"], Path())
    assert cells(table) == [["photos/b.PNG"], ["photos/in/a.jpg"]]
    assert table.notes == ["photos: left out 2 files with other endings"]
    before = table.digest()
    assert open_table("photos", ["image"], FormatConfig(), pictures=endings).digest() == before
    written(Path("photos/b.PNG"), "longer")
    assert table.digest() != before
    pattern = open_table("photos/*/*", ["image"], FormatConfig(), pictures=endings)
    assert [Path(str(row[0])).name for row in cells(pattern)] == ["a.jpg"]
    with pytest.raises(UserError, match=r"no file that ends with \.gif"):
        open_table("photos", ["image"], FormatConfig(), pictures=(".gif",))


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=8)


@given(
    st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n))),
    st.sampled_from(",;\t|"),
)
def test_any_table_is_read_whole(tmp_path_factory, rows, delimiter):
    path = tmp_path_factory.mktemp("table") / "a.csv"
    width = len(rows[0]) if rows else 1
    header = ["text", *(f"c{i}" for i in range(1, width))]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([header, *rows])
    written(path, text.getvalue())
    table = opened(path, delimiter=delimiter, quote='"')
    assert table.columns == header
    assert cells(table) == rows
    assert reasons(table) == [None] * len(rows)


@given(st.lists(st.dictionaries(CELLS, st.none() | st.booleans() | st.integers() | CELLS)))
def test_any_objects_are_read_whole(tmp_path_factory, records):
    records = [{"text": "a"}, *records]
    path = tmp_path_factory.mktemp("table") / "a.jsonl"
    written(path, "\n".join(json.dumps(record) for record in records))
    table = opened(path)
    found = [
        {n: v for n, v in zip(table.columns, row, strict=True) if v is not ABSENT}
        for row in cells(table)
    ]
    assert found == records
