"""The plan and the table of a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.engine.config import loader as configs
from pipelines.engine.tasks.catalog import BUILT_IN, get_config
from pipelines.workflows import comparison as results
from pipelines.workflows.comparison import Comparison, Draw, Variant
from tests.support import ROOT
from tests.support.commands import unfold_in_process


@pytest.mark.parametrize("task", BUILT_IN)
def test_every_variant_of_every_config_is_allowed(task):
    kind = get_config(task)
    assert len(kind.variants) >= 4
    for file in (ROOT / "configs" / task).glob("*.yaml"):
        base = configs.load(file, kind)
        found = {
            configs.dump(configs.load(file, kind, overrides))
            for overrides in kind.variants.values()
        }
        assert len(found) == len(kind.variants)
        assert configs.dump(base) in found, "the config itself is one of them"


def test_a_variant_that_there_is_not_is_named(tmp_path):
    done = unfold_in_process("compare", "sentiment", "--only", "transformer")
    assert done.returncode == 2
    assert "no variant 'transformer'; there are: n-grams, feedforward, rnn" in done.stderr


def by_draw(scores: list[float]) -> dict[str, float]:
    return {str(Draw(seed)): score for seed, score in enumerate(scores, 1)}


def comparison(**scores: list[float]) -> Comparison:
    costs = {
        "parameters": [10.0], "train_seconds": [1.0], "peak_memory_mb": [500.0], "latency_ms": [2.0]
    }  # fmt: skip
    return Comparison(
        task="sentiment", config_name="default", folder=Path("here"), metric="accuracy",
        higher_is_better=True, monitor="val_accuracy", baselines={"guessing": 0.5}, failed={},
        variants=[
            Variant(name, by_draw(values), costs, [[0.5, 0.6], [0.7]], ["r"])
            for name, values in scores.items()
        ],
    )  # fmt: skip


def test_deviation_is_that_of_a_sample_and_rounded_to_what_it_tells():
    found = comparison(lstm=[0.90, 0.91, 0.95], rnn=[0.8])
    assert found.variants[0].deviation == pytest.approx(0.0264575)
    assert [row[1] for row in found.rows] == ["0.920 ± 0.026", "0.8", "0.5"]
    assert "3 seed(s)" in found.title
    assert found.best is found.variants[0]
    assert len(results.draw(found).axes) == 3


def test_variants_are_compared_in_pairs():
    """Draws differ by more than the variants do: the differences show which one is better."""
    found = comparison(lstm=[0.6, 0.7, 0.8], rnn=[0.59, 0.68, 0.79], gru=[0.61])
    assert [row[2] for row in found.rows] == ["", "-0.0133 ± 0.0058", "0.01", ""]
    assert found.json()["variants"]["rnn"]["differences"] == pytest.approx([-0.01, -0.02, -0.01])


def test_a_draw_is_a_part_of_names_and_of_the_config():
    assert str(Draw(3)) == "seed-3"
    assert Draw(3).overrides("default-rnn") == ["seed=3", "name=default-rnn-3"]
    assert Draw(3, "2/5").overrides("default-rnn") == [
        "seed=3", "data.fold=2/5", "name=default-rnn-3-fold-2-of-5"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sentiment", "--folds", "1"], "argument --folds: must be at least 2"),
        (["sentiment", "--folds", "five"], "argument --folds: must be a whole number"),
        (["forecasting", "--folds", "5"], "--folds 5 cannot be used: series are split by time"),
        (["sentiment", "--folds", "5", "--set", "data.test=configs/sentiment"],
         "--folds 5 cannot be used: data.test is a source of its own"),
    ],
)  # fmt: skip
def test_folds_that_cannot_be(arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("UNFOLD_HOME", str(tmp_path))
    done = unfold_in_process("compare", *arguments)
    assert done.returncode == 2
    assert f"error: {message}" in done.stderr
    assert not list(tmp_path.iterdir())
