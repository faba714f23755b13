"""The report of a trained run of each pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.console import Console
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_config
from pipelines.sentiment.task import Sentiment
from pipelines.workflows import evaluate, report
from tests.support.html import Page
from tests.support.trained import TASKS, Trained, TrainOnce

#: A figure and a table of the evaluation of each task, and the beginning of a limit.
SHOWN = {
    "sentiment": ("Confusion matrix", "Worst mistakes", "It reads"),
    "captioning": ("Contact sheet", "Captions", "It sees images as squares"),
    "translation": ("BLEU by length", "Best and worst", "It translates in one direction"),
    "forecasting": ("Fan", "By horizon", "It was trained on 2 series from"),
    "generation": ("Lengths", "Written", "It writes what is likely"),
}


@pytest.fixture(params=TASKS)
def trained(request: pytest.FixtureRequest, trained_once: TrainOnce) -> Trained:
    return trained_once(request.param)


@pytest.fixture
def page(trained: Trained) -> Page:
    return Page((trained.folder / "report.html").read_text(encoding="utf-8"))


def test_training_ends_with_a_report_and_says_what_to_do_next(trained):
    path = trained.folder / "report.html"
    assert trained.result["report"] == str(path)
    *_, first, second = trained.messages.splitlines()
    assert first == f"report: {path}"
    assert second == (
        f'next:   unfold predict {trained.task} "…"   unfold export {trained.task}   unfold ui'
    )
    assert "the report has no" not in trained.messages
    assert path.stat().st_size < 3_000_000


def test_a_report_has_the_sections_tables_and_figures_of_its_task(trained, page):
    figure, table, limit = SHOWN[trained.task]
    assert page.headings[:4] == ["Use it", "Limits", "Scores", "Results on the test records"]
    assert page.headings[-3:] == ["Training", "Model", "Train it again"]
    alts = [image["alt"] or "" for image in page.all("img")]
    assert any(alt.startswith(f"{figure}. ") for alt in alts)
    assert any(alt.startswith("Learning curves. ") for alt in alts)
    assert {table, "Layers", "Records by split", "Rows by source"} <= set(page.texts)
    assert any(text.startswith(limit) for text in page.texts)
    assert [a for a in page.addresses() if not a.startswith(("data:", "figures/explained_"))] == []


def test_the_main_score_is_within_its_interval(trained):
    info = Run(trained.folder).info
    name = get_config(trained.task).score.name
    if name not in info.intervals:  # too few test records
        assert info.data.records["test"] < 10
        return
    low, high = info.intervals[name]
    assert low <= info.scores[name] <= high


def test_the_report_says_what_every_score_is(trained):
    meanings = get_config(trained.task).meanings
    assert get_config(trained.task).score.name in meanings
    assert set(map(report.score_kind, Run(trained.folder).info.scores)) <= set(meanings)


def test_limits_that_cannot_be_determined_cost_a_warning(trained_once, monkeypatch, capfd):
    trained = trained_once("sentiment")
    run = Run(trained.folder)

    class Broken(Sentiment):
        def limits(self, config: Experiment, processor: Any, splits: Any) -> list[str]:
            raise ZeroDivisionError("no words")

    monkeypatch.setenv("UNFOLD_HOME", str(trained.home))
    config = run.config()
    found = evaluate._limits(Broken(), config, None, run, Console())  # type: ignore[arg-type]
    assert found == []
    message = "warning: the limits of the model are not known: ZeroDivisionError: no words"
    assert message in capfd.readouterr().err


def test_a_report_is_written_again(trained_once, tmp_path: Path, monkeypatch):
    trained = trained_once("sentiment")
    home = trained.copy(tmp_path / "home")
    monkeypatch.setenv("UNFOLD_HOME", str(home))
    run = Run(home / "runs" / "sentiment" / trained.folder.name)
    first = (run.folder / "report.html").read_text(encoding="utf-8")
    report.write(run, Console())
    again = (run.folder / "report.html").read_text(encoding="utf-8")
    assert again == first.replace(str(trained.folder), str(run.folder))
