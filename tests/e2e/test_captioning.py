"""Captioning as a user runs it: real processes, real files, a SavedModel that stands alone."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.alone import stands_alone
from tests.support.commands import (
    interrupt,
    ok,
    resume_and_compare,
    unfold,
)
from tests.support.photos import small
from tests.support.pictures import encoded, scene, shape


@pytest.fixture(scope="module")
def source(trained_once) -> str:
    return trained_once("captioning").source


@pytest.fixture(scope="module")
def trained(trained_once) -> tuple[Path, dict]:
    """A home with one finished run, and what ``train --json`` printed."""
    found = trained_once("captioning")
    return found.home, found.result


def test_it_tells_what_it_sees(trained, tmp_path):
    home, result = trained
    assert result["scores"]["bleu_1"] > 70
    assert result["scores"]["perplexity"] < 2.5
    photo, picture = tmp_path / "photo.jpg", tmp_path / "attention.png"
    photo.write_bytes(encoded(shape("green", "ring", shift=3), "JPEG"))
    ask = ["predict", "captioning", "--attention", str(picture), "--json", str(photo)]
    answer = ok(unfold(home, *ask))
    assert "green ring" in answer["caption"]
    assert len(answer["n_best"]) == 3
    assert np.shape(answer["alignment"]) == (len(answer["tokens"]), 2, 2)
    assert picture.read_bytes().startswith(b"\x89PNG")
    one = ok(unfold(home, "predict", "captioning", "--set", "decoding.beam_width=1", "--json",
                    str(photo)))  # fmt: skip
    assert len(one["n_best"]) == 1


def test_the_run_holds_pictures_and_tables(trained):
    folder = Path(trained[1]["folder"])
    for name in ("explained_1", "attention_1", "contact_sheet", "learning_curves"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 0, name
    data = json.loads((folder / "run.json").read_text())["data"]
    with (folder / "tables" / "captions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == data["records"]["test"]
    assert all(row["output"] and " | " in row["references"] for row in rows)
    (found,) = [part for name, part in data.items() if name.endswith("captions.csv")]
    assert found["unusable"] == {"not a picture": 1, "no such picture": 1}
    assert (folder / "tables" / "examples_by_epoch.csv").exists()


def test_the_export_stands_alone(trained, tmp_path):
    """In a process that has only TensorFlow, with pictures of every size and some that are none."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(Path(trained[1]["folder"]) / "savedmodel", moved)
    pictures = {
        "png": encoded(shape("red", "square")),
        "jpeg": encoded(shape("red", "square"), "JPEG", quality=95),
        "blank": encoded(Image.new("RGB", (80, 60), "white")),
        "dot": encoded(Image.new("RGB", (1, 1), "red")),
        "huge": encoded(Image.new("RGB", (10_000, 10_000), "blue"), compress_level=1),
        "huge-jpeg": encoded(Image.new("RGB", (10_000, 10_000), "blue"), "JPEG"),
        "text": b"a text",
        "nothing": b"",
        "cut": encoded(scene(), "JPEG")[:2000],
    }
    for name, raw in pictures.items():
        (tmp_path / name).write_bytes(raw)
    code = """
import json
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
serve = model.signatures["serving_default"]
def ask(raw):
    limits = {"beam_width": tf.constant([3]), "max_length": tf.constant([20])}
    answer = serve(image=tf.constant(raw, tf.string, shape=[len(raw)]), **limits)
    captions = [t.decode() for t in answer["caption"].numpy()]
    return list(zip(captions, answer["score"].numpy().tolist()))
names = sys.argv[2:]
raw = [open(name, "rb").read() for name in names]
print(json.dumps([ask(raw), [ask([one])[0] for one in raw], ask([])]))
"""
    banned = ["keras", "PIL", "mlflow", "emoji"]
    together, alone, none = stands_alone(
        code, str(moved), *pictures, folder=tmp_path, banned=banned
    )
    assert none == []
    found = dict(zip(pictures, together, strict=True))
    for (caption, score), (text, value) in zip(together, alone, strict=True):
        assert caption == text
        assert score == pytest.approx(value, rel=1e-4)
    # Both ways to say it are as likely: the score tells that it is the same picture.
    assert found["png"][1] == pytest.approx(found["jpeg"][1], abs=0.05)
    assert all("red square" in found[name][0] for name in ("png", "jpeg"))
    for name in ("blank", "dot", "huge", "huge-jpeg"):
        assert found[name][0]
        assert -20 < found[name][1] < 0
    for name in ("text", "nothing", "cut"):
        assert tuple(found[name]) == ("", -1e9)


def test_interrupted_equals_uninterrupted(trained, source, tmp_path):
    interrupt(tmp_path, "captioning", small(source), signal.SIGTERM)
    resume_and_compare(tmp_path, "captioning", trained[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.image=photo"], "no column 'photo'"),
        (["data.max_bad_rows=0"], "2 of 354 rows cannot be used"),
        (["model.encoder.name=efficientnet"], "did you mean efficientnet-lite0?"),
    ],
)
def test_a_mistake_is_one_line(source, tmp_path, settings, message):
    done = unfold(tmp_path, "train", "captioning", *small(source, *settings))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_no_picture_is_told(trained, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"a text")
    done = unfold(trained[0], "predict", "captioning", str(path))
    assert done.returncode == 2
    assert "photo.jpg: not a picture" in done.stderr
    assert "Traceback" not in done.stderr
