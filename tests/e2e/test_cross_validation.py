"""A comparison over folds: real processes, one run for each variant and fold."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_task
from tests.support.commands import ok, unfold
from tests.support.reviews import small, write_reviews

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    source = write_reviews(tmp_path_factory.mktemp("data") / "reviews.csv", rows=80)
    settings = small(source, "train.epochs=1", "model.units=[2]")
    return ["compare", "sentiment", "--folds", "2", "--only", "n-grams", "rnn", *settings]


@pytest.fixture(scope="module")
def compared(arguments, tmp_path_factory) -> tuple[Path, dict]:
    home = tmp_path_factory.mktemp("home")
    return home, ok(unfold(home, *arguments, "--json"))


@pytest.fixture
def here(compared, monkeypatch) -> Path:
    monkeypatch.setenv("UNFOLD_HOME", str(compared[0]))
    return compared[0]


def test_each_fold_is_a_run_that_its_config_reproduces(compared, here):
    runs = {
        n: [Run.find("sentiment", r) for r in v["runs"]] for n, v in compared[1]["variants"].items()
    }
    assert len(Run.all("sentiment")) == 4
    for of_variant in runs.values():
        assert [run.config().data.fold for run in of_variant] == ["1/2", "2/2"]
        assert sum(run.info.data.records["test"] for run in of_variant) == 80
    for one, other in zip(*runs.values(), strict=True):
        assert one.info.data.fingerprint == other.info.data.fingerprint
        again = get_task("sentiment").load(one.config())
        assert again.fingerprint == one.info.data.fingerprint
    first, second = runs["rnn"]
    assert first.info.data.test_fingerprint != second.info.data.test_fingerprint


def test_the_table_has_means_and_paired_differences(compared, here):
    found = compared[1]
    assert found["folds"] == 2
    ngrams, rnn = found["variants"]["n-grams"], found["variants"]["rnn"]
    assert ngrams["draws"] == ["seed-1-fold-1-of-2", "seed-1-fold-2-of-2"]
    assert rnn["mean"] == pytest.approx(statistics.fmean(rnn["scores"]))
    assert rnn["deviation"] == pytest.approx(statistics.stdev(rnn["scores"]))
    best = max((ngrams, rnn), key=lambda v: v["mean"])
    for variant in (ngrams, rnn):
        paired = zip(variant["scores"], best["scores"], strict=True)
        assert variant["differences"] == pytest.approx([a - b for a, b in paired])
    folder = Path(found["folder"])
    assert json.loads((folder / "comparison.json").read_text()) == found
    assert "2 test fold(s) of 2" in (folder / "comparison.md").read_text()


def test_the_same_command_trains_nothing_again(compared, arguments, here):
    again = unfold(here, *arguments)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("done before") == 4
    assert len(Run.all("sentiment")) == 4
    # No single run is the model: each was tested on other records.
    assert "; unfold train sentiment --set " in again.stdout


def test_a_class_with_fewer_records_than_folds(arguments, tmp_path):
    source = tmp_path / "few.csv"
    source.write_text("text,label\n" + "".join(f"text {i},{'ab'[i < 3]}\n" for i in range(30)))
    # The last setting of a key counts.
    done = unfold(tmp_path, *arguments, "--folds", "5", "--set", f"data.source={source}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"error: {source}: has only 3 different record(s) of 'b' for 5 folds; use 3 folds or fewer"
    )
    assert not list((tmp_path / "runs" / "sentiment").glob("2*"))
