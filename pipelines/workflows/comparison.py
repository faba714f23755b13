"""The results of a comparison: a table, a figure and files."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipelines.engine.config.folds import Fold
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core import plotting
from pipelines.engine.core.files import write_json, write_text


@dataclass(frozen=True)
class Draw:
    """What distinguishes the trainings of one variant.

    Attributes:
        seed: the key ``seed``.
        fold: the key ``data.fold``; None without cross-validation.
    """

    seed: int
    fold: str | None = None

    def __str__(self) -> str:
        if self.fold is None:
            return f"seed-{self.seed}"
        number, folds = Fold.parse(self.fold)
        return f"seed-{self.seed}-fold-{number}-of-{folds}"

    @classmethod
    def of(cls, config: Experiment) -> Draw:
        """Return the draw of a run's config."""
        return cls(config.seed, config.data.fold)

    def overrides(self, name: str) -> list[str]:
        """Return the overrides for a training of this draw, whose name begins with ``name``."""
        fold = [] if self.fold is None else [f"data.fold={self.fold}"]
        return [f"seed={self.seed}", *fold, f"name={name}-{str(self).removeprefix('seed-')}"]


@dataclass(frozen=True)
class Variant:
    """The results of one variant, with one value for each finished training."""

    name: str
    #: By draw, as text.
    draws: dict[str, float]
    #: By the names in `mlflow_content.COSTS`.
    costs: dict[str, list[float]]
    #: The monitored score of each epoch, for each seed.
    curves: list[list[float]]
    runs: list[str]

    @property
    def scores(self) -> list[float]:
        return list(self.draws.values())

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)

    @property
    def deviation(self) -> float | None:
        return _deviation(self.scores)

    def differences(self, other: Variant) -> list[float]:
        """Return this variant's scores minus those of another one, for the draws of both."""
        return [score - other.draws[d] for d, score in self.draws.items() if d in other.draws]


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
    #: Folds of the cross-validation, if it is one.
    folds: int | None = None

    @property
    def title(self) -> str:
        draws = max((len(v.scores) for v in self.variants), default=0)
        what = f"{draws} seed(s)" if self.folds is None else f"{draws} test fold(s) of {self.folds}"
        better = "higher" if self.higher_is_better else "lower"
        return f"{self.task}, {self.config_name}: {what}; {better} {self.metric} is better"

    @property
    def columns(self) -> list[str]:
        costs = ["parameters", "training s", "peak MB", "request ms"]
        return ["variant", self.metric, "minus the best", *costs]

    @property
    def rows(self) -> list[list[str]]:
        rows = []
        for variant in self.variants:
            costs = {name: statistics.fmean(values) for name, values in variant.costs.items()}
            rows.append(
                [
                    variant.name,
                    _with_deviation(variant.scores),
                    self._minus_best(variant),
                    f"{costs['parameters']:,.0f}",
                    f"{costs['train_seconds']:,.1f}",
                    f"{costs['peak_memory_mb']:,.0f}",
                    f"{costs['latency_ms']:.2f}",
                ]
            )
        empty = [""] * (len(self.columns) - 2)
        rows += [[name, f"{value:.4g}", *empty] for name, value in self.baselines.items()]
        return rows

    def _minus_best(self, variant: Variant) -> str:
        """The difference to the best variant, with the deviation of the differences."""
        assert self.best is not None
        differences = variant.differences(self.best)
        return "" if variant is self.best or not differences else _with_deviation(differences)

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
            "folds": self.folds,
            "variants": {
                v.name: {
                    "mean": v.mean,
                    "deviation": v.deviation,
                    "scores": v.scores,
                    "draws": list(v.draws),
                    "differences": v.differences(self.best) if self.best else [],
                    **{n: statistics.fmean(values) for n, values in v.costs.items()},
                    "runs": v.runs,
                }
                for v in self.variants
            },
            "baselines": self.baselines,
            "failed": self.failed,
        }

    def markdown(self) -> str:
        lines = [
            self.title,
            "",
            _line(self.columns),
            _line(["---", *["---:"] * (len(self.columns) - 1)]),
        ]
        lines += [_line(row) for row in self.rows]
        lines += ["", *(f"{key} failed: {why}" for key, why in self.failed.items())]
        return "\n".join(lines) + "\n"


def write(comparison: Comparison) -> list[Path]:
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
    """Plot the scores of each variant, its learning curve, and its training time."""
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


def _deviation(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample; None if it has one value."""
    return statistics.stdev(values) if len(values) > 1 else None


def _with_deviation(values: Sequence[float]) -> str:
    """Format mean ± deviation with the digits that the deviation makes meaningful."""
    mean, deviation = statistics.fmean(values), _deviation(values)
    if not deviation:
        return f"{mean:.4g}"
    digits = max(0, 1 - int(np.floor(np.log10(deviation))))
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
