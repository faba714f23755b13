"""Flickr8k as a TFDS data set: from a folder, or from what TFDS has downloaded."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.reading import read
from pipelines.engine.data.sources.rows import Row, RowReport
from tests.support.pictures import encoded, scene

PICTURES = {f"{i}_ab.jpg": encoded(scene().rotate(i), "JPEG") for i in range(6)}
LISTS = {
    "Flickr_8k.trainImages.txt": ["3_ab.jpg", "0_ab.jpg", "1_ab.jpg"],
    "Flickr_8k.devImages.txt": ["2_ab.jpg"],
    "Flickr_8k.testImages.txt": ["4_ab.jpg"],
}
TOKENS = [f"{name}#{i}\tText {i} of {name} ." for name in PICTURES for i in range(5)]
TOKENS += ["gone.jpg.1#0\tA picture that there is not ."]


def archives(folder, lists=LISTS):
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "Flickr8k_Dataset.zip", "w") as file:
        file.writestr("Flicker8k_Dataset/", "")
        for name, raw in PICTURES.items():
            file.writestr(f"Flicker8k_Dataset/{name}", raw)
    with zipfile.ZipFile(folder / "Flickr8k_text.zip", "w") as file:
        file.writestr("Flickr8k.token.txt", "\n".join(TOKENS) + "\n")
        for name, pictures in lists.items():
            file.writestr(name, "\n".join(pictures) + "\n")


@pytest.fixture(autouse=True)
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("UNFOLD_DATA", raising=False)
    monkeypatch.delenv("UNFOLD_DOWNLOADS", raising=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "corpora" / "flickr8k"
    archives(folder)
    monkeypatch.setenv("UNFOLD_DATA", str(folder.parent))
    return folder


def read_all(source: str, *columns: str) -> tuple[list[Row], RowReport]:
    problems = RowReport()
    return list(read(source, columns, problems)), problems


def check_splits() -> None:
    for split, listed in zip(("train", "validation", "test"), LISTS.values(), strict=True):
        rows, problems = read_all(f"tfds:flickr8k@{split}", "image", "captions", "name")
        assert problems.examples == []
        assert [row.fields["name"] for row in rows] == listed
        for row in rows:
            name = row.fields["name"]
            assert row.fields["image"] == PICTURES[name]  # to the byte
            assert row.fields["captions"] == [f"Text {i} of {name} ." for i in range(5)]


def test_from_a_folder(folder, monkeypatch):
    check_splits()
    monkeypatch.delenv("UNFOLD_DATA")  # what is prepared is kept
    check_splits()
    with pytest.raises(UserError, match=r"no column 'caption' \(did you mean captions\?\)"):
        read_all("tfds:flickr8k@train", "image", "caption")


def test_from_downloads_under_the_names_of_tfds(tmp_path, monkeypatch):
    from pipelines.engine.data.builders.flickr8k import URL

    archives(tmp_path / "original")
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    for file in (tmp_path / "original").iterdir():
        url, raw = f"{URL}/{file.name}", file.read_bytes()
        path = downloads / tfds.core.download.resource.get_dl_fname(url)
        path.write_bytes(raw)
        url_info = {
            "checksum": hashlib.sha256(raw).hexdigest(),
            "size": len(raw),
            "filename": file.name,
        }
        info = {"urls": [url], "url_info": url_info}
        path.with_name(path.name + ".INFO").write_text(json.dumps(info))
    monkeypatch.setenv("UNFOLD_DOWNLOADS", str(downloads))
    check_splits()


def test_broken_utf8_is_counted(folder):
    with zipfile.ZipFile(folder / "Flickr8k_text.zip", "w") as file:
        file.writestr("Flickr8k.token.txt", b"0_ab.jpg#0\tA caf\xe9 .\n1_ab.jpg#0\tA dog .\n")
        for name, pictures in LISTS.items():
            file.writestr(name, "\n".join(pictures))
    rows, problems = read_all("tfds:flickr8k@train", "image", "captions")
    assert [row.fields["captions"] for row in rows] == [[], ["A dog ."]]
    assert problems.examples == ["flickr8k@train[1]: broken UTF-8 in column 'captions'"]


def test_archives_that_cannot_be_used(folder):
    archives(folder, lists=LISTS | {"Flickr_8k.devImages.txt": ["9.jpg"]})
    with pytest.raises(UserError, match=r"Flickr8k_Dataset\.zip: has no picture 9\.jpg"):
        read_all("tfds:flickr8k@train", "image")
    (folder / "Flickr8k_text.zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"Flickr8k_text\.zip: not a readable ZIP archive"):
        read_all("tfds:flickr8k@train", "image")
    with zipfile.ZipFile(folder / "Flickr8k_text.zip", "w") as file:
        file.writestr("readme.txt", "nothing")
    with pytest.raises(UserError, match=r"has no file Flickr8k\.token\.txt"):
        read_all("tfds:flickr8k@train", "image")
    (folder / "Flickr8k_text.zip").unlink()
    with pytest.raises(UserError, match=r"Flickr8k_text\.zip: no such file"):
        read_all("tfds:flickr8k@train", "image")
    # Nothing half prepared is left to be read the next time.
    archives(folder)
    check_splits()


class _Nested(tfds.core.GeneratorBasedBuilder):
    """Features within lists, and one whose name has a stroke, as in ``coco_captions``."""

    name = "unfold_nested"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        texts = tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()})
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {"image": tfds.features.Image(), "image/id": np.int64, "captions": texts}
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i, raw in enumerate(PICTURES.values()):
            texts = [{"id": j, "text": f"Text {j} of {i}"} for j in range(i)]
            yield i, {"image": io.BytesIO(raw), "image/id": 10 + i, "captions": texts}


def test_columns_inside_of_others():
    rows, problems = read_all(
        "tfds:unfold_nested@train", "image", "image/id", "captions/text", "captions/id"
    )
    assert problems.examples == []
    for i, (row, raw) in enumerate(zip(rows, PICTURES.values(), strict=True)):
        assert row.fields["image"] == raw
        assert row.fields["image/id"] == 10 + i
        assert row.fields["captions/text"] == [f"Text {j} of {i}" for j in range(i)]
    with pytest.raises(UserError, match=r"no column 'captions/texts' \(did you mean captions/text"):
        read_all("tfds:unfold_nested@train", "captions/texts")
