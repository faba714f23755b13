"""Delimited files as spreadsheets, databases and people write them."""

import codecs
import csv
import gzip
import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engine.config.schema import FormatConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.missing import is_missing, label_text
from pipelines.engine.data.sources.numbers import (
    PLAIN,
    NumberFormat,
    number_hint,
    parse_number,
    sniff_format,
)
from pipelines.engine.data.sources.reading import read
from pipelines.engine.data.sources.rows import Row, RowReport

COLUMNS = ("text", "label")


def read_all(path: Path, *columns: str, **settings) -> tuple[list[Row], RowReport]:
    report = RowReport(shown=100)
    return list(read(str(path), columns, report, FormatConfig(**settings))), report


def values(path: Path, *columns: str, **settings) -> list[tuple]:
    """The values of each row, if no row is unusable."""
    rows, report = read_all(path, *columns, **settings)
    assert report.examples == []
    return [tuple(row.fields[c] for c in columns) for row in rows]


def error(path: Path, *columns: str, **settings) -> str:
    with pytest.raises(UserError) as caught:
        read_all(path, *columns, **settings)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


def reviews(count: int) -> list[list[str]]:
    return [[f"some words {i}", ("neg", "pos")[i % 2]] for i in range(count)]


def table(rows: list[list[str]], delimiter: str = ",") -> str:
    return "".join(delimiter.join(row) + "\n" for row in [list(COLUMNS), *rows])


# Quotation marks


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t")])
def test_stray_quotes_swallow_no_rows(tmp_path, name, delimiter):
    rows = reviews(300)
    rows[50][0] = '"' + rows[50][0]
    rows[90][0] += '"'
    (tmp_path / name).write_text(table(rows, delimiter))
    assert values(tmp_path / name, *COLUMNS) == [tuple(row) for row in rows]
    _, report = read_all(tmp_path / name, *COLUMNS)
    (note,) = report.notes
    assert note.startswith(
        f"{name}:52: quotation marks that enclose no field were read as text (rows: 1;"
    )
    assert "data.format.quote=null" in note


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t")])
@pytest.mark.parametrize("text", ['"dull" poor weak', '"', '"open', '"a" "b"', '"" x', 'in "b"'])
def test_text_that_begins_with_a_quotation(tmp_path, name, delimiter, text):
    rows = reviews(300)
    rows[50][0] = text
    (tmp_path / name).write_text(table(rows, delimiter))
    assert values(tmp_path / name, *COLUMNS) == [tuple(row) for row in rows]


def test_quoted_fields_beside_stray_quotes_stay_quoted(tmp_path):
    text = 'text,label\n"Well, ""well""",pos\n"so" so,neg\n"two\nlines",pos\n"Well, well" he,neg\n'
    (tmp_path / "a.csv").write_text(text)
    assert values(tmp_path / "a.csv", *COLUMNS) == [
        ('Well, "well"', "pos"),
        ('"so" so', "neg"),
        ("two\nlines", "pos"),
        ("Well, well he", "neg"),
    ]


def test_quote_that_is_set_is_strict(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"a"b,1\n')
    message = error(path, *COLUMNS, quote='"')
    assert message.startswith(f"{path}:2: not a readable table")
    assert message.endswith("data.format.quote=null")
    path.write_text("text,label\n'a, b',1\n")
    assert values(path, *COLUMNS, quote="'") == [("a, b", "1")]


def test_no_quotes(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"a"\tx\n"b\ty\n')
    assert values(tmp_path / "a.tsv", *COLUMNS, quote=None) == [('"a"', "x"), ('"b', "y")]


def test_quoted_field_whose_lines_might_be_rows_is_pointed_at(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"a,b\nc",d\n')
    rows, report = read_all(tmp_path / "a.csv", *COLUMNS)
    assert [row.fields["text"] for row in rows] == ["a,b\nc"]
    (note,) = report.notes
    assert note.startswith("a.csv:2: a quoted field goes on to line 3")


words = st.text(st.sampled_from("ab é\"'"), min_size=1, max_size=12)
#: Texts with marks in any place, but none that is a whole quoted field.
loose = words.filter(lambda text: not (text.startswith('"') and text.endswith('"') and text[1:]))


@given(
    texts=st.lists(loose, min_size=12, max_size=40),
    delimiter=st.sampled_from([",", "\t"]),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_unquoted_rows_are_all_read(tmp_path_factory, texts, delimiter, ending):
    name = "a.csv" if delimiter == "," else "a.tsv"
    path = tmp_path_factory.mktemp("loose") / name
    # Labels in the beginning show what a row looks like.
    rows = [*reviews(40), *([text, ("neg", "pos")[i % 2]] for i, text in enumerate(texts))]
    path.write_bytes(table(rows, delimiter).replace("\n", ending).encode())
    assert values(path, *COLUMNS) == [tuple(row) for row in rows]


@given(
    texts=st.lists(st.text(st.sampled_from('ab ,;\t"\n'), max_size=12), max_size=20),
    name=st.sampled_from(["a.csv", "a.tsv"]),
)
def test_minimal_quotes_are_read_back(tmp_path_factory, texts, name):
    path = tmp_path_factory.mktemp("minimal") / name
    file = io.StringIO(newline="")
    delimiter = "," if name == "a.csv" else "\t"
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    rows = [[text, str(i)] for i, text in enumerate(texts)]
    writer.writerows([COLUMNS, *rows])
    path.write_text(file.getvalue(), newline="")
    assert values(path, *COLUMNS) == [tuple(row) for row in rows]


# Delimiters and headers


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_found(tmp_path, name, delimiter):
    (tmp_path / name).write_text(table(reviews(3), delimiter))
    rows, report = read_all(tmp_path / name, *COLUMNS)
    assert [[row.fields[c] for c in COLUMNS] for row in rows] == reviews(3)
    assert len(report.notes) == (delimiter != {"a.csv": ",", "a.tsv": "\t"}[name])


def test_delimiter_that_is_set(tmp_path):
    (tmp_path / "a.csv").write_text("text^label\na,b^1\n")
    assert values(tmp_path / "a.csv", *COLUMNS, delimiter="^") == [("a,b", "1")]
    (tmp_path / "a.csv").write_text("text\tlabel\na,b\t1\n")
    assert values(tmp_path / "a.csv", *COLUMNS, delimiter="tab") == [("a,b", "1")]


def test_header_that_is_set(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1,2\na,b\n")
    assert values(path, "2", "1") == [("2", "1"), ("b", "a")]
    assert values(path, "2", "1", header=True) == [("b", "a")]
    assert "data.format.header=false" in error(path, "text", header=False)


def test_rows_wider_than_the_first_are_counted(tmp_path):
    (tmp_path / "a.tsv").write_text("a\tb\nc\td\te\nf\tg\th\n")
    rows, report = read_all(tmp_path / "a.tsv", "1", "2")
    assert len(rows) == 3
    assert report.notes == ["a.tsv:2: more fields than the first row has (rows: 2)"]


@pytest.mark.parametrize(
    "settings",
    [{"delimiter": ""}, {"delimiter": ",,"}, {"quote": "\n"}, {"encoding": "utf-99"},
     {"encoding": "hex"}, {"delimiter": '"', "quote": '"'}, {"decimal": ",", "thousands": ","}],
)  # fmt: skip
def test_settings_that_cannot_be_right(settings):
    with pytest.raises(ValueError, match=r"must be one character|no such encoding|are both"):
        FormatConfig(**settings)


# Encodings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_encoding_by_its_byte_order_mark(tmp_path, encoding, ending):
    text = table(reviews(30)) + "é 🙂 日本,pos\n"
    (tmp_path / "a.csv").write_bytes(text.replace("\n", ending).encode(encoding))
    assert values(tmp_path / "a.csv", *COLUMNS)[-1] == ("é 🙂 日本", "pos")
    lines = "".join(json.dumps({"text": f"é {i}"}) + ending for i in range(3))
    (tmp_path / "a.jsonl").write_bytes(lines.encode(encoding))
    assert values(tmp_path / "a.jsonl", "text") == [(f"é {i}",) for i in range(3)]
    (tmp_path / "a.txt").write_bytes(f"é{ending}b".encode(encoding))
    assert values(tmp_path / "a.txt", "text") == [("é\nb",)]
    (tmp_path / "a.en").write_bytes(f"é{ending}b".encode(encoding))
    (tmp_path / "a.de").write_bytes(f"ü{ending}c".encode(encoding))
    assert values(tmp_path / "a.{en,de}", "en", "de") == [("é", "ü"), ("b", "c")]


def test_encoding_by_the_big_endian_mark(tmp_path):
    raw = codecs.BOM_UTF16_BE + table(reviews(3)).encode("utf-16-be")
    (tmp_path / "a.csv").write_bytes(raw)
    assert len(values(tmp_path / "a.csv", *COLUMNS)) == 3


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_its_mark_names_the_setting(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_bytes(table(reviews(30)).encode(encoding))
    assert error(path, *COLUMNS).endswith(f"data.format.encoding={encoding}")
    assert len(values(path, *COLUMNS, encoding=encoding)) == 30
    path.write_bytes(("\ufeff" + table(reviews(30))).encode(encoding))
    assert len(values(path, *COLUMNS, encoding=encoding)) == 30


def test_encoding_that_is_set(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\ncafé,“x”\n".encode("cp1252"))
    assert values(path, *COLUMNS, encoding="cp1252") == [("café", "“x”")]
    report = RowReport()
    list(read(str(path), COLUMNS, report))
    with pytest.raises(UserError, match=r"a\.csv:2: broken UTF-8(?s:.*)data\.format\.encoding"):
        report.check("a.csv", 0.01)
    path.write_bytes(codecs.BOM_UTF16_LE + b"t\0e\0x\0t\0\n\0a\0\n\0b")
    assert error(path, "text").startswith(f"{path}: not text in utf-16 (truncated data)")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04" + bytes(range(256)) * 9, "zip archive"),
        (gzip.compress(b"text\na\n", mtime=0), "add .gz to its name"),
        (bytes(range(256)) * 9, "no column 'text'"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "no column 'text'"),
    ],
    ids=["zip", "gzip", "all bytes", "png"],
)
def test_binary_file_never_reaches_the_terminal(tmp_path, content, reason):
    (tmp_path / "a.csv").write_bytes(content)
    assert reason in error(tmp_path / "a.csv", "text")


def test_files_that_were_joined_with_their_marks(tmp_path):
    one = ("\ufeff" + table(reviews(2))).encode()
    (tmp_path / "a.csv").write_bytes(one + one)
    rows, report = read_all(tmp_path / "a.csv", *COLUMNS)
    assert len(rows) == 4
    assert report.examples == ["a.csv:4: another header"]
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n\xef\xbb\xbf{"text": "b"}\n')
    assert values(tmp_path / "a.jsonl", "text") == [("a",), ("b",)]


# Numbers


@pytest.mark.parametrize(
    ("text", "written", "number"),
    [
        ("1e3", PLAIN, 1000.0),
        (" 12 % ", PLAIN, 12.0),
        ("(3.5)", PLAIN, -3.5),
        ("$1200", PLAIN, 1200.0),
        ("-$5", PLAIN, -5.0),
        ("($5.50)", PLAIN, -5.5),
        ("5 €", PLAIN, 5.0),
        ("−7", PLAIN, -7.0),
        ("$1,200", NumberFormat(".", ","), 1200.0),
        ("1200", NumberFormat(".", ","), 1200.0),
        ("1.234,56", NumberFormat(",", "."), 1234.56),
        ("1.234", NumberFormat(",", "."), 1234.0),
        ("1 234,5", NumberFormat(",", " "), 1234.5),
        ("1\u202f234,5", NumberFormat(",", " "), 1234.5),
        ("1'234.5", NumberFormat(".", "'"), 1234.5),
    ],
)
def test_numbers_as_they_are_written(text, written, number):
    assert parse_number(text, written) == number


@pytest.mark.parametrize(
    "text", ["1,200", "1.234,56", "x", "12,5", "1_0x", "inf", "--5", "()", "%"]
)
def test_numbers_that_are_not_plain(text):
    assert parse_number(text) is None


def test_numbers_that_another_format_would_read_have_a_hint():
    assert "data.format.thousands=','" in number_hint("$1,200")
    assert "data.format.decimal=','" in number_hint("1.234,56")
    assert number_hint("x") == number_hint(None) == ""


@pytest.mark.parametrize("text", ["1,20", "12.34.56", "1.2,3"])
def test_groups_have_three_digits(text):
    assert parse_number(text, NumberFormat(".", ",")) is None


@given(
    st.decimals(-(10**9), 10**9, places=2),
    st.sampled_from([(".", ","), (",", "."), (",", " "), (".", "'"), (",", None), (".", None)]),
)
def test_number_is_read_as_it_was_written(number, marks):
    decimal, thousands = marks
    text = f"{number:,.2f}".replace(".", "D").replace(",", thousands or "").replace("D", decimal)
    assert parse_number(text, NumberFormat(decimal, thousands)) == float(number)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_plain_numbers_are_those_of_python(number):
    assert parse_number(repr(number)) == parse_number(number) == number
    assert sniff_format([repr(number)]) == PLAIN


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["1.5", "2"], PLAIN),
        (["1,200", "3"], PLAIN),  # one comma may be either
        (["1.234", "2,5"], NumberFormat(",", ".")),
        (["$1,234.50", "0.25"], NumberFormat(".", ",")),
        (["1,234,567"], NumberFormat(".", ",")),
        (["1.5", "1,5"], PLAIN),  # contradictory
        (["1,5", "words"], PLAIN),
        ([], PLAIN),
    ],
)
def test_separators_are_found(column, expected):
    assert sniff_format(column) == expected


def test_numbers_of_a_european_table(tmp_path):
    (tmp_path / "a.csv").write_text("day;price\n1;1.234,56\n2;1.234\n3;0,5\n")
    rows, report = read_all(tmp_path / "a.csv", "day", "price")
    assert [parse_number(r.fields["price"], r.numbers) for r in rows] == [1234.56, 1234.0, 0.5]
    assert report.notes == ["a.csv: read as a table separated by ';', with numbers such as 1.234,5"]
    rows, _ = read_all(tmp_path / "a.csv", "day", "price", decimal=",", thousands=None)
    assert [parse_number(r.fields["price"], r.numbers) for r in rows] == [None, None, 0.5]


# Missing values


def test_missing_values_of_any_library():
    import numpy as np
    import pandas as pd

    nothing = [None, math.nan, "", "  ", "nan", "NaN", "NaT", "<NA>", np.float32("nan")]
    nothing += [np.datetime64("NaT"), pd.NaT, pd.NA]
    for value in nothing:
        assert is_missing(value)
        assert label_text(value) == ""
    for value in (math.inf, -math.inf, np.float64("inf"), "inf", "None"):
        assert not is_missing(value)
        assert label_text(value) == ""
    for value, text in ((0, "0"), (1.0, "1"), (False, "false"), ("none", "none"), ("nana", "nana")):
        assert not is_missing(value)
        assert label_text(value) == text
    assert label_text([1]) is None


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
def test_no_label_is_called_nan(value):
    text = label_text(value)
    assert text not in ("nan", "NaN", "inf", "-inf", "None")
    if isinstance(value, float):
        assert (text == "") == (not math.isfinite(value))


def test_missing_values_of_tables_are_none(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"text": ["a", None, "c"], "label": [1.0, math.nan, 0.0]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet", *COLUMNS) == [("a", 1.0), (None, None), ("c", 0.0)]
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": NaN}\n')
    assert values(tmp_path / "a.jsonl", *COLUMNS) == [("a", None)]


# What is there twice


def test_repeated_keys_of_an_object_are_counted(tmp_path):
    lines = ['{"text": "a", "text": "b"}', '{"text": "c", "x": 1, "x": 2}', '{"text": "d"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    rows, report = read_all(tmp_path / "a.jsonl", "text")
    assert [row.fields["text"] for row in rows] == ["c", "d"]
    assert report.examples == ["a.jsonl:1: the key 'text' occurs several times"]


def test_compressed_and_plain_file_of_one_name_are_pointed_at(tmp_path):
    (tmp_path / "a.csv").write_text("text\na\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text\na\n"))
    rows, report = read_all(tmp_path, "text")
    assert len(rows) == 2
    assert report.notes == ["a.csv: a.csv.gz has the same name; the rows of both are read"]


def test_one_note_for_many_files(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.csv").write_text(table(reviews(2), ";"))
    _, report = read_all(tmp_path, *COLUMNS)
    assert report.notes == ["a.csv: read as a table separated by ';' (and 2 more files)"]
