"""Features of pictures and their captions, which `unfold drift` compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.captioning.records import Picture
from pipelines.engine.config.schema import TokenLevel
from pipelines.engine.data import images
from pipelines.engine.export.digest import Measure
from pipelines.engine.tasks.comparable import Feature, Wording
from pipelines.engine.tasks.text_features import UNITS, length_feature
from pipelines.engine.text.tokenizer import DocumentTokenizer

#: What a server sees of a request and its answer.
MEASURES = (
    Measure(name="bytes", side="input", tensor="image", how="bytes"),
    Measure(name="answer_words", side="output", tensor="caption", how="words"),
    Measure(name="score", side="output", tensor="score", how="value"),
)
#: Width and height at which brightness and contrast are measured, and pictures at a time.
_SIZE, _BATCH = 64, 16
#: Luma of red, green and blue (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114])


def features(
    level: TokenLevel,
    processor: DocumentTokenizer,
    pictures: Sequence[Picture],
    losses_of: Callable[[Sequence[Picture]], np.ndarray],
) -> dict[str, Feature]:
    """Return the features of pictures and, if some have one, of their captions.

    Args:
        level: The unit of a token.
        processor: The tokenizer of the captions.
        pictures: The records; pictures without a caption have none.
        losses_of: Returns the loss of each caption, in any order.
    """
    files = [picture.file for picture in pictures]
    sizes = np.array([_size(file) for file in files], np.float64)
    light = _luma(files)
    found = {
        "megapixels": Feature(
            sizes.prod(axis=1) / 1e6, Wording("Pictures", "smaller", "larger", "megapixels")
        ),
        "aspect": Feature(
            sizes[:, 0] / sizes[:, 1],
            Wording("Pictures", "taller", "wider", "times as wide as high"),
        ),
        "brightness": Feature(
            light.mean(axis=1), Wording("Pictures", "darker", "brighter", "of 255")
        ),
        "contrast": Feature(
            light.std(axis=1), Wording("Contrasts of pictures", "lower", "higher", "of 255")
        ),
    }
    captioned = [picture for picture in pictures if picture.captions]
    if captioned:
        rows = processor.encode([text for p in captioned for text in p.captions])
        found["caption_tokens"] = length_feature(rows, "True captions", UNITS[level])
        wording = Wording("Losses", unit="nats a token")
        found["loss"] = Feature(losses_of(captioned), wording)
    return found


def _size(file: Path) -> tuple[int, int]:
    """Return the width and height of a picture, as stored."""
    with Image.open(file) as image:
        return image.size


def _luma(files: Sequence[Path]) -> np.ndarray:
    """Return the luma of each picture in small, from 0 to 255, ``<float64>[files, pixels]``."""
    decode = images.compiled_decoder(_SIZE)
    found = []
    for start in range(0, len(files), _BATCH):
        raw = [file.read_bytes() for file in files[start : start + _BATCH]]
        pixels = decode(tf.constant(raw))[0].numpy()
        found.append((pixels @ _LUMA).reshape(len(raw), -1))
    return np.concatenate(found)
