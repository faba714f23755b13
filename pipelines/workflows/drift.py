"""Compare new data with what a run saw in training.

Training writes a digest of the validation split into the run's SavedModel (`record`): it is data
that the model did not learn from, so that its answers are as sure, and as right, as for new data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.engine.config.schema import Experiment, as_list
from pipelines.engine.core import drift
from pipelines.engine.core.commands import command
from pipelines.engine.core.console import Console
from pipelines.engine.core.drift import Drift, Histogram
from pipelines.engine.core.errors import UserError
from pipelines.engine.data import disk
from pipelines.engine.data.splits import Splits
from pipelines.engine.export import savedmodel
from pipelines.engine.export.digest import Digest, How, Measure, MeasuredHistogram
from pipelines.engine.runs.loading import load_model
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.base import Task
from pipelines.engine.tasks.catalog import get_task
from pipelines.engine.tasks.comparable import Comparable, Feature, Wording

#: The split whose features are kept.
_SPLIT = "validation"
#: Most records that are compared, and most that the SavedModel answers.
_RECORDS, _ANSWERED = 1000, 300
#: Requests in one call of the SavedModel.
_BATCH = 16


@dataclass(frozen=True)
class Compared:
    """A feature of new data beside that of training.

    Attributes:
        name: Name of the feature.
        wording: How it is named.
        reference: Its distribution in training.
        counts: New values in the bins of the reference.
        new: The distribution of the new values.
        drift: How far they are apart.
    """

    name: str
    wording: Wording
    reference: Histogram
    counts: np.ndarray
    new: Histogram
    drift: Drift


@dataclass(frozen=True)
class Comparison:
    """New data compared with that of training.

    Attributes:
        digest: What is known of training.
        records: Number of usable records of the new data.
        used: Number of those that were compared.
        report: The counts of the rows of the new data, and notes.
        features: The features that both have.
        missing: Features of training that the new data lacks, such as those of labels.
    """

    digest: Digest
    records: int
    used: int
    report: dict[str, Any]
    features: list[Compared]
    missing: list[str]


def record(run: Run, config: Experiment, splits: Splits) -> Digest | None:
    """Write the digest of a run whose SavedModel exists.

    Args:
        run: The run.
        config: Its config.
        splits: The records that it was trained on.

    Returns:
        The digest; None if the task has no features.
    """
    task = get_task(run.task)
    if not isinstance(task, Comparable):
        return None
    records = getattr(splits, _SPLIT)
    seen = _observe(task, config, run, records)
    digest = Digest(
        split=_SPLIT,
        records=len(records),
        used=seen.used,
        answered=seen.answered,
        features={
            name: histogram
            for name, feature in seen.features.items()
            if (histogram := feature.histogram()) is not None
        },
        measured=tuple(
            MeasuredHistogram(measure=measure, histogram=histogram)
            for measure, feature in seen.measured.items()
            if (histogram := feature.histogram()) is not None
        ),
    )
    digest.write(run.require("savedmodel"))
    return digest


def compare(run: Run, config: Experiment, source: str, console: Console) -> Comparison:
    """Compare new data with what a run saw in training.

    Args:
        run: A finished run.
        config: The run's config, which says how the source is read.
        source: A file, or any other source.
        console: Reports if the digest had to be made first.

    Raises:
        UserError: The task has no features, there is no digest and none can be made, or the source
            cannot be read.
    """
    task = get_task(run.task)
    if not isinstance(task, Comparable):
        raise UserError(f"the task {run.task} has no features that could be compared")
    run.require("model.keras")
    digest = _digest(run, task, console)
    report: dict[str, Any] = {}
    records = task.read_inputs(config, source, report)
    seen = _observe(task, config, run, records)
    pairs = [(n, h, seen.features.get(n)) for n, h in digest.features.items()]
    by_name = {measure.name: feature for measure, feature in seen.measured.items()}
    pairs += [(m.measure.name, m.histogram, by_name.get(m.measure.name)) for m in digest.measured]
    known = [(n, h, f) for n, h, f in pairs if f is not None and h.count(f.values).any()]
    return Comparison(
        digest,
        len(records),
        seen.used,
        report,
        [_compared(name, histogram, f, len(known)) for name, histogram, f in known],
        [name for name, _, _ in pairs if name not in {n for n, _, _ in known}],
    )


def _digest(run: Run, task: Task, console: Console) -> Digest:
    """Return the digest of a run; an older run gets one if its data is still the same.

    Raises:
        UserError: There is none and none can be made, or it is damaged.
    """
    try:
        digest = Digest.read(run.require("savedmodel"))
    except ValueError as error:
        raise UserError(f"{error}; remove the file, and it is made again") from None
    if digest is not None:
        return digest
    config = run.config()
    source = ", ".join(as_list(config.data.source))
    console.say(f"run {run.id} kept no record of its inputs; it is made now, from {source}")
    again = f"train it again: {command('train', run.task, name=run.info.registered_model)}"
    try:
        splits = task.load(config)
    except UserError as error:
        raise UserError(
            f"run {run.id} kept no record of its inputs, and they cannot be read any more "
            f"({error}); {again}"
        ) from None
    if splits.fingerprint != run.info.data.fingerprint:
        raise UserError(
            f"run {run.id} kept no record of its inputs, and {source} holds other records than "
            f"when it was trained; {again}"
        )
    made = record(run, config, splits)
    assert made is not None
    return made


def _compared(name: str, reference: Histogram, feature: Feature, features: int) -> Compared:
    counts, new = reference.count(feature.values), feature.histogram()
    assert new is not None
    found = drift.compare(reference, counts, features)
    return Compared(name, feature.wording, reference, counts, new, found)


@dataclass(frozen=True)
class _Observed:
    """The features of a sample of records, and of the answers to some of them."""

    used: int
    answered: int
    features: dict[str, Feature]
    measured: dict[Measure, Feature]


def _observe(task: Comparable, config: Experiment, run: Run, records: Sequence[Any]) -> _Observed:
    assert isinstance(task, Task)
    sample = _sample(records, config.seed)
    processor = task.processor.load(run.require("processor"))
    features = task.features(config, processor, load_model(run), sample)
    evenly = np.unique(np.linspace(0, len(sample) - 1, min(len(sample), _ANSWERED)).astype(int))
    asked = task.requests(config, disk.select(sample, evenly))
    measures = task.measures(config)
    answered, values = _measure(run, measures, asked) if measures else (0, {})
    measured = {
        measure: Feature(_array(measure, found), _wording(measure))
        for measure, found in values.items()
    }
    return _Observed(len(sample), answered, features, measured)


def _sample(records: Sequence[Any], seed: int) -> Sequence[Any]:
    """Return at most `_RECORDS` records, drawn at random, in their order."""
    if len(records) <= _RECORDS:
        return records
    rng = np.random.default_rng([seed, 0xD21F7])
    return disk.select(records, np.sort(rng.choice(len(records), _RECORDS, replace=False)))


def _measure(
    run: Run, measures: Sequence[Measure], requests: Iterable[dict[str, tf.Tensor]]
) -> tuple[int, dict[Measure, list[Any]]]:
    """Answer requests, and return their number and the values of the measures."""
    served = savedmodel.load(run.require("savedmodel"))
    serve = served.signatures["serving_default"]
    values: dict[Measure, list[Any]] = {measure: [] for measure in measures}
    answered = 0
    for batch, rows in _batches(requests):
        inputs = {name: tensor.numpy() for name, tensor in batch.items()}
        outputs = {name: tensor.numpy() for name, tensor in serve(**batch).items()}
        answered += rows
        for measure, found in values.items():
            found += measure.of(inputs, outputs)
    return answered, values


def _batches(
    requests: Iterable[dict[str, tf.Tensor]],
) -> Iterator[tuple[dict[str, tf.Tensor], int]]:
    """Join requests of one row that come one after the other and have equal shapes."""
    waiting: list[dict[str, tf.Tensor]] = []

    def joined() -> tuple[dict[str, tf.Tensor], int]:
        batch = {name: tf.concat([r[name] for r in waiting], axis=0) for name in waiting[0]}
        return batch, len(waiting)

    for request in requests:
        if waiting and (len(waiting) == _BATCH or _shapes(request) != _shapes(waiting[0])):
            yield joined()
            waiting = []
        waiting.append(request)
    if waiting:
        yield joined()


def _shapes(request: Mapping[str, tf.Tensor]) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in request.values()]


def _array(measure: Measure, values: list[Any]) -> np.ndarray:
    return np.array(values, str if measure.how == "category" else np.float64)


#: How a server's features are worded: the subject, with a place for the tensor, lower and higher.
_WORDINGS: dict[How, tuple[str, str, str]] = {
    "characters": ("{side}", "shorter", "longer"),
    "words": ("{side}", "shorter", "longer"),
    "bytes": ("{side}", "smaller", "larger"),
    "category": ("{side}", "", ""),
    "value": ("Values of {tensor}", "lower", "higher"),
    "steps": ("Series in {tensor}", "shorter", "longer"),
    "mean": ("Means of {tensor}", "lower", "higher"),
    "spread": ("Standard deviations of {tensor}", "smaller", "larger"),
    "variation": ("Variations of {tensor}", "smaller", "larger"),
    "change": ("Relative changes in {tensor}", "smaller", "larger"),
}


def _wording(measure: Measure) -> Wording:
    subject, lower, higher = _WORDINGS[measure.how]
    side = "Inputs" if measure.side == "input" else "Answers"
    unit = measure.how if measure.how in ("characters", "words", "bytes", "steps") else ""
    return Wording(subject.format(side=side, tensor=measure.tensor), lower, higher, unit)
