"""Multi30k as a TFDS data set: from a folder, or from what TFDS has downloaded."""

import gzip
import hashlib
import json
import lzma

import pytest

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.reading import read
from pipelines.engine.data.sources.rows import Row, RowReport

TEXTS = {
    "train": [
        ("A dog.", "Ein Hund.", "Un chien."),
        ("A café.", "Ein Café.", "Un café\u2028l'été."),
        ("", "Nichts.", "Rien."),
    ],
    "val": [("Two dogs.", "Zwei Hunde.", "Deux chiens.")],
    "test_2016_flickr": [("One.", "Eins.", "Un."), ("Two.", "Zwei.", "Deux.")],
}


def files() -> dict[str, bytes]:
    """The original files by their names, before compression."""
    return {
        f"{split}.{language}": "".join(f"{row[i]}\n" for row in rows).encode()
        for split, rows in TEXTS.items()
        for i, language in enumerate(("en", "de", "fr"))
    }


@pytest.fixture(autouse=True)
def prepared(tmp_path, monkeypatch):
    """What TFDS prepares for a test is its own, and no folder of data is given."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("UNFOLD_DATA", raising=False)
    monkeypatch.delenv("UNFOLD_DOWNLOADS", raising=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "corpora" / "multi30k"
    folder.mkdir(parents=True)
    for name, raw in files().items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
    monkeypatch.setenv("UNFOLD_DATA", str(folder.parent))
    return folder


def read_all(source: str, *columns: str) -> tuple[list[Row], RowReport]:
    problems = RowReport()
    return list(read(source, columns, problems)), problems


def check_splits() -> None:
    names = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
    for split, name in names.items():
        rows, problems = read_all(f"tfds:multi30k@{split}", "en", "de", "fr")
        assert [tuple(row.fields.values()) for row in rows] == TEXTS[name]
        assert [row.place for row in rows] == [f"multi30k@{split}[{i}]" for i in range(len(rows))]
        assert problems.examples == []


def test_from_a_folder(folder, monkeypatch):
    # As they are found: compressed in either way, or not.
    plain = files()
    (folder / "val.en.gz").unlink()
    (folder / "val.en").write_bytes(plain["val.en"])
    (folder / "val.de.gz").unlink()
    (folder / "val.de.xz").write_bytes(lzma.compress(plain["val.de"]))
    check_splits()
    # The features of the data set are the columns, and what is prepared is kept.
    monkeypatch.delenv("UNFOLD_DATA")
    with pytest.raises(UserError, match=r"no column 'it'; there are: en, de, fr$"):
        read_all("tfds:multi30k@train", "en", "it")
    with pytest.raises(UserError, match=r"no such split; there are: .*multi30k@validation"):
        read_all("tfds:multi30k@val", "en")
    ((*_, row), _) = read_all("tfds:multi30k:1.0.0@test", "de")
    assert row == Row({"de": "Zwei."}, "multi30k:1.0.0@test[1]")


@pytest.mark.parametrize("inside", ["", "multi30k"])
def test_from_downloads_under_the_names_of_tfds(tmp_path, monkeypatch, inside):
    import tensorflow_datasets as tfds

    from pipelines.engine.data.builders.multi30k import URL

    downloads = tmp_path / "downloads"
    (downloads / inside).mkdir(parents=True)
    for name, raw in files().items():
        packed = gzip.compress(raw)
        path = downloads / inside / tfds.core.download.resource.get_dl_fname(f"{URL}/{name}.gz")
        path.write_bytes(packed)
        url_info = {
            "checksum": hashlib.sha256(packed).hexdigest(),
            "size": len(packed),
            "filename": f"{name}.gz",
        }
        info = {"urls": [f"{URL}/{name}.gz"], "url_info": url_info}
        path.with_name(path.name + ".INFO").write_text(json.dumps(info))
    # A folder of data without the files is none to read them from.
    (tmp_path / "corpora").mkdir()
    monkeypatch.setenv("UNFOLD_DATA", str(tmp_path / "corpora"))
    monkeypatch.setenv("UNFOLD_DOWNLOADS", str(downloads))
    before = sorted(path.name for path in downloads.rglob("*"))
    check_splits()
    assert sorted(path.name for path in downloads.rglob("*")) == before


def test_broken_utf8_is_counted(folder):
    (folder / "train.de.gz").write_bytes(gzip.compress(b"Hund.\nCaf\xe9.\nNichts.\n"))
    rows, problems = read_all("tfds:multi30k@train", "en", "de")
    assert [row.fields["de"] for row in rows] == ["Hund.", "Nichts."]
    assert problems.examples == ["multi30k@train[1]: broken UTF-8 in column 'de'"]


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("val.fr", None, "data: multi30k/val.fr: no such file in UNFOLD_DATA="),
        ("train.fr", gzip.compress(b"Un.\n", mtime=0), "equally many: "),
        ("train.fr", gzip.compress(b"Un.\n" * 3, mtime=0)[:-9], ".gz: a damaged .gz file: "),
    ],
)
def test_files_that_cannot_be_used(folder, name, raw, message):
    path = folder / f"{name}.gz"
    path.unlink()
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(UserError) as caught:
        read_all("tfds:multi30k@train", "en")
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    # Nothing half prepared is left to be read the next time.
    path.write_bytes(gzip.compress(files()[name]))
    check_splits()


def test_neither_a_folder_nor_a_network(monkeypatch):
    import tensorflow_datasets as tfds

    def refuse(manager, urls):
        raise tfds.core.download.DownloadError("no route")

    monkeypatch.setattr(tfds.download.DownloadManager, "download", refuse)
    with pytest.raises(UserError) as caught:
        read_all("tfds:multi30k@train", "en")
    assert str(caught.value) == (
        "data: tfds:multi30k: could not be downloaded (no route); offline, set UNFOLD_DOWNLOADS to "
        "a folder with the original files under TFDS's names, or UNFOLD_DATA to one with a folder "
        "multi30k/"
    )
