"""The contents of ``run.json`` and ``group.json`` as pydantic models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import write_json
from pipelines.engine.data.splits import Splits

#: Version of the format. Files without the key ``schema`` were written by version 0.1.
SCHEMA = 1

Status = Literal["unknown", "running", "interrupted", "failed", "pruned", "tried", "finished"]


class _Section(BaseModel):
    """A JSON object. Unknown keys are kept; absent keys stay absent when written again."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    def to_dict(self) -> dict[str, Any]:
        """Return the keys that are set, under their names in the file."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with some fields changed.

        Args:
            changes: new values, by field name.

        Raises:
            TypeError: there is no such field.
        """
        fields = type(self).model_fields
        if unknown := changes.keys() - fields.keys():
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        given = {
            fields[name].alias or name: value.to_dict() if isinstance(value, _Section) else value
            for name, value in changes.items()
        }
        return type(self).model_validate(self.to_dict() | given)


class SourceReport(_Section):
    """Counts of the rows of one data source.

    Attributes:
        unusable: number of skipped rows, by reason.
        first_unusable: messages about the first skipped rows.
        notes: how files were read, where it is not obvious.
    """

    rows: int
    filtered_out: int = 0
    left_out: int = 0
    repeated: int = 0
    unusable: dict[str, int] = {}
    first_unusable: list[str] = []
    notes: list[str] = []


class DataReport(_Section):
    """Fingerprints and counts of the records that a run was trained on.

    The counts of each source, and those that only one task has, are extra keys.

    Attributes:
        fingerprint: hash of all records.
        test_fingerprint: hash of the test records.
        records: number of records, by split.
        notes: warnings about the data.
    """

    fingerprint: str = ""
    test_fingerprint: str = ""
    records: dict[str, int] = {}
    notes: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _rename_sources(cls, report: Any) -> Any:
        # A source named like a field (a folder named `notes`) must not take the field's place.
        if not isinstance(report, dict):
            return report
        return {
            f"./{key}" if key in cls.model_fields and _is_source(value) else key: value
            for key, value in report.items()
        }

    @classmethod
    def of(cls, splits: Splits) -> Self:
        """Build the report of loaded splits."""
        hashes = {
            "fingerprint": splits.fingerprint,
            "test_fingerprint": splits.test_fingerprint,
        }
        return cls.model_validate(hashes | splits.report)

    def sources(self) -> Iterator[tuple[str, SourceReport]]:
        """Yield the name and the counts of each source."""
        for name, value in (self.model_extra or {}).items():
            if _is_source(value):
                yield name, SourceReport.model_validate(value)


def _is_source(value: Any) -> bool:
    return isinstance(value, dict) and "first_unusable" in value


class GroupMembership(_Section):
    """The comparison or sweep that a run is part of.

    Attributes:
        name: the folder of the group, relative to the home folder.
        key: the key of the run within the group.
    """

    name: str
    key: str


class MlflowRecord(_Section):
    """What has been sent to MLflow.

    Attributes:
        run_id: the id of the MLflow run; None if it does not exist yet.
        epochs: number of epochs whose metrics were sent.
        model_version: version of the registered model.
        results: whether scores and files were sent.
    """

    run_id: str | None = None
    epochs: int = 0
    model_version: int | None = None
    results: bool = False


class RunInfo(_Section):
    """The contents of ``run.json``.

    Attributes:
        schema_version: version of the format (the key ``schema``); 0 if the file has none.
        status: how far the run has come. ``tried`` is a finished trial of a sweep.
        registered_model: name of the model that the run is a version of; None if it is the task's.
        git_commit: commit of this project; None outside a checkout.
        versions: versions of Python and the main packages.
        routes: implementation that each recurrent layer runs on.
        monitor: name of the score that decides which epoch is best.
        best: value of the monitored score at the best epoch.
        best_rank: ``best``, negated if lower is better.
        latency_ms: median time of one request to the SavedModel.
        scores: scores on the test split.
        intervals: 95 % intervals of scores, by name.
        verdict: sentences that sum up the scores.
        baselines: scores of the task's baselines, in the task's main metric.
        limits: sentences that say what the model cannot do, and what was not tested.
    """

    schema_version: int = Field(default=0, alias="schema")
    status: Status = "unknown"
    config_name: str = ""
    registered_model: str | None = None
    created: str | None = None
    finished: str | None = None
    git_commit: str | None = None
    versions: dict[str, str] = {}
    machine: str = ""
    backend: str | None = None
    device: str | None = None
    data: DataReport = DataReport()
    group: GroupMembership | None = None
    mlflow: MlflowRecord = MlflowRecord()
    parameters: int | None = None
    routes: dict[str, str] = {}
    monitor: str | None = None
    best: float | None = None
    best_rank: float | None = None
    best_epoch: int | None = None
    train_seconds: float | None = None
    total_seconds: float | None = None
    peak_memory_mb: float | None = None
    latency_ms: float | None = None
    scores: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    verdict: list[str] = []
    baselines: dict[str, float] = {}
    limits: list[str] = []


class GroupInfo(_Section):
    """The contents of ``group.json``.

    Attributes:
        mlflow: the id of the group's MLflow run; None if it does not exist yet.
    """

    config_name: str = ""
    mlflow: str | None = None


S = TypeVar("S", bound=_Section)


def read_info(path: Path) -> RunInfo:
    """Read a ``run.json``. A missing file reads as a run of unknown status.

    Raises:
        UserError: the file is damaged, or was written by a newer version.
    """
    info = _read(path, RunInfo)
    if info.schema_version > SCHEMA:
        raise UserError(
            f"{path}: written by a newer version (schema {info.schema_version}; this version "
            f"reads up to {SCHEMA}); update unfold"
        )
    return info


def read_group_info(path: Path) -> GroupInfo:
    """Read a ``group.json``. A missing file reads as an empty one.

    Raises:
        UserError: the file is damaged.
    """
    return _read(path, GroupInfo)


def write_info(path: Path, info: RunInfo | GroupInfo) -> None:
    """Write a ``run.json`` or ``group.json``, whole or not at all."""
    write_json(path, info.to_dict())


def _read(path: Path, model: type[S]) -> S:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return model()
    except UnicodeDecodeError:
        raise _damaged(path, "it is not UTF-8") from None
    try:
        return model.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        raise _damaged(path, f"line {error.lineno}: {error.msg}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise _damaged(path, f"{place}: {first['msg']}") from None


def _damaged(path: Path, problem: str) -> UserError:
    return UserError(f"{path}: damaged ({problem}); repair it or move its folder away")
