"""Loading records, as for every task: several sources, shares, cuts and the report."""

import csv
import lzma
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engine.config.schema import DataConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.data import loading
from pipelines.engine.data.splits import Splits


@dataclass(frozen=True)
class Document:
    text: str
    place: str


def parse(row):
    text = row.fields["text"]
    return Document(text, row.place) if text.strip() else "empty text"


def cut(document, start, end):
    size = len(document.text)
    text = document.text[round(start * size) : round(end * size)]
    return Document(text, document.place) if text else None


def spec(**more) -> loading.RecordSpec:
    return loading.RecordSpec(
        columns=["text"],
        parse=parse,
        content=lambda d: (d.text,),
        key=lambda d: d.text,
        **more,
    )


def load(*sources: str, seed: int = 1, cut=cut, check=None, **data) -> Splits:
    return loading.load(
        DataConfig(source=list(sources), **data),
        spec(cut=cut, validate=check),
        seed=seed,
    )


def error(*sources: str, **more) -> str:
    with pytest.raises(UserError) as caught:
        load(*sources, **more)
    return str(caught.value)


def texts(split) -> list[str]:
    return [document.text for document in split]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def documents(folder):
    """A folder of documents, no two pieces of which are alike."""

    def write(name: str, numbers) -> str:
        (folder / name).mkdir()
        for i in numbers:
            (folder / name / f"{i:04}.txt").write_text("".join(f"{i}.{j} " for j in range(40)))
        return name

    return write


@pytest.fixture
def novel(folder):
    text = "".join(f"Chapter {i}: é 🙂\n" for i in range(1000))
    (folder / "novel.txt").write_text(text, encoding="utf-8")
    return text


# Several sources


def test_sources_are_read_one_after_the_other(documents):
    first, second = documents("z", range(30)), documents("a", range(30, 60))
    splits = load(first, second, validation=0.1, test=0.2)
    assert splits.report["records"] == {"train": 42, "validation": 6, "test": 12}
    assert splits.report[first]["rows"] == splits.report[second]["rows"] == 30
    assert "cut_by_position" not in splits.report
    numbers = [int(d.place.removesuffix(".txt")) for d in splits.train]
    assert numbers == sorted(numbers)


def test_source_named_like_a_key_of_the_report_is_listed_beside_it(documents):
    splits = load(documents("records", range(30)), validation=0.1, test=0.2)
    assert splits.report["records"] == {"train": 21, "validation": 3, "test": 6}
    assert splits.report["./records"]["rows"] == 30


def test_one_source_is_a_list_of_one(documents):
    source = documents("a", range(30))
    assert load(source).fingerprint == (
        loading.load(DataConfig(source=source), spec(), seed=1).fingerprint
    )


def test_equal_documents_of_two_sources_are_on_one_side(documents):
    splits = load(documents("a", range(40)), documents("b", range(20, 60)), test=0.3)
    sides = [set(texts(s)) for s in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, sides)) == 60
    assert sum(splits.report["records"].values()) == 80


def test_held_out_sources_may_be_several(documents):
    splits = load(
        documents("a", range(50)),
        validation=[documents("v", range(3)), documents("w", range(100, 102))],
        test=[documents("t", range(2, 4)), documents("u", range(200, 203))],
    )
    assert len(splits.test) == 5
    assert len(splits.validation) == 4  # one of them is in the test
    assert len(splits.train) == 46
    assert splits.report["validation_dropped_as_held_out"] == 1
    assert splits.report["train_dropped_as_held_out"] == 4
    assert {"a", "t", "u", "v", "w"} <= set(splits.report)


def test_every_source_is_checked_on_its_own(folder, documents):
    many, few = documents("many", range(500)), documents("few", range(500, 503))
    (folder / few / "broken.txt").write_bytes(b"\0")
    (folder / few / "blank.txt").write_bytes(b" \n")
    first, *examples = error(many, few).split("\n")
    assert first.startswith("few: 2 of 5 rows cannot be used (")
    assert examples == [
        "  blank.txt: empty text",
        "  broken.txt, byte 0: not text: a NUL byte",
    ]
    report = load(many, few, max_bad_rows=0.5).report
    assert report[few]["unusable"] == {"empty text": 1, "not text: a NUL byte": 1}
    assert report[many]["unusable"] == {}


def test_errors_name_all_sources(documents):
    sources = documents("a", range(30)), documents("b", range(30, 60))
    assert error(*sources, validation=0.5, test=0.5) == (
        "data.test and data.validation hold out 100% of a, b: nothing is left to train on"
    )
    assert error(*sources, test=0.0) == (
        "a, b: the test split is empty (54 training rows); "
        "give more rows, a larger data.test, or a source of its own"
    )
    assert error(*sources, test=list(sources)).startswith("a, b: nothing is left to train on")


def test_where_needs_its_column(documents, folder):
    with (folder / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "kind"])
        writer.writerows([f"text {i}", "play" if i % 2 else "verse"] for i in range(60))
    splits = load("a.csv", where={"kind": "play"})
    assert splits.report["a.csv"] == {
        "rows": 60, "filtered_out": 30, "left_out": 0, "repeated": 0, "unusable": {},
        "first_unusable": [],
    }  # fmt: skip
    assert error(documents("b", range(3)), where={"kind": "play"}).endswith(
        "0000.txt: no column 'kind'; there are: text"
    )


def test_check_of_a_task_is_asked_before_that_none_is_empty(documents):
    def check(splits):
        raise UserError(f"asked about {sorted(splits)}")

    message = error(documents("a", range(30)), check=check, test=0.0)
    assert message == "asked about ['test', 'train', 'validation']"


def test_fingerprint_sees_the_text_and_its_side(documents):
    source = documents("a", range(30))
    first, again, other = load(source), load(source), load(source, seed=2)
    assert first == again
    assert len({first.fingerprint, other.fingerprint, load(source, test=0.2).fingerprint}) == 3


# Few documents


def test_two_scores_on_the_same_test_records_can_be_told(documents):
    source, tested = documents("a", range(40)), documents("b", range(50, 60))
    first, fewer = (load(source, test=tested, validation=share) for share in (0.1, 0.4))
    assert first.fingerprint != fewer.fingerprint
    assert first.test_fingerprint == fewer.test_fingerprint
    assert first.test_fingerprint != load(source, test=0.2).test_fingerprint


def test_novel_is_cut_into_beginning_middle_and_end(novel):
    splits = load("novel.txt", validation=0.05, test=0.1)
    pieces = [*texts(splits.train), *texts(splits.validation), *texts(splits.test)]
    assert "".join(pieces) == novel
    assert [round(len(p) / len(novel), 3) for p in pieces] == [0.85, 0.05, 0.1]
    assert splits.report["cut_by_position"] is True
    assert splits.report["records"] == {"train": 1, "validation": 1, "test": 1}
    assert splits.report["train_dropped_as_held_out"] == 0


def test_cut_is_for_fewer_than_twenty_distinct_documents(documents):
    cut, whole = documents("a", range(19)), documents("b", range(20))
    assert load(cut).report["records"] == {"train": 19, "validation": 19, "test": 19}
    assert "cut_by_position" not in load(whole).report
    again = documents("c", range(19))
    assert load(cut, again).report["cut_by_position"] is True
    assert load(cut, documents("d", [19])).report.get("cut_by_position") is None


def test_without_a_cut_few_documents_are_split_as_many_are(novel):
    assert error("novel.txt", cut=None).startswith("novel.txt: the validation split is empty")


@pytest.mark.parametrize("name", ["validation", "test"])
def test_only_the_share_that_is_asked_for_is_cut(novel, folder, name):
    other = "test" if name == "validation" else "validation"
    (folder / "other.txt").write_text("of its own")
    splits = load("novel.txt", **{name: 0.2, other: "other.txt"})
    (piece,) = texts(getattr(splits, name))
    assert texts(splits.train) == [novel.removesuffix(piece)]
    assert round(len(piece) / len(novel), 3) == 0.2
    assert texts(getattr(splits, other)) == ["of its own"]


def test_nothing_is_cut_where_no_share_is_asked_for(novel, folder):
    (folder / "other.txt").write_text("of its own")
    (folder / "third.txt").write_text("too")
    splits = load("novel.txt", validation="third.txt", test="other.txt")
    assert texts(splits.train) == [novel]
    assert "cut_by_position" not in splits.report


def test_share_of_nothing_is_an_empty_split(novel):
    assert "the validation split is empty (1 training rows)" in error("novel.txt", validation=0.0)


def test_document_held_out_whole_is_in_no_piece(novel, folder):
    (folder / "same.txt").write_text(novel, encoding="utf-8")
    (folder / "b.txt").write_text("another " * 100)
    splits = load("novel.txt", "b.txt", validation=0.1, test="same.txt")
    assert texts(splits.test) == [novel]
    assert "".join(texts(splits.train) + texts(splits.validation)) == "another " * 100
    assert splits.report["train_dropped_as_held_out"] == 1
    assert error("novel.txt", validation=0.1, test="same.txt").startswith(
        "novel.txt: nothing is left to train on: all of it is in data.test"
    )


def test_too_short_to_be_cut(folder):
    (folder / "a.txt").write_text("abc")
    assert error("a.txt").startswith("a.txt: the test split is empty (1 training rows)")


def test_piece_that_is_in_the_test_too_is_dropped(folder):
    (folder / "a.txt").write_text("again " * 100)
    assert error("a.txt").startswith("a.txt: the validation split is empty (1 training rows)")


def test_compressed_novel_gives_the_same_data(novel, folder):
    before = load("novel.txt").fingerprint
    (folder / "novel.txt").unlink()
    (folder / "novel.txt.xz").write_bytes(lzma.compress(novel.encode()))
    assert load("novel.txt").fingerprint == before


@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=5),
    validation=st.floats(0, 0.49),
    test=st.floats(0, 0.5),
)
def test_cuts_lose_nothing_and_share_nothing(sizes, validation, test):
    # No character occurs twice, so that every one can be found again.
    characters = iter(range(0x4E00, 0x9FFF))
    documents = [
        Document("".join(chr(next(characters)) for _ in range(size)), str(i))
        for i, size in enumerate(sizes)
    ]
    splits = loading.cut_by_position(documents, {"test": test, "validation": validation}, cut)
    for document in documents:
        pieces = [
            piece.text
            for name in ("train", "validation", "test")
            for piece in splits[name]
            if piece.place == document.place
        ]
        assert "".join(pieces) == document.text
