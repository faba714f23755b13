"""Generation as a user runs it: real processes, real files, a real MLflow store."""

from __future__ import annotations

import csv
import importlib.util
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.commands import interrupt, ok, resume_and_compare, unfold
from tests.support.lines import SUBJECTS, small
from tests.support.servers import serving


@pytest.fixture(scope="module")
def lines(trained_once) -> Path:
    return Path(trained_once("generation").source)


@pytest.fixture(scope="module")
def trained(trained_once) -> tuple[Path, dict]:
    """A home with one finished run, and what ``train --json`` printed."""
    found = trained_once("generation")
    return found.home, found.result


def test_a_word_model_knows_what_comes_next(trained):
    home, result = trained
    assert result["scores"]["perplexity"] < 3
    answer = ok(unfold(home, "predict", "generation", "--json", "The sun rises in the"))
    assert max(answer["next"], key=answer["next"].get) == " east"
    assert answer["next"][" east"] > 0.6
    assert sum(answer["next"].values()) <= 1.0001
    shown = unfold(home, "predict", "generation", "A star rises in the")
    assert shown.stdout.index("night") < shown.stdout.index("east")


def test_the_run_shows_what_it_wrote_after_each_epoch(trained):
    folder = Path(trained[1]["folder"])
    with (folder / "tables" / "examples_by_epoch.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["epoch"], r["prompt"]) for r in rows] == [
        (str(e), p) for e in (1, 2, 3, 4) for p in ("The sun", "")
    ]
    assert all(r["text"].startswith(r["prompt"]) for r in rows)
    for name in (
        "figures/surprise_by_place.png",
        "figures/lengths.png",
        "figures/explained_1.png",
        "tables/written.csv",
    ):
        assert (folder / name).stat().st_size > 0, name


def test_sampling_is_chosen_at_the_request(trained):
    home, _ = trained

    def write(*settings: str) -> str:
        pairs = [a for s in settings for a in ("--set", f"sampling.{s}")]
        return ok(unfold(home, "predict", "generation", "--json", *pairs, "The"))["text"]

    hot = write("temperature=2.0", "max_length=9")
    assert hot != write("temperature=2.0", "max_length=9", "seed=9")
    assert write("temperature=0.0", "max_length=2").split()[0] == "The"


def test_clients_who_ask_at_once_are_answered_as_alone(trained_once, tmp_path):
    home = trained_once("generation").copy(tmp_path)
    ok(unfold(home, "export", "generation", "--json"))
    asked = [
        {
            "instances": [
                {
                    "prompt": f"{SUBJECTS[i % 3]} rises",
                    "temperature": [0, 1][i % 2],
                    "max_length": 3 + i % 2,
                    "seed": i,
                }
            ]
        }
        for i in range(8)
    ]
    with serving(home) as server, ThreadPoolExecutor(8) as clients:

        def ask(body: dict) -> str:
            return server.post(body, "/v1/models/generation:predict").json()["predictions"][0]

        alone = [ask(body) for body in asked]
        assert alone[0] == "The sun rises in the east"
        assert len(set(alone)) > 4
        for _ in range(3):
            assert list(clients.map(ask, asked)) == alone
        likeliest = {"signature_name": "next", "instances": ["The sun rises in the"]}
        answer = server.post(likeliest, "/v1/models/generation:predict").json()
        assert answer["predictions"][0]["tokens"][0] == " east"


def test_interrupted_equals_uninterrupted(trained, lines, tmp_path):
    words = small(lines, "model.level=word", "text.min_count=5")
    interrupt(tmp_path, "generation", words, signal.SIGKILL)
    folder = resume_and_compare(tmp_path, "generation", trained[1])
    first, second = (
        (f / "tables" / "examples_by_epoch.csv").read_text()
        for f in (Path(trained[1]["folder"]), folder)
    )
    assert first == second


def test_tunes_are_composed_judged_and_played(tmp_path):
    """From a file of tunes to a MIDI file; so short a training makes no music of it."""
    corpus = importlib.util.find_spec("music21").submodule_search_locations[0]
    source = Path(corpus) / "corpus" / "airdsAirs" / "book1.abc"
    arguments = small(source, "text.format=abc", "sampling.max_length=80", "train.epochs=1")
    result = ok(unfold(tmp_path, "train", "generation", "--json", *arguments))
    scores = result["scores"]
    assert scores["held_out_parse_rate"] > 0.9
    assert 0 <= scores["parse_rate"] <= 1
    assert 0 < scores["held_out_copied"] < 1

    # Nothing is added to a tune that is whole, and it is played.
    tune = "X:1\\nT:Scale\\nM:4/4\\nL:1/4\\nK:C\\n" + "CDEF|GABc|" * 2
    midi = tmp_path / "tune.mid"
    ask = ["predict", "generation", "--set", "sampling.max_length=0", "--midi", str(midi)]
    assert "CDEF" in unfold(tmp_path, *ask, tune).stdout
    assert midi.read_bytes().startswith(b"MThd")
    refused = unfold(tmp_path, *ask[:-1], str(tmp_path / "other.mid"), "Not a tune")
    assert refused.returncode == 2
    assert "error: " in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "other.mid").exists()
    wrong = unfold(tmp_path, "predict", "sentiment", "--midi", str(midi), "text")
    assert wrong.returncode == 2
    assert "sentiment writes no such file" in wrong.stderr
