"""A pipeline of another package is trained, scored, exported, served and compared like ours.

The package is in tests/outside, registered by the metadata beside it; no line of this project names
it.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from pipelines.engine.tasks.catalog import BUILT_IN
from tests.support import ROOT
from tests.support.commands import ok, unfold
from tests.support.servers import serving

OUTSIDE = ROOT / "tests" / "outside"
PATH = {"PYTHONPATH": os.pathsep.join(map(str, (OUTSIDE, ROOT)))}
WORDS = {"D": ["the", "a"], "N": ["dog", "cat", "bird"], "V": ["sees", "hears"]}


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of sentences; "fish" is a noun after a determiner and a verb elsewhere."""
    rng = random.Random(1)
    path = tmp_path_factory.mktemp("data") / "sentences.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "tags"])
        for _ in range(600):
            tags = ["D", "N", "V", "D", "N"][: rng.choice([3, 5])]
            words = [
                "fish" if tag != "D" and rng.random() < 0.3 else rng.choice(WORDS[tag])
                for tag in tags
            ]
            writer.writerow([" ".join(words), " ".join(tags)])
    return path


@pytest.fixture(scope="module")
def trained(sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A home folder with one finished run, and the output of ``train --json``."""
    home = tmp_path_factory.mktemp("home")
    source = f"data.source={sentences}"
    return home, ok(unfold(home, "train", "tags", "--json", "--set", source, **PATH))


def test_it_learns_to_tag(trained):
    _, result = trained
    assert result["scores"]["accuracy"] >= 0.95
    folder = Path(result["folder"])
    for name in ("figures/learning_curves.png", "tables/tags.csv", "model.keras"):
        assert (folder / name).stat().st_size > 0, name


def test_it_is_evaluated_as_in_training(trained):
    home, result = trained
    again = ok(unfold(home, "evaluate", "tags", "--json", **PATH))
    assert again["accuracy"] == pytest.approx(result["scores"]["accuracy"])


def test_the_same_word_has_the_tag_of_its_place(trained):
    home, _ = trained
    answer = ok(unfold(home, "predict", "tags", "--json", "the fish fish a bird", **PATH))
    assert answer["tags"] == ["D", "N", "V", "D", "N"]


def test_a_file_of_sentences_is_tagged(trained, tmp_path):
    home, _ = trained
    source, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text('text\nthe fish fish a bird\n""\na cat hears\n')
    files = ["--file", str(source), "--out", str(out)]
    assert ok(unfold(home, "predict", "tags", "--json", *files, **PATH))["unusable"] == 1
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["error"] for row in rows] == [None, "'text' is empty", None]
    assert json.loads(rows[0]["prediction"])["tags"] == ["D", "N", "V", "D", "N"]
    assert json.loads(rows[2]["prediction"])["tags"] == ["D", "N", "V"]


def test_without_explanations_explain_is_an_error(trained):
    home, _ = trained
    done = unfold(home, "explain", "tags", "the dog sees", **PATH)
    assert done.returncode == 2
    assert "tags has no explanations" in done.stderr


def test_its_export_is_served_without_the_package(trained):
    home, _ = trained
    ok(unfold(home, "export", "tags", "--json", **PATH))
    with serving(home) as server:
        answer = server.post({"instances": ["a cat hears"]}, "/v1/models/tags:predict")
    assert answer.json() == {"predictions": [["D", "N", "V"]]}


def test_its_variants_are_compared(sentences, tmp_path):
    source = ["--set", f"data.source={sentences}", "--set", "train.epochs=1"]
    found = ok(unfold(tmp_path, "compare", "tags", "--json", "--seeds", "1", *source, **PATH))
    assert set(found["variants"]) == {"forward", "bidirectional"}
    assert not found["failed"]


def test_make_lists_it():
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, env=os.environ | PATH, capture_output=True, text=True
    )
    assert f"TASK: {' '.join(BUILT_IN)} tags\n" in done.stdout


def test_the_package_is_short_and_unknown_to_this_project():
    files = [path for path in (OUTSIDE / "unfold_tags").rglob("*.*") if path.suffix != ".pyc"]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) <= 300
    for path in (ROOT / "pipelines").rglob("*.py"):
        assert "unfold_tags" not in path.read_text(encoding="utf-8"), path
