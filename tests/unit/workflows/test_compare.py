"""The plan and the table of a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.engine.config import loader as configs
from pipelines.engine.tasks.catalog import BUILT_IN, get_config
from pipelines.workflows import compare
from pipelines.workflows.compare import Comparison, Variant
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


def comparison(**scores: list[float]) -> Comparison:
    costs = {"parameters": [10.0], "train_seconds": [1.0], "peak_memory_mb": [500.0]}
    return Comparison(
        task="sentiment", config_name="default", folder=Path("here"), metric="accuracy",
        higher_is_better=True, monitor="val_accuracy", baselines={"guessing": 0.5}, failed={},
        variants=[
            Variant(name, values, costs | {"latency_ms": [2.0]}, [[0.5, 0.6], [0.7]], ["r"])
            for name, values in scores.items()
        ],
    )  # fmt: skip


def test_deviation_is_that_of_a_sample_and_rounded_to_what_it_tells():
    found = comparison(lstm=[0.90, 0.91, 0.95], rnn=[0.8])
    assert found.variants[0].deviation == pytest.approx(0.0264575)
    assert [row[1] for row in found.rows] == ["0.920 ± 0.026", "0.8", "0.5"]
    assert "3 seed(s)" in found.title
    assert found.best is found.variants[0]
    assert len(compare.draw(found).axes) == 3
