"""Rows of TensorFlow Datasets, ours included."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.sources.locate import DATA_SETTING
from pipelines.engine.data.sources.rows import Row, require_columns

#: A folder with the original downloads of TFDS data sets, for machines without a network.
DOWNLOADS_SETTING = "UNFOLD_DOWNLOADS"


#: Where TFDS keeps what it prepared; its own default is the home directory.
TFDS_SETTING = "TFDS_DATA_DIR"


#: TFDS builders of this project, and the modules that register them.
_BUILDERS = {
    "flickr8k": "pipelines.engine.data.builders.flickr8k",
    "multi30k": "pipelines.engine.data.builders.multi30k",
}


def read_tfds(source: str, columns: Sequence[str]) -> Iterator[Row]:
    import tensorflow_datasets as tfds

    name, _, split = source.removeprefix("tfds:").partition("@")
    if not split:
        raise UserError(f"data: {source}: which split? write it as tfds:{name or 'BUILDER'}@train")
    builder = _prepare_tfds(name)
    if split not in builder.info.splits:
        splits = ", ".join(f"{name}@{s}" for s in builder.info.splits)
        raise UserError(f"data: tfds:{name}@{split}: no such split; there are: {splits}")
    paths, features = {}, {}
    for path, feature in _features(builder.info.features):
        paths["/".join(path)], features["/".join(path)] = path, feature
    require_columns(f"tfds:{name}", columns, list(features))
    decode = {
        c: features[c].int2str for c in columns if isinstance(features[c], tfds.features.ClassLabel)
    }
    # A picture stays the file that it is.
    raw = {
        c: tfds.decode.SkipDecoding()
        for c in columns
        if isinstance(features[c], tfds.features.Image)
    }
    # Unlabelled splits carry the label -1, which has no name.
    for i, example in enumerate(tfds.as_numpy(builder.as_dataset(split=split, decoders=raw))):
        fields = {}
        for column in columns:
            value = example
            for part in paths[column]:
                value = value[part]
            if column in decode and np.ndim(value) == 0:
                value = decode[column](int(value)) if value >= 0 else ""
            elif isinstance(value, np.ndarray) and value.dtype == object:
                value = [v.decode("utf-8", errors="surrogateescape") for v in value.tolist()]
            elif isinstance(value, bytes) and column not in raw:
                value = value.decode("utf-8", errors="surrogateescape")
            fields[column] = value
        yield Row(fields, f"{name}@{split}[{i}]")


def _features(features: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The features of a data set by their paths, also those inside of one or of a list of it."""
    for name, feature in features.items():
        yield (name,), feature
        inner = getattr(feature, "feature", feature)
        if hasattr(inner, "items"):
            yield from (((name, *path), one) for path, one in _features(inner))


def _prepare_tfds(name: str) -> Any:
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    own = re.split("[/:]", name)[0]  # a name may go on with a config and a version
    if own in _BUILDERS:
        importlib.import_module(_BUILDERS[own])
    try:
        builder = tfds.builder(name, data_dir=os.environ.get(TFDS_SETTING))
    except tfds.core.registered.DatasetNotFoundError:
        near = difflib.get_close_matches(name, [*_BUILDERS, *tfds.list_builders()], n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"data: tfds:{name}: no such TFDS builder{hint}") from None
    except (ValueError, AssertionError) as error:  # its config, its version, or how it is written
        reason = str(error).splitlines()[0].rpartition('}": ')[2]
        raise UserError(f"data: tfds:{name}: {reason}") from None
    if builder.info.splits:
        return builder
    try:
        with _linked_downloads() as downloads:
            builder.download_and_prepare(download_dir=downloads)
    except (OSError, tfds.core.download.DownloadError) as error:
        reason = str(error).splitlines()[0][:160]
        by_hand = f", or {DATA_SETTING} to one with a folder {own}/" if own in _BUILDERS else ""
        raise UserError(
            f"data: tfds:{name}: could not be downloaded ({reason}); offline, set "
            f"{DOWNLOADS_SETTING} to a folder with the original files under TFDS's names{by_hand}"
        ) from None
    return builder


@contextlib.contextmanager
def _linked_downloads() -> Iterator[str | None]:
    """The user's folder of downloads as TFDS wants it: one that it can write into."""
    given = os.environ.get(DOWNLOADS_SETTING)
    if given is None:
        yield None
        return
    if not Path(given).is_dir():
        raise UserError(f"{DOWNLOADS_SETTING}={given}: no such folder")
    with tempfile.TemporaryDirectory() as links:
        for file in Path(given).resolve().iterdir():
            (Path(links) / file.name).symlink_to(file)
        yield links
