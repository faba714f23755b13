"""What MLflow shows of a run: its description, tags, parameters, data and metrics."""

from __future__ import annotations

import json
from typing import Any

from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import Experiment, as_list
from pipelines.engine.runs import mlflow_names as names
from pipelines.engine.runs import summary
from pipelines.engine.runs.group import Group
from pipelines.engine.runs.info import DataReport, RunInfo
from pipelines.engine.runs.run import Run

#: The tag that the UI shows as a run's description, in Markdown.
NOTE = "mlflow.note.content"
#: The tag with the fingerprint of the records that a run was scored on.
TEST_DATA = "unfold.test_data"
#: The tag with the id of the MLflow run that a run is a child of.
PARENT = "mlflow.parentRunId"
#: The longest value of a parameter that MLflow stores.
LONGEST_PARAM = 5000
#: The longest list of sources that a description or a data set repeats; data.json has all.
LONGEST_SOURCE = 2000
#: The costs of a model, by their names in ``run.json``.
COSTS = ("parameters", "train_seconds", "peak_memory_mb", "latency_ms")


def costs(info: RunInfo) -> dict[str, float]:
    """Return the costs of a run that were measured, by the names of `COSTS`."""
    return {name: value for name in COSTS if (value := getattr(info, name)) is not None}


def description(run: Run) -> str:
    """Describe a run in a few lines of Markdown."""
    info, config = run.info, run.config()
    source = names.shorten(", ".join(as_list(config.data.source)), LONGEST_SOURCE)
    records = ", ".join(f"{n:,} {name}" for name, n in info.data.records.items())
    lines = [f"`{info.config_name}` on {source} ({records})."]
    status, epochs = info.status, len(run.history)
    if status == "pruned":
        lines.append(f"**Pruned** after epoch {epochs}: other trials were better by then.")
    elif status in ("failed", "interrupted"):
        lines.append(f"**{status.capitalize()}** after epoch {epochs}.")
    if info.monitor is not None:
        lines.append(f"Best epoch {info.best_epoch}: {info.monitor} {info.best:.4f}.")
    if status == "finished":
        sentences = [summary.markdown(text) for text in summary.headline(info, config.score)]
        lines += [*(f"**{first}**" for first in sentences[:1]), *sentences[1:]]
    return "\n\n".join(lines)


def card(run: Run) -> str:
    """Describe a finished run as a model card in Markdown, for the version of its model."""
    return summary.card(run, description(run))


def run_name(run: Run, info: RunInfo) -> str:
    """Return the name of the MLflow run: within a group, the key of the training."""
    name = run.id if info.group is None else info.group.key
    return names.shorten(name, names.LONGEST_KEY)


def tags(run: Run, info: RunInfo) -> dict[str, str]:
    """Return the tags of a new MLflow run."""
    group = None if info.group is None else Group(info.group.name)
    result = {
        NOTE: description(run),
        "unfold.kind": "training" if group is None else f"part of a {group.kind}",
        "unfold.config": info.config_name,
        "unfold.run": run.id,
        "unfold.model": run.model_name,
        "unfold.folder": str(run.folder),
        "mlflow.source.name": f"unfold train {run.task}",
        "machine": info.machine,
        "git_commit": info.git_commit or "none",
        **{f"version.{name}": version for name, version in info.versions.items()},
        **{f"route.{layer}": route for layer, route in info.routes.items()},
    }
    optional = {
        TEST_DATA: info.data.test_fingerprint or None,
        "backend": info.backend,
        "device": info.device,
        PARENT: None if group is None else group.info.mlflow,
    }
    return result | {name: value for name, value in optional.items() if value is not None}


def params(config: Experiment) -> list[Any]:
    """Return the keys of a config as MLflow parameters."""
    from mlflow.entities import Param

    return [
        Param(names.key(key), value[:LONGEST_PARAM])
        for key, value in configs.flatten(config).items()
    ]


def dataset(config: Experiment, data: DataReport) -> Any:
    """Return the data set of a run as an MLflow input."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = names.shorten(", ".join(as_list(config.data.source)), LONGEST_SOURCE)
    entity = Dataset(
        name=names.shorten(source, names.LONGEST_DATASET_NAME),
        digest=data.fingerprint,
        source_type="code",
        source=json.dumps({"source": source}),
        profile=json.dumps(data.records),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", "training")])


def epoch_metrics(record: dict[str, float], epoch: int, milliseconds: int) -> list[Any]:
    """Return the metrics of one epoch.

    Args:
        milliseconds: the time to log them at, since 1970.
    """
    from mlflow.entities import Metric

    return [Metric(names.key(name), value, milliseconds, epoch) for name, value in record.items()]


def result_metrics(info: RunInfo) -> dict[str, float]:
    """Return the metrics of a finished run: its test scores and costs."""
    numbers = {names.key(f"test/{name}"): value for name, value in info.scores.items()}
    return numbers | {f"cost/{name}": value for name, value in costs(info).items()}


def best_metric(info: RunInfo) -> dict[str, float]:
    """Return the monitored score at the best epoch; empty before the first epoch."""
    if info.monitor is None or info.best is None:
        return {}
    return {names.key(f"best/{info.monitor}"): info.best}
