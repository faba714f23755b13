"""Thousands of damaged files: an export answers what training takes, and survives them all."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.captioning.config import CONFIG
from pipelines.captioning.model import build
from pipelines.captioning.records import Picture
from pipelines.captioning.task import TASK
from pipelines.engine.data import images
from pipelines.engine.data.splits import Splits
from pipelines.engine.export import savedmodel
from tests.support.alone import stands_alone
from tests.support.pictures import bmp, encoded, exif_of, shape, with_chunk, xmp_of

SIZE = 32
FILES = 2000

ANSWER = """
import json
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
limits = {"beam_width": tf.constant([1]), "max_length": tf.constant([1])}
scores = []
for files in tf.data.TFRecordDataset(sys.argv[2]).batch(100):
    scores += serve(image=files, **limits)["score"].numpy().tolist()
print(json.dumps(scores))
"""


def whole_files() -> list[bytes]:
    frames = [shape("red", "ring", 40), shape("blue", "bar", 40), shape("green", "square", 40)]
    moving = {"save_all": True, "append_images": frames[1:]}
    clear = frames[0].copy()
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    few = frames[0].quantize(4)
    exif, xmp = exif_of(6, thumbnail=3), xmp_of(8)
    rng = np.random.default_rng(0)
    files = [
        encoded(frames[0], "JPEG", exif=b"Exif\0\0" + exif, xmp=xmp),
        encoded(frames[0].convert("CMYK"), "JPEG", progressive=True),
        encoded(frames[0], "MPO", **moving),
        encoded(clear, "PNG", exif=exif),
        encoded(few, "PNG", bits=2, transparency=bytes([0, 90, 255, 255])),
        with_chunk(encoded(frames[0]), b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp),
        encoded(few, "GIF", transparency=1, comment=b"a" * 300),
        encoded(frames[0], "GIF", **moving),
        encoded(clear, "WEBP", exif=exif),
        encoded(clear, "WEBP", lossless=True),
        encoded(frames[0], "WEBP", **moving),
        encoded(clear, "WEBP", save_all=True, append_images=[clear.rotate(90)], xmp=xmp),
    ]
    for bits in (1, 4, 8, 16, 24, 32):
        palette = rng.integers(0, 256, (2**bits, 3)) if bits <= 8 else None
        files.append(bmp(rng.integers(0, 2**bits, (9, 7)), bits, palette, header=56))
    return files


def damaged(files: list[bytes], draw: random.Random) -> bytes:
    """A file in which bytes are other ones, missing, too many, or those of another file."""
    raw = bytearray(draw.choice(files))
    for _ in range(draw.choice([1, 1, 2, 5])):
        # As often in the first bytes, where sizes are, as anywhere.
        at = draw.randrange(draw.choice([64, len(raw) + 1]))
        kind = draw.randrange(6)
        if kind == 0:
            raw[at : at + 1] = [draw.randrange(256)]
        elif kind == 1:
            raw[at : at + 4] = draw.choice([bytes(4), b"\xff" * 4, b"\0\1\0\0", b"\0\0\0\x80"])
        elif kind == 2:
            del raw[at : at + draw.choice([1, 4, 100])]
        elif kind == 3:
            raw[at:at] = draw.randbytes(draw.choice([1, 4, 100]))
        elif kind == 4:
            del raw[draw.randrange(len(raw) + 1) :]
        else:
            other = draw.choice(files)
            start = draw.randrange(len(other))
            raw[at:at] = other[start : start + 200]
    return bytes(raw)


def export(folder):
    """A model of random weights that answers in an instant."""
    config = CONFIG.model_validate(
        {
            "data": {"source": "captions.csv"},
            "model": {
                "encoder": {"features": 4, "size": SIZE},
                "decoder": {"units": [4], "embedding": 4, "attention": "none"},
            },
        }
    )
    record = Picture(folder, "", ("a red ring", "a blue bar"), "")
    processor = TASK.fit_processor(config, Splits([record], [], [], "", {}))
    pixels = keras.Input((SIZE, SIZE, 3))
    encoder = keras.Model(pixels, keras.layers.Conv2D(3, 16, 16)(pixels))
    model = build(config.model, encoder, vocabulary=processor.size, seed=1)
    endpoints = TASK.endpoints(config, processor, model)
    savedmodel.write(folder / "savedmodel", model, endpoints, processor.resources())
    return folder / "savedmodel"


@pytest.mark.thorough
def test_an_export_answers_what_training_takes_and_survives_the_rest(tmp_path):
    draw, whole = random.Random(1), whole_files()
    files = whole + [damaged(whole, draw) for _ in range(FILES)]
    with tf.io.TFRecordWriter(str(tmp_path / "files")) as writer:
        for raw in files:
            writer.write(raw)
    scores = stands_alone(
        ANSWER, str(export(tmp_path)), str(tmp_path / "files"),
        folder=tmp_path, banned=["keras", "PIL"], TF_CPP_MIN_LOG_LEVEL="3",
    )  # fmt: skip
    answered = np.array(scores) > -1e8
    taken = np.array([images.find_defect(raw) is None for raw in files])
    np.testing.assert_array_equal(answered, taken)
    assert answered[: len(whole)].all()
    assert 0.2 < answered.mean() < 0.8  # both are tried
