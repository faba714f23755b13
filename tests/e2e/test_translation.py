"""Translation as a user runs it: real processes, real files, a SavedModel that stands alone."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.alone import stands_alone
from tests.support.commands import (
    interrupt,
    ok,
    resume_and_compare,
    unfold,
)
from tests.support.pairs import small


@pytest.fixture(scope="module")
def source(trained_once) -> str:
    return trained_once("translation").source


@pytest.fixture(scope="module")
def trained(trained_once) -> tuple[Path, dict]:
    """A home with one finished run, and what ``train --json`` printed."""
    found = trained_once("translation")
    return found.home, found.result


def test_it_translates_what_it_has_not_seen(trained, tmp_path):
    home, result = trained
    assert result["scores"]["bleu"] > 60
    assert result["scores"]["perplexity"] < 2
    picture = tmp_path / "attention.png"
    text = "Here the old dog sings."
    ask = ["predict", "translation", "--attention", str(picture), "--json", text]
    answer = ok(unfold(home, *ask))
    assert answer["text"] == "Hier singt das alte Tier, Hund."
    assert answer["n_best"][0]["text"] == answer["text"]
    assert len(answer["n_best"]) == 5
    assert picture.read_bytes().startswith(b"\x89PNG")
    one = ok(unfold(home, "predict", "translation", "--set", "decoding.beam_width=1",
                    "--json", text))  # fmt: skip
    assert len(one["n_best"]) == 1


def test_the_run_holds_pictures_and_tables(trained):
    folder = Path(trained[1]["folder"])
    for name in ("explained_1", "attention_1", "bleu_by_length", "learning_curves"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 0, name
    with (folder / "tables" / "translations.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == json.loads((folder / "run.json").read_text())["data"]["records"]["test"]
    assert all(row["input"] and row["reference"] for row in rows)
    assert "tok:13a" in (folder / "tables" / "signatures.csv").read_text()
    assert (folder / "tables" / "best_and_worst.csv").exists()


def test_the_export_stands_alone(trained, tmp_path):
    """In a process that has only TensorFlow, from another place, with nothing else there."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(Path(trained[1]["folder"]) / "savedmodel", moved)
    code = """
import json
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
serve = model.signatures["serving_default"]
def ask(texts, width):
    limits = {"beam_width": tf.constant([width]), "max_length": tf.constant([20])}
    answer = serve(text=tf.constant(texts), **limits)
    return [t.decode() for t in answer["text"].numpy()]
odd = ["", "漢字 🙂", "?!", "the dog " * 250, "Here the tired fish runs."]
print(json.dumps([ask(odd, 5), [ask([t], 5)[0] for t in odd]]))
"""
    banned = ["keras", "tokenizers", "mlflow"]
    together, one_by_one = stands_alone(code, str(moved), folder=tmp_path, banned=banned)
    assert together == one_by_one
    assert together[0] == ""
    assert "läuft" in together[-1]


def test_interrupted_equals_uninterrupted(trained, source, tmp_path):
    interrupt(tmp_path, "translation", small(source), signal.SIGTERM)
    resume_and_compare(tmp_path, "translation", trained[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.input=fr"], "fr"),
        (["model.decoder.attention=dot"], "additive"),
        (["text.vocabulary=100", "model.level=subword"], "text.vocabulary"),
    ],
)
def test_a_mistake_is_one_line(source, tmp_path, settings, message):
    done = unfold(tmp_path, "train", "translation", *small(source, *settings))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/translation/2*"))
