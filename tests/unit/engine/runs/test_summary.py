"""The sentences about a finished run, and its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import Score
from pipelines.engine.core.files import write_text
from pipelines.engine.runs import mlflow_content, summary
from pipelines.engine.runs.info import RunInfo
from pipelines.engine.runs.run import Run
from pipelines.sentiment.config import CONFIG

HIGHER, LOWER = Score("accuracy", higher_is_better=True), Score("loss", higher_is_better=False)


def info(**fields: Any) -> RunInfo:
    return RunInfo.model_validate({"scores": {"accuracy": 0.8, "loss": 0.8}} | fields)


@pytest.mark.parametrize(
    ("score", "baselines", "interval", "sentence"),
    [
        (HIGHER, {"a_b": 0.5}, None, "The model is better than the baseline, a b (0.5)."),
        (LOWER, {"a_b": 0.5}, None, "The model is worse than the baseline, a b (0.5)."),
        (HIGHER, {"a": 0.9, "b": 0.1}, (0.7, 0.85), "is worse than the best of 2 baselines, a"),
        (LOWER, {"a": 0.9, "b": 0.95}, (0.7, 0.85), "is better than the best of 2 baselines, a"),
        (HIGHER, {"a": 0.84}, (0.7, 0.85), "cannot be told from the baseline, a (0.84)."),
        (HIGHER, {"a": 0.8}, None, "cannot be told from the baseline, a (0.8)."),
        (HIGHER, {}, None, "It was compared with no baseline."),
    ],
)
def test_the_model_beside_the_best_baseline(score, baselines, interval, sentence):
    intervals = {} if interval is None else {score.name: interval}
    _, found = summary.headline(info(baselines=baselines, intervals=intervals), score)
    assert sentence in found


def test_sentences_of_the_task_take_the_place_of_ours():
    found = summary.headline(info(verdict=["It wins.", "Often."], baselines={"a": 1.0}), LOWER)
    assert found == ["Test loss 0.8; lower is better.", "It wins.", "Often."]
    assert summary.headline(info(scores={}), HIGHER) == []


@pytest.fixture
def run(home: Path) -> Run:
    found = Run(home / "runs" / "sentiment" / "20260501-120000-tiny-ab12")
    write_text(found.folder / "config.yaml", configs.dump(CONFIG.model_validate(
        {"name": "tiny", "data": {"source": ["a.csv", "b.csv"], "test": "late.csv"}}
    )))  # fmt: skip
    found.update(
        status="finished",
        scores={"accuracy": 0.8},
        data={"records": {"train": 5, "test": 1200}, "a.csv": {
            "rows": 9, "first_unusable": [], "unusable": {"no label": 1, "empty text": 2}}},
    )  # fmt: skip
    return found


def test_limits_name_the_sources_of_the_test_and_what_was_left_out(run):
    assert summary.limits(run) == [
        "It was scored on 1,200 records from late.csv. How good it is on other data is not known.",
        "It was trained once, with one seed; another seed gives other scores.",
        "3 rows of 9 in a.csv could not be used, and are neither in training nor in the test.",
    ]
    run.update(data={"records": {"test": 7}}, limits=["It is small."])
    assert [*summary.limits(run)[1:2], *summary.limits(run)[-1:]] == [
        "So few test records make its scores uncertain: others may give others.",
        "It is small.",
    ]
    config = CONFIG.model_validate({"data": {"source": ["a.csv", "b.csv"], "test": 0.2}})
    write_text(run.folder / "config.yaml", configs.dump(config))
    assert "7 records from a.csv, b.csv" in summary.limits(run)[0]


def test_a_card_is_markdown_that_fits_the_registry(run):
    run.update(limits=["<b>&| *it* [x](http://y)"])
    card = mlflow_content.card(run)
    assert card.splitlines()[2] == "**Test accuracy 0.8 on 1,200 records; higher is better.**"
    assert r"- &lt;b&gt;&amp;\| \*it\* \[x\](http://y)" in card
    assert "| accuracy | 0.8 |" in card
    assert "    unfold predict sentiment --run 20260501-120000-tiny-ab12" in card
    assert "Run `20260501-120000-tiny-ab12`" in card
    run.update(limits=["long " * 2000])
    assert len(mlflow_content.card(run)) == 5000
