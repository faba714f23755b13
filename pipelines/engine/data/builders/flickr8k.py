"""Flickr8k: photographs, each described by five people."""

from __future__ import annotations

import io
import os
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.locate import DATA_SETTING, locate

URL = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
PICTURES, TEXTS = "Flickr8k_Dataset.zip", "Flickr8k_text.zip"
CAPTIONS = "Flickr8k.token.txt"
#: The lists of each split.
FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "validation": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


class Flickr8k(tfds.core.GeneratorBasedBuilder):
    """The two official archives, from the folder ``flickr8k`` under ``UNFOLD_DATA`` if that is
    there, else downloaded. The pictures stay the files that they are."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photographs, each described by five people (Hodosh et al. 2013).",
            homepage="https://hockenmaier.cs.illinois.edu/8k-pictures.html",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "captions"),
            # The order of an official list is kept.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        given = os.environ.get(DATA_SETTING)
        if given and (Path(given).expanduser() / "flickr8k").is_dir():
            pictures, texts = (locate(f"flickr8k/{name}") for name in (PICTURES, TEXTS))
        else:
            found = dl_manager.download([f"{URL}/{name}" for name in (PICTURES, TEXTS)])
            pictures, texts = map(Path, found)
        captions = _captions(_text(texts, CAPTIONS))
        return {
            split: self._generate_examples(pictures, _text(texts, name).split(), captions)
            for split, name in FILES.items()
        }

    def _generate_examples(
        self, pictures: Path, names: list[str], captions: Mapping[str, list[bytes]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        with _opened(pictures) as archive:
            inside = {Path(path).name: path for path in archive.namelist()}
            for i, name in enumerate(names):
                if name not in inside:
                    raise UserError(f"{pictures}: has no picture {name}")
                raw = io.BytesIO(archive.read(inside[name]))
                yield i, {"image": raw, "captions": captions.get(name, []), "name": name}


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable ZIP archive: {error}") from None


def _text(path: Path, name: str) -> str:
    """A file of an archive; bytes that are not UTF-8 are kept as lone surrogates."""
    with _opened(path) as archive:
        found = [inside for inside in archive.namelist() if Path(inside).name == name]
        if not found:
            raise UserError(f"{path}: has no file {name}")
        return archive.read(found[0]).decode("utf-8", errors="surrogateescape")


def _captions(lines: str) -> dict[str, list[bytes]]:
    """By picture, from lines such as ``picture.jpg#0<TAB>A dog runs .``"""
    captions: dict[str, list[bytes]] = defaultdict(list)
    for line in lines.split("\n"):
        key, _, text = line.partition("\t")
        if text.strip():
            raw = text.strip().encode("utf-8", errors="surrogateescape")
            captions[key.partition("#")[0]].append(raw)
    return captions
