"""The variants of one config side by side: trained over several seeds, one table, one picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core import plotting, signals
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import TrainingError, UserError
from pipelines.engine.core.files import write_json, write_text
from pipelines.engine.runs.group import Group
from pipelines.engine.runs.group_tracking import GroupTracker
from pipelines.engine.runs.mlflow_content import COSTS
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_config

#: So many seeds from the config's own on, unless told otherwise: enough for a first ±.
_SEEDS = 3


@dataclass(frozen=True)
class Variant:
    """What was measured of one variant, a number for each seed that is done."""

    name: str
    scores: list[float]
    #: By the names of `mlflow_content.COSTS`.
    costs: dict[str, list[float]]
    #: Monitored score by epoch, of each seed.
    curves: list[list[float]]
    runs: list[str]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)

    @property
    def deviation(self) -> float | None:
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """What is done so far."""

    task: str
    config_name: str
    folder: Path
    metric: str
    higher_is_better: bool
    monitor: str
    variants: list[Variant]
    baselines: dict[str, float]
    #: Why a training failed, by key.
    failed: dict[str, str]

    @property
    def title(self) -> str:
        seeds = max((len(v.scores) for v in self.variants), default=0)
        better = "higher" if self.higher_is_better else "lower"
        return f"{self.task}, {self.config_name}: {seeds} seed(s); {better} {self.metric} is better"

    @property
    def columns(self) -> list[str]:
        return ["variant", self.metric, "parameters", "training s", "peak MB", "request ms"]

    @property
    def rows(self) -> list[list[str]]:
        rows = []
        for variant in self.variants:
            costs = {name: statistics.fmean(values) for name, values in variant.costs.items()}
            rows.append(
                [
                    variant.name,
                    _with_deviation(variant.mean, variant.deviation),
                    f"{costs['parameters']:,.0f}",
                    f"{costs['train_seconds']:,.1f}",
                    f"{costs['peak_memory_mb']:,.0f}",
                    f"{costs['latency_ms']:.2f}",
                ]
            )
        rows += [[name, f"{value:.4g}", "", "", "", ""] for name, value in self.baselines.items()]
        return rows

    @property
    def best(self) -> Variant | None:
        """The variant with the best mean; None where nothing is done."""
        sign = 1 if self.higher_is_better else -1
        return max(self.variants, key=lambda v: sign * v.mean, default=None)

    def json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "variants": {
                v.name: {
                    "mean": v.mean,
                    "deviation": v.deviation,
                    "scores": v.scores,
                    **{n: statistics.fmean(values) for n, values in v.costs.items()},
                    "runs": v.runs,
                }
                for v in self.variants
            },
            "baselines": self.baselines,
            "failed": self.failed,
        }

    def markdown(self) -> str:
        lines = [self.title, "", _line(self.columns), _line(["---", *["---:"] * 5])]
        lines += [_line(row) for row in self.rows]
        lines += ["", *(f"{key} failed: {why}" for key, why in self.failed.items())]
        return "\n".join(lines) + "\n"


def compare(
    task: str,
    file: Path,
    overrides: Sequence[str],
    seeds: Sequence[int] | None,
    only: Sequence[str] | None,
    console: Console,
    *,
    worker: Sequence[str],
) -> Comparison:
    """Train what is not trained yet, and say how it stands.

    Args:
        file, overrides: the config that is varied.
        seeds: each variant is trained with each of them.
        only: names of variants; None for all.
        worker: the command that trains one run.

    Raises:
        UserError: the task has no such variant, or the config cannot be varied like that.
    """
    kind = get_config(task)
    base = configs.load(file, kind, overrides)
    seeds = list(dict.fromkeys(seeds or range(base.seed, base.seed + _SEEDS)))
    plan = {
        (name, seed): configs.load(
            file,
            kind,
            [*overrides, *kind.variants[name], f"seed={seed}", f"name={base.name}-{name}-{seed}"],
        )
        # Seed by seed: the first table has every variant.
        for seed in seeds
        for name in _chosen(kind, only)
    }
    # The same comparison can be gone on with by further seeds.
    group = Group.of("comparisons", base.model_copy(update={"seed": 0}))
    names = list(dict.fromkeys(name for name, _ in plan))
    tracker = GroupTracker(group, f"unfold compare {task}", {"config": base.name}, console)
    tracker.open()
    failed: dict[str, str] = {}
    signals.install()
    status = "KILLED"
    try:
        for number, ((name, seed), config) in enumerate(plan.items(), 1):
            key = f"{name}-seed-{seed}"
            try:
                _train(group, key, config, f"{key} ({number} of {len(plan)})", worker, console)
            except TrainingError as error:
                failed[key] = str(error)
                console.warn(f"{key} failed: {error}")
        status = "FINISHED"
    except KeyboardInterrupt:
        console.say("interrupted; the same command goes on from here")
        raise
    finally:
        found = _found(group, base, names, seeds, failed)
        if found.variants:
            files = _write(found)
            metrics = {f"{found.metric}/{v.name}": v.mean for v in found.variants}
            tracker.finish(status, found.markdown(), metrics, files)
    return found


def _chosen(kind: type[Experiment], only: Sequence[str] | None) -> list[str]:
    for name in only or ():
        if name not in kind.variants:
            raise UserError(f"no variant {name!r}; there are: {', '.join(kind.variants)}")
    return [name for name in kind.variants if only is None or name in only]


def _train(
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


def _found(
    group: Group, base: Experiment, names: list[str], seeds: list[int], failed: dict[str, str]
) -> Comparison:
    """What the runs that are finished say."""
    metric, higher = base.score
    begun, done = group.runs(), dict[str, list[Run]]()
    for name in names:
        mine = [begun[key] for seed in seeds if (key := f"{name}-seed-{seed}") in begun]
        if finished := [run for run in mine if run.info.status == "finished"]:
            done[name] = finished
    _check_data(group, [run for runs in done.values() for run in runs])
    infos = {name: [run.info for run in runs] for name, runs in done.items()}
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
                scores=[i.scores[metric] for i in infos[name]],
                costs={cost: [getattr(i, cost) for i in infos[name]] for cost in COSTS},
                curves=[[record[monitor] for record in run.history] for run in runs],
                runs=[run.id for run in runs],
            )
            for name, runs in done.items()
        ],
        baselines={
            name: statistics.fmean(b[name] for b in baselines)
            for name in (baselines[0] if baselines else {})
        },
        failed=failed,
    )


def _check_data(group: Group, runs: Sequence[Run]) -> None:
    """All that were trained with one seed have seen the same records."""
    by_seed: dict[int, str] = {}
    for run in runs:
        seed, seen = run.config().seed, run.info.data.fingerprint
        if by_seed.setdefault(seed, seen) != seen:
            raise UserError(
                f"{group.folder}: the records changed since its first training; begin another "
                "comparison by another name: --set name=NAME"
            )


def _write(found: Comparison) -> list[Path]:
    """The table, for people and for programs, and the picture."""
    folder = found.folder
    table, numbers, picture = (
        folder / n for n in ("comparison.md", "comparison.json", "comparison.png")
    )
    write_text(table, found.markdown())
    write_json(numbers, found.json())
    plotting.save_figure(draw(found), picture)
    return [table, numbers, picture]


def draw(found: Comparison) -> Figure:
    """The score of each variant, seed by seed; the way there; and what it cost."""
    figure, (left, middle, right) = plotting.new_figure(
        13.0, 1.6 + 0.42 * max(6, len(found.variants)), 3
    )
    for place, variant in enumerate(found.variants):
        colour = f"C{place}"
        left.plot(variant.scores, [place] * len(variant.scores), "o", color=colour, ms=4, alpha=0.5)
        left.errorbar(
            variant.mean, place, xerr=variant.deviation or 0, fmt="|", ms=14, color=colour,
            capsize=3,
        )  # fmt: skip
        epochs = max(len(curve) for curve in variant.curves)
        means = [
            np.mean([curve[e] for curve in variant.curves if e < len(curve)]) for e in range(epochs)
        ]
        middle.plot(
            range(1, epochs + 1), means, "o-", color=colour, ms=3, lw=1.2, label=variant.name
        )
        seconds = statistics.fmean(variant.costs["train_seconds"])
        right.plot(seconds, variant.mean, "o", color=colour)
        right.annotate(
            variant.name, (seconds, variant.mean), xytext=(5, 3), textcoords="offset points",
            fontsize=8,
        )  # fmt: skip
    for value in found.baselines.values():
        left.axvline(value, color=plotting.GREY, lw=0.8, ls="--")
    left.set_yticks(range(len(found.variants)), [v.name for v in found.variants])
    left.invert_yaxis()
    left.set(xlabel=f"test {found.metric.replace('_', ' ')}")
    middle.set(xlabel="epoch", title=found.monitor.replace("_", " "))
    middle.xaxis.get_major_locator().set_params(integer=True)
    middle.legend(frameon=False, fontsize=8)
    right.set(xlabel="seconds of training", title=f"test {found.metric.replace('_', ' ')}")
    right.margins(x=0.25)
    figure.suptitle(found.title)
    return figure


def _with_deviation(mean: float, deviation: float | None) -> str:
    """As many digits as the deviation has a meaning for."""
    if not deviation:
        return f"{mean:.4g}"
    digits = max(0, 1 - int(np.floor(np.log10(deviation))))
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
