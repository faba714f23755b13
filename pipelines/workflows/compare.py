"""Compare the variants of a config: train each of them several times.

Trainings of a variant differ in their seed, or in the fold of a cross-validation, or in both. All
variants are trained with the same ones, so their scores are compared in pairs.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core import signals
from pipelines.engine.core.commands import option
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import TrainingError, UserError
from pipelines.engine.runs.group import Group
from pipelines.engine.runs.group_tracking import GroupTracker
from pipelines.engine.runs.mlflow_content import COSTS
from pipelines.engine.runs.model_names import require_free
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_config
from pipelines.workflows import comparison
from pipelines.workflows.comparison import Comparison, Draw, Variant

#: Default number of seeds, from the config's own on: enough for a first ±.
_SEEDS = 3


def compare(
    task: str,
    file: Path,
    overrides: Sequence[str],
    seeds: Sequence[int] | None,
    folds: int | None,
    only: Sequence[str] | None,
    console: Console,
    *,
    worker: Sequence[str],
) -> Comparison:
    """Train the variants that are not trained yet, and return the results.

    Args:
        task: the task's name.
        file: the config that is varied.
        overrides: ``KEY=VALUE`` pairs for it.
        seeds: each variant is trained with each of them; None for three, or one with folds.
        folds: each variant is trained and tested on each of so many folds; None for the splits of
            the config.
        only: names of variants; None for all.
        console: where progress is shown.
        worker: the command that trains one run.

    Raises:
        UserError: the task has no such variant, or the config does not allow it.
    """
    kind = get_config(task)
    base = configs.load(file, kind, overrides)
    require_free(base)
    draws = _draws(base, seeds, folds)
    plan = _plan(kind, base, file, overrides, draws, _select_variants(kind, only))
    names = list(dict.fromkeys(name for name, _ in plan))
    group, tracker = _open_group(base, folds, console)
    failed: dict[str, str] = {}
    signals.install()
    status = "KILLED"
    try:
        for number, ((name, draw), config) in enumerate(plan.items(), 1):
            key = f"{name}-{draw}"
            try:
                _train_member(
                    group, key, config, f"{key} ({number} of {len(plan)})", worker, console
                )
            except TrainingError as error:
                failed[key] = str(error)
                console.warn(f"{key} failed: {error}")
        status = "FINISHED"
    except KeyboardInterrupt:
        console.say("interrupted; the same command continues from here")
        raise
    finally:
        result = _collect(group, base, names, draws, failed, folds)
        if result.variants:
            files = comparison.write(result)
            metrics = {f"{result.metric}/{v.name}": v.mean for v in result.variants}
            tracker.finish(status, result.markdown(), metrics, files)
    return result


def _open_group(
    base: Experiment, folds: int | None, console: Console
) -> tuple[Group, GroupTracker]:
    """Create or continue the group of a comparison, and its MLflow run."""
    settings = {} if folds is None else {"folds": str(folds)}
    # Further seeds continue the same comparison; other folds are another one.
    config = base.model_copy(update={"seed": 0})
    group = Group.of("comparisons", config, str(settings) if settings else "")
    params = {"config": base.name, **settings}
    tracker = GroupTracker(group, f"unfold compare {base.task}", params, console)
    tracker.open()
    return group, tracker


def _draws(base: Experiment, seeds: Sequence[int] | None, folds: int | None) -> list[Draw]:
    """The draws of each variant, in the order in which they are trained.

    Raises:
        UserError: the data cannot be divided into folds.
    """
    if folds is None:
        chosen = seeds or range(base.seed, base.seed + _SEEDS)
        return [Draw(seed, base.data.fold) for seed in dict.fromkeys(chosen)]
    if problem := base.data.fold_problem(dict(base.data)):
        raise UserError(f"{option('folds', folds)} cannot be used: {problem}")
    numbers = range(1, folds + 1)
    chosen = seeds or [base.seed]
    return [Draw(seed, f"{n}/{folds}") for seed in dict.fromkeys(chosen) for n in numbers]


def _plan(
    kind: type[Experiment],
    base: Experiment,
    file: Path,
    overrides: Sequence[str],
    draws: Sequence[Draw],
    names: Sequence[str],
) -> dict[tuple[str, Draw], Experiment]:
    """The config of each variant and draw, in the order in which they are trained."""
    return {
        (name, draw): configs.load(
            file,
            kind,
            [*overrides, *kind.variants[name], *draw.overrides(f"{base.name}-{name}")],
        )
        # Draw by draw: the first table has every variant.
        for draw in draws
        for name in names
    }


def _select_variants(kind: type[Experiment], only: Sequence[str] | None) -> list[str]:
    for name in only or ():
        if name not in kind.variants:
            raise UserError(f"no variant {name!r}; there are: {', '.join(kind.variants)}")
    return [name for name in kind.variants if only is None or name in only]


def _train_member(
    group: Group, key: str, config: Experiment, title: str, worker: Sequence[str], console: Console
) -> None:
    run = group.runs().get(key)
    if run is not None and run.info.status == "finished":
        console.say(f"{title}: done before, {run.id}")
        return
    console.say(title)

    def on_epoch(report: dict[str, Any]) -> bool:
        console.say(
            f"  epoch {report['epoch']}/{report['epochs']}  {report['monitor']} "
            f"{report['value']:.4f}  {report['seconds']:.1f} s"
        )
        return True

    run = group.train(key, config, trial=False, worker=worker, on_epoch=on_epoch, console=console)
    name, _ = config.score
    console.say(f"  {run.id}: {name} {run.info.scores[name]:.4f}")


def _collect(
    group: Group,
    base: Experiment,
    names: list[str],
    draws: list[Draw],
    failed: dict[str, str],
    folds: int | None,
) -> Comparison:
    """Collect the results of the finished runs."""
    metric, higher = base.score
    existing, done = group.runs(), dict[str, dict[str, Run]]()
    for name in names:
        runs = {str(d): existing[key] for d in draws if (key := f"{name}-{d}") in existing}
        if finished := {d: run for d, run in runs.items() if run.info.status == "finished"}:
            done[name] = finished
    _check_data(group, [run for runs in done.values() for run in runs.values()])
    infos = {name: [run.info for run in runs.values()] for name, runs in done.items()}
    monitor = next((i.monitor for of_name in infos.values() for i in of_name if i.monitor), "")
    baselines = [i.baselines for of_name in infos.values() for i in of_name]
    return Comparison(
        task=base.task,
        config_name=base.name,
        folder=group.folder,
        metric=metric,
        higher_is_better=higher,
        monitor=monitor,
        variants=[
            Variant(
                name=name,
                draws={draw: run.info.scores[metric] for draw, run in runs.items()},
                costs={cost: [getattr(i, cost) for i in infos[name]] for cost in COSTS},
                curves=[[record[monitor] for record in run.history] for run in runs.values()],
                runs=[run.id for run in runs.values()],
            )
            for name, runs in done.items()
        ],
        baselines={
            name: statistics.fmean(b[name] for b in baselines)
            for name in (baselines[0] if baselines else {})
            if all(name in b for b in baselines)  # older runs may have others
        },
        failed=failed,
        folds=folds,
    )


def _check_data(group: Group, runs: Sequence[Run]) -> None:
    """Check that runs of the same draw were trained and tested on the same records."""
    by_draw: dict[Draw, str] = {}
    for run in runs:
        draw, fingerprint = Draw.of(run.config()), run.info.data.fingerprint
        if by_draw.setdefault(draw, fingerprint) != fingerprint:
            raise UserError(
                f"{group.folder}: the records changed since its first training; start another "
                "comparison with another name: --set name=NAME"
            )
