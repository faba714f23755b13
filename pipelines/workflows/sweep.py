"""Search for the best values of config keys, with early pruning of unpromising trials."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core import plotting, signals
from pipelines.engine.core.commands import command
from pipelines.engine.core.console import Console
from pipelines.engine.core.files import write_text
from pipelines.engine.runs.group import Group
from pipelines.engine.runs.group_tracking import GroupTracker
from pipelines.engine.runs.model_names import require_free
from pipelines.engine.tasks.catalog import get_config
from pipelines.workflows.search_space import Space, check, format_value, overrides_of, value_of
from pipelines.workflows.study import BEST, MONITOR, REASON, Searcher

#: The most keys that are plotted.
_DRAWN = 5


@dataclass(frozen=True)
class Sweep:
    """The results so far.

    Attributes:
        trials: all trials in the storage, those of other machines included.
        best_file: the config of the best trial; None if none is complete.
        command: the command that trains the best config.
    """

    folder: Path
    monitor: str
    keys: list[str]
    trials: list[FrozenTrial]
    best: FrozenTrial | None
    best_file: Path | None
    command: str

    @property
    def counts(self) -> dict[str, int]:
        words = {
            "complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL,
        }  # fmt: skip
        return {word: sum(t.state == s for t in self.trials) for word, s in words.items()}

    @property
    def title(self) -> str:
        counts = ", ".join(f"{n} {word}" for word, n in self.counts.items() if n)
        return f"{self.folder.name}: {len(self.trials)} trials ({counts or 'none ended'})"

    @property
    def columns(self) -> list[str]:
        return ["trial", self.monitor, *self.keys, "epochs", "ended"]

    @property
    def rows(self) -> list[list[str]]:
        """The complete trials, best first; then the others by number."""

        def rank(trial: FrozenTrial) -> tuple[bool, float]:
            done = trial.state == TrialState.COMPLETE and trial.value is not None
            return (not done, -trial.value if done and trial.value is not None else trial.number)

        return [
            [
                str(trial.number),
                f"{trial.user_attrs[BEST]:.4f}" if BEST in trial.user_attrs else "",
                *(format_value(trial.params.get(key, "")) for key in self.keys),
                str(len(trial.intermediate_values)),
                trial.user_attrs.get(REASON, trial.state.name.lower()),
            ]
            for trial in sorted(self.trials, key=rank)
        ]

    def json(self) -> dict[str, Any]:
        best = self.best
        return {
            "folder": str(self.folder),
            "monitor": self.monitor,
            "trials": self.counts,
            "best": best
            and {
                "trial": best.number,
                self.monitor: best.user_attrs[BEST],
                "keys": {k: value_of(v) for k, v in best.params.items()},
                "config": str(self.best_file),
            },
        }

    def markdown(self) -> str:
        table = [self.columns, ["---"] * len(self.columns), *self.rows]
        lines = [self.title, "", *(f"| {' | '.join(row)} |" for row in table)]
        if self.best is not None:
            lines += ["", f"Train the best: `{self.command}`"]
        return "\n".join(lines) + "\n"


def sweep(
    task: str,
    file: Path,
    space_file: Path,
    overrides: Sequence[str],
    console: Console,
    *,
    worker: Sequence[str],
    trials: int | None = None,
    workers: int = 1,
    storage: str | None = None,
) -> Sweep:
    """Run the remaining trials of a sweep, and return all results.

    Args:
        task: The task's name.
        file, overrides: The config that is varied.
        space_file: The search space.
        console: Shows the progress.
        worker: The command that runs one trial.
        trials: Their total number; by default the search space's.
        workers: The number of trials that run at the same time.
        storage: A database URL or the path of a journal file; by default one in the folder.

    Raises:
        UserError: A key or value is not allowed, or the storage cannot be used.
    """
    kind = get_config(task)
    base = configs.load(file, kind, overrides)
    require_free(base)
    space = configs.load(space_file, Space)
    check(space, space_file, file, kind, overrides)

    def make(values: list[str], name: str) -> Experiment:
        return configs.load(file, kind, [*overrides, *values, f"name={base.name}-{name}"])

    group = Group.of("sweeps", base, space.model_dump_json(exclude={"trials"}))
    searcher = Searcher(
        group=group, space=space, make=make, total=trials or space.trials, storage=storage,
        worker=worker, console=console,
    )  # fmt: skip
    varied = {key: str(axis.model_dump(exclude_unset=True)) for key, axis in space.keys.items()}
    tracker = GroupTracker(group, f"unfold sweep {task}", varied, console)
    tracker.open()
    signals.install()
    status = "KILLED"
    try:
        searcher.work(workers)
        status = "FINISHED"
    except KeyboardInterrupt:
        console.say("interrupted; the same command continues from here")
        raise
    finally:
        result = _summarize(base, space, group.folder, make, searcher)
        metrics = {f"trials/{word}": float(n) for word, n in result.counts.items()}
        if result.best is not None:
            metrics[f"best/{result.monitor}"] = result.best.user_attrs[BEST]
        tracker.finish(status, result.markdown(), metrics, _write(result))
    return result


def _summarize(
    base: Experiment,
    space: Space,
    folder: Path,
    make: Callable[[list[str], str], Experiment],
    searcher: Searcher,
) -> Sweep:
    """What was tried; the config of the best is written as a file."""
    trials = searcher.trials
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    best = max(done, key=lambda t: (t.value, -t.number), default=None)
    best_file = None
    train = ""
    if best is not None:
        best_file = folder / "best.yaml"
        train = command("train", base.task, config=str(best_file))
        monitor = f"{best.user_attrs[MONITOR]} {best.user_attrs[BEST]:.4f}"
        head = [
            f"# The best of {len(trials)} trials around the config {base.name}: {monitor}.",
            *("#", f"#   {train}", "#"),
            *(f"# {key}: {format_value(value)}" for key, value in best.params.items()),
        ]
        config = make(overrides_of(best.params), "best")
        write_text(best_file, "\n".join(head) + "\n" + configs.dump(config))
    return Sweep(
        folder=folder,
        monitor=next((t.user_attrs[MONITOR] for t in trials if MONITOR in t.user_attrs), ""),
        keys=list(space.keys),
        trials=trials,
        best=best,
        best_file=best_file,
        command=train,
    )


def _write(result: Sweep) -> list[Path]:
    """The table, for people and for programs, and the picture."""
    table, rows, picture = (result.folder / n for n in ("sweep.md", "trials.csv", "sweep.png"))
    write_text(table, result.markdown())
    text = io.StringIO(newline="")
    csv.writer(text).writerows([result.columns, *result.rows])
    write_text(rows, text.getvalue())
    plotting.save_figure(draw(result), picture)
    return [table, rows, picture, *([result.best_file] if result.best_file else [])]


def draw(result: Sweep) -> Figure:
    """The score of each trial in the order in which they began; and over each key."""
    keys = result.keys[:_DRAWN]
    figure, axes = plotting.new_figure(4.0 * (1 + len(keys)), 3.8, 1 + len(keys))
    ended = [t for t in result.trials if BEST in t.user_attrs]
    for state, colour, mark in (
        (TrialState.COMPLETE, plotting.BLUE, "o"),
        (TrialState.PRUNED, plotting.GREY, "x"),
    ):
        some = [t for t in ended if t.state == state]
        scores = [t.user_attrs[BEST] for t in some]
        style: dict[str, Any] = {"color": colour, "ls": "", "marker": mark, "ms": 4}
        axes[0].plot([t.number for t in some], scores, label=state.name.lower(), **style)
        for ax, key in zip(axes[1:], keys, strict=True):
            chosen = [value_of(t.params[key]) for t in some]
            if any(not isinstance(c, int | float) or isinstance(c, bool) for c in chosen):
                chosen = [str(c) for c in chosen]
            ax.plot(chosen, scores, **style)
    axes[0].set(xlabel="trial", ylabel=f"best {result.monitor.replace('_', ' ')}")
    axes[0].legend(frameon=False)
    for ax, key in zip(axes[1:], keys, strict=True):
        ax.set(xlabel=key)
        numbers = [value_of(t.params[key]) for t in ended]
        positive = bool(numbers) and all(isinstance(n, float) and n > 0 for n in numbers)
        if positive and max(numbers) / min(numbers) > 20:
            ax.set_xscale("log")
    figure.suptitle(result.title)
    return figure
