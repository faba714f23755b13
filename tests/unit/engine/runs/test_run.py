"""Which run is meant: the latest, or the one whose id is given."""

from __future__ import annotations

from datetime import UTC, datetime

from pipelines.engine.runs import run as runs
from pipelines.engine.runs.run import Run


def test_a_clock_that_was_set_back_does_not_change_which_run_is_the_latest(home, monkeypatch):
    class Clock(datetime):
        at = datetime(2026, 5, 1, tzinfo=UTC)

        @classmethod
        def now(cls, tz=None):
            return cls.at

    monkeypatch.setattr(runs, "datetime", Clock)
    for name in ("20260501-first", "20260401-second"):
        run = Run(home / "runs" / "sentiment" / name)
        run.update(status="running", config_name="default")
        run.finish(scores={})
        Clock.at = datetime(2026, 4, 1, tzinfo=UTC)
    assert Run.find("sentiment", None).id == "20260401-second"


def test_a_run_that_had_not_appeared_is_no_run(home):
    Run(home / "runs" / "sentiment" / ".20260401-default-ab12.x7hq2k9w").update(status="running")
    assert Run.all("sentiment") == []
