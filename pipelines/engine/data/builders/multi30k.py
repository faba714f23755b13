"""Multi30k: descriptions of pictures in English, German and French."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from pipelines.engine.data.sources.locate import DATA_SETTING, locate
from pipelines.engine.data.sources.parallel import parallel_lines

URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
LANGUAGES = ("en", "de", "fr")
#: What the files of each split are called.
FILES = {"train": "train", "validation": "val", "test": "test_2016_flickr"}


class Multi30k(tfds.core.GeneratorBasedBuilder):
    """Read from the folder ``multi30k`` under ``UNFOLD_DATA`` if that is there, else downloaded."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Descriptions of pictures, translated by people (Elliott et al. 2016).",
            homepage="https://github.com/multi30k/dataset",
            features=tfds.features.Translation(LANGUAGES),
            supervised_keys=("en", "de"),
            # The number of an example is that of its line, from 0.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        names = {split: [f"{file}.{lang}" for lang in LANGUAGES] for split, file in FILES.items()}
        given = os.environ.get(DATA_SETTING)
        if given and (Path(given).expanduser() / "multi30k").is_dir():
            paths = {s: [locate(f"multi30k/{name}") for name in names[s]] for s in names}
        else:
            urls = {s: [f"{URL}/{name}.gz" for name in names[s]] for s in names}
            found = dl_manager.download(urls)
            paths = {s: [Path(path) for path in found[s]] for s in names}
        return {split: self._generate_examples(paths[split]) for split in paths}

    def _generate_examples(self, paths: Sequence[Path]) -> Iterator[tuple[int, dict[str, bytes]]]:
        for i, texts in enumerate(parallel_lines(paths)):
            # What is not UTF-8 stays what it is: it is found when rows are read.
            raw = [text.encode("utf-8", errors="surrogateescape") for text in texts]
            yield i, dict(zip(LANGUAGES, raw, strict=True))
