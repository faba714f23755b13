"""``run.json``: what older versions wrote is read, what newer ones write is kept."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from pipelines.engine.core.errors import UserError
from pipelines.engine.data.splits import Splits
from pipelines.engine.runs.info import SCHEMA, DataReport, GroupMembership, RunInfo, read_info
from pipelines.engine.runs.run import Run
from tests.support import ROOT

ARCHIVE = ROOT / "tests/fixtures/version-0.1.tar.xz"
TASKS = {"sentiment", "captioning", "translation", "forecasting", "generation"}


@pytest.fixture(scope="module")
def older_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(ARCHIVE) as archive:
        members = [m for m in archive if m.name.endswith("/run.json")]
        archive.extractall(folder, members, filter="data")
    return [Run(path.parent) for path in folder.rglob("run.json")]


def stored(run: Run) -> dict[str, object]:
    return dict(json.loads((run.folder / "run.json").read_text(encoding="utf-8")))


def test_runs_of_version_0_1_are_read(older_runs):
    assert {run.task for run in older_runs} == TASKS
    for run in older_runs:
        info, raw = run.info, stored(run)
        assert info.schema_version == 0
        assert info.status == "finished"
        assert info.scores == raw["scores"]
        assert info.data.records == raw["data"]["records"]
        assert info.mlflow.model_version == raw["mlflow"]["model_version"]
        assert info.group is None
        (source,) = info.data.sources()
        assert source[1].rows == raw["data"][source[0]]["rows"]


def test_an_update_keeps_every_other_key_of_an_older_run(older_runs):
    for run in older_runs:
        before = stored(run)
        run.update(latency_ms=1.5)
        assert stored(run) == before | {"latency_ms": 1.5}


def test_names_in_the_file_are_those_of_version_0_1(older_runs, tmp_path):
    """An older version reads what this one writes."""
    (older,) = (run for run in older_runs if run.task == "sentiment")
    run = Run(tmp_path / "runs" / "sentiment" / "new")
    known = {name: getattr(older.info, name) for name in older.info.model_fields_set}
    run.update(schema_version=SCHEMA, **known)
    assert stored(run) == {"schema": SCHEMA} | stored(older)


def test_keys_that_are_not_set_are_absent(tmp_path):
    run = Run(tmp_path / "runs" / "sentiment" / "new")
    run.update(status="running", group=GroupMembership(name="sweeps/a/b", key="trial-0001"))
    assert stored(run) == {
        "status": "running", "group": {"name": "sweeps/a/b", "key": "trial-0001"}
    }  # fmt: skip
    assert run.info.verdict == []
    assert run.info.best is None


def test_keys_of_a_newer_version_are_kept(tmp_path):
    run = Run(tmp_path)
    newer = {"status": "running", "energy": {"joules": 3}, "mlflow": {"run_id": "a", "url": "b"}}
    (tmp_path / "run.json").write_text(json.dumps(newer))
    run.update(status="failed")
    assert stored(run) == newer | {"status": "failed"}


def test_a_field_that_does_not_exist_cannot_be_written(tmp_path):
    with pytest.raises(TypeError, match="verdikt"):
        Run(tmp_path).update(verdikt=[])
    assert not (tmp_path / "run.json").exists()


def test_a_run_without_a_file_has_an_unknown_status(tmp_path):
    assert read_info(tmp_path / "run.json") == RunInfo()
    assert RunInfo().status == "unknown"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b'{"status": "finis', "line 1"),
        (b"", "line 1"),
        (b"[]", "the file"),
        (b'{"status": "finished", "scores": {"accuracy": "good"}}', "scores.accuracy"),
        (b'{"status": "gone"}', "status"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path, content, part):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_info(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: damaged")
    assert part in message
    assert "\n" not in message


def test_a_file_of_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"schema": SCHEMA + 1, "status": "finished"}))
    with pytest.raises(UserError, match="newer version"):
        read_info(path)


def test_a_source_may_be_named_like_a_field():
    counts = {"rows": 3, "unusable": {"empty": 1}, "first_unusable": ["notes:2: empty"]}
    splits = Splits([1], [2], [3], "abc", {"notes": counts, "records": {"train": 1}}, "def")
    report = DataReport.of(splits)
    assert report.notes == []
    ((name, source),) = report.sources()
    assert (name, source.rows) == ("./notes", 3)
    assert DataReport.model_validate(report.to_dict()) == report
