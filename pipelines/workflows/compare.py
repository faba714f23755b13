"""Compare the variants of a config: train each with several seeds, tabulate and plot them."""

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
from pipelines.engine.runs.model_names import require_free
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_config

#: Default number of seeds, from the config's own on: enough for a first ±.
_SEEDS = 3


@dataclass(frozen=True)
class Variant:
    """The results of one variant, with one value for each finished seed."""

    name: str
    scores: list[float]
    #: By the names in `mlflow_content.COSTS`.
    costs: dict[str, list[float]]
    #: The monitored score of each epoch, for each seed.
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
    """The results so far."""

    task: str
    config_name: str
    folder: Path
    metric: str
    higher_is_better: bool
    monitor: str
    variants: list[Variant]
    baselines: dict[str, float]
    #: Reasons of failed trainings, by key.
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
        """The variant with the best mean; None if none is finished."""
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
    """Train the variants that are not trained yet, and return the results.

    Args:
        task: the task's name.
        file: the config that is varied.
        overrides: ``KEY=VALUE`` pairs for it.
        seeds: each variant is trained with each of them; None for three.
        only: names of variants; None for all.
        console: where progress is shown.
        worker: the command that trains one run.

    Raises:
        UserError: the task has no such variant, or the config does not allow it.
    """
    kind = get_config(task)
    base = configs.load(file, kind, overrides)
    require_free(base)
    seeds = list(dict.fromkeys(seeds or range(base.seed, base.seed + _SEEDS)))
    plan = _plan(kind, base, file, overrides, seeds, _select_variants(kind, only))
    # Further seeds continue the same comparison.
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
        result = _collect(group, base, names, seeds, failed)
        if result.variants:
            files = _write(result)
            metrics = {f"{result.metric}/{v.name}": v.mean for v in result.variants}
            tracker.finish(status, result.markdown(), metrics, files)
    return result


def _plan(
    kind: type[Experiment],
    base: Experiment,
    file: Path,
    overrides: Sequence[str],
    seeds: Sequence[int],
    names: Sequence[str],
) -> dict[tuple[str, int], Experiment]:
    """The config of each variant and seed, in the order in which they are trained."""
    return {
        (name, seed): configs.load(
            file,
            kind,
            [*overrides, *kind.variants[name], f"seed={seed}", f"name={base.name}-{name}-{seed}"],
        )
        # Seed by seed: the first table has every variant.
        for seed in seeds
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
    group: Group, base: Experiment, names: list[str], seeds: list[int], failed: dict[str, str]
) -> Comparison:
    """Collect the results of the finished runs."""
    metric, higher = base.score
    existing, done = group.runs(), dict[str, list[Run]]()
    for name in names:
        runs = [existing[key] for seed in seeds if (key := f"{name}-seed-{seed}") in existing]
        if finished := [run for run in runs if run.info.status == "finished"]:
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
            if all(name in b for b in baselines)  # older runs may have others
        },
        failed=failed,
    )


def _check_data(group: Group, runs: Sequence[Run]) -> None:
    """Check that runs with the same seed were trained on the same records."""
    by_seed: dict[int, str] = {}
    for run in runs:
        seed, fingerprint = run.config().seed, run.info.data.fingerprint
        if by_seed.setdefault(seed, fingerprint) != fingerprint:
            raise UserError(
                f"{group.folder}: the records changed since its first training; start another "
                "comparison with another name: --set name=NAME"
            )


def _write(comparison: Comparison) -> list[Path]:
    """Write the table, as Markdown and as JSON, and the figure."""
    folder = comparison.folder
    table, numbers, picture = (
        folder / n for n in ("comparison.md", "comparison.json", "comparison.png")
    )
    write_text(table, comparison.markdown())
    write_json(numbers, comparison.json())
    plotting.save_figure(draw(comparison), picture)
    return [table, numbers, picture]


def draw(comparison: Comparison) -> Figure:
    """Plot the scores of each variant by seed, its learning curve, and its training time."""
    figure, (left, middle, right) = plotting.new_figure(
        13.0, 1.6 + 0.42 * max(6, len(comparison.variants)), 3
    )
    for place, variant in enumerate(comparison.variants):
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
    for value in comparison.baselines.values():
        left.axvline(value, color=plotting.GREY, lw=0.8, ls="--")
    left.set_yticks(range(len(comparison.variants)), [v.name for v in comparison.variants])
    left.invert_yaxis()
    left.set(xlabel=f"test {comparison.metric.replace('_', ' ')}")
    middle.set(xlabel="epoch", title=comparison.monitor.replace("_", " "))
    middle.xaxis.get_major_locator().set_params(integer=True)
    middle.legend(frameon=False, fontsize=8)
    right.set(xlabel="seconds of training", title=f"test {comparison.metric.replace('_', ' ')}")
    right.margins(x=0.25)
    figure.suptitle(comparison.title)
    return figure


def _with_deviation(mean: float, deviation: float | None) -> str:
    """Format a mean ± deviation with the digits that the deviation makes meaningful."""
    if not deviation:
        return f"{mean:.4g}"
    digits = max(0, 1 - int(np.floor(np.log10(deviation))))
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
