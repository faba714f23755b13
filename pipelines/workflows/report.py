"""The report of a finished run: one HTML page that contains all its tables and figures.

It is made from the run's folder alone, so that it can be written again, for runs of older versions
too. Tables and figures of an evaluation appear by themselves.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.engine.core.commands import command
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import write_text
from pipelines.engine.core.pages import templates
from pipelines.engine.core.wording import heading, number, readable
from pipelines.engine.runs import summary
from pipelines.engine.runs.info import RunInfo
from pipelines.engine.runs.run import REPORT, Run
from pipelines.engine.runs.tables import EXAMPLES, FLOW, LAYERS, read_table
from pipelines.engine.tasks.catalog import get_config
from pipelines.workflows.report_parts import Embedder, Figure, Table

_CURVES = "learning_curves"
#: Tables and figures of every task, and what they show.
_MEANINGS = {
    _CURVES: "Each metric after each epoch, on the training and the validation split.",
    EXAMPLES: "What the model answered to a few validation records after the last epoch.",
    "explained": "Gates, states and answer at each step of a test record, from left to right.",
    FLOW: "The size of the gradient of the loss by how many steps back it has flowed. Where it "
    "falls to nothing, the layer learns nothing from what it read then.",
}
#: Tables that are shown elsewhere: as a figure, in a section of their own, as sentences.
_SHOWN_ELSEWHERE = (FLOW, LAYERS, EXAMPLES, "verdict")


def write(run: Run, console: Console) -> Path:
    """Write the report of a finished run into its folder.

    A part that cannot be made is left out with a warning.

    Returns:
        The path of the report.

    Raises:
        UserError: the run is not finished.
    """
    info = run.info
    if info.status != "finished":
        raise UserError(
            f"run {run.id} has no report: its training is {info.status}; continue it with: "
            f"{command('train', run.task, run=run.id)}"
        )
    path = run.folder / REPORT
    write_text(path, page(run, console.warn))
    return path


def write_if_possible(run: Run, console: Console) -> Path | None:
    """Write the report of a run that has just finished; a failure costs a warning."""
    try:
        return write(run, console)
    except Exception as error:  # noqa: BLE001 (a page is not worth a run)
        console.warn(f"the report could not be written: {_describe(error)}")
        return None


def page(run: Run, warn: Callable[[str], None]) -> str:
    """Render the report.

    Args:
        run: a finished run.
        warn: called with a message about each part that could not be made.
    """
    parts = _Parts(run, warn)
    sections = {
        name: parts.attempt(name, make)
        for name, make in (
            ("scores", parts.scores),
            ("results", parts.results),
            ("training", parts.training),
            ("explanations", parts.explanations),
            ("data", parts.data),
            ("model", parts.model),
            ("limits", lambda: summary.limits(run)),
            ("headline", lambda: summary.headline(run.info, get_config(run.task).score)),
        )
    }
    return templates(__package__).get_template("report.html.jinja").render(
        run=run,
        info=run.info,
        uses=summary.uses(run),
        config=parts.attempt("config", lambda: (run.folder / "config.yaml").read_text("utf-8")),
        reproduce=command(
            "train", run.task, config=shlex.quote(str(run.folder / "config.yaml"))
        ),
        left_out=parts.embedder.left_out,
        **sections,
    )  # fmt: skip


class _Parts:
    """The parts of the report of one run."""

    def __init__(self, run: Run, warn: Callable[[str], None]) -> None:
        self._run, self._warn, self._info = run, warn, run.info
        self._meanings = _MEANINGS | get_config(run.task).meanings
        self.embedder = Embedder()

    def attempt(self, name: str, make: Callable[[], Any]) -> Any:
        """Return a part, or None with a warning if it cannot be made."""
        try:
            return make()
        except Exception as error:  # noqa: BLE001 (a part of a page is not worth a run)
            self._warn(f"the report has no {name}: {_describe(error)}")
            return None

    def scores(self) -> dict[str, Table | None]:
        """Return the test scores, and the baselines in the main score."""
        info, main = self._info, get_config(self._run.task).score.name
        beside = {"this model": info.scores[main], **info.baselines} if info.baselines else {}
        higher = get_config(self._run.task).score.higher_is_better
        ranked = dict(sorted(beside.items(), key=lambda pair: pair[1], reverse=higher))
        return {
            "scores": Table.of_columns(
                "Test scores",
                {
                    "score": [heading(name) for name in info.scores],
                    "test": [number(value) for value in info.scores.values()],
                    "95 % interval": [_interval(info, name) for name in info.scores],
                    "what it is": [
                        self._meanings.get(score_kind(name), "") for name in info.scores
                    ],
                },
            ),
            "baselines": Table.of_columns(
                "Beside the baselines, best first",
                {
                    "method": [readable(name) for name in ranked],
                    readable(main): [number(value) for value in ranked.values()],
                },
            )
            if ranked
            else None,
        }

    def results(self) -> dict[str, list[Any]]:
        """Return the tables and figures of the evaluation."""
        return {
            "tables": self._tables(
                name for name in self._names("tables", ".csv") if name not in _SHOWN_ELSEWHERE
            ),
            "figures": self._figures(
                name
                for name in self._names("figures", ".png", ".svg")
                if name not in (_CURVES, FLOW) and not name.startswith("explained_")
            ),
        }

    def training(self) -> dict[str, Any]:
        """Return how the training went."""
        info, history = self._info, self._run.history
        facts = {"epochs": number(len(history)) if history else None}
        if info.monitor is not None and info.best is not None:
            facts["best epoch"] = f"{info.best_epoch} ({readable(info.monitor)} {info.best:.4g})"
        facts |= {
            "training": _seconds(info.train_seconds),
            "all, with evaluation and export": _seconds(info.total_seconds),
            "peak memory": _with_unit(info.peak_memory_mb, "MB"),
            "device": " on ".join(filter(None, (info.backend, info.device))),
            "machine": info.machine,
        }
        examples = self.attempt("examples", self._last_examples)
        return {
            "facts": _known(facts),
            "figures": self._figures([_CURVES, FLOW]),
            "tables": [] if examples is None else [examples],
        }

    def explanations(self) -> list[Figure]:
        """Return the pictures of explained test records."""
        figures = self._figures(
            name for name in self._names("figures", ".png") if name.startswith("explained_")
        )
        for figure in figures:
            interactive = self._run.folder / "figures" / f"{figure.name}.html"
            if interactive.exists():
                figure.link = f"figures/{interactive.name}"
        return figures

    def data(self) -> dict[str, Any]:
        """Return where the records come from, and what was left out of them."""
        report = self._info.data
        sources = dict(report.sources())
        facts = {k: v for k, v in (report.model_extra or {}).items() if k not in sources}
        splits = report.records
        by_split = {"records": splits} | {
            name: facts.pop(name)
            for name, value in list(facts.items())
            if isinstance(value, dict) and value and value.keys() <= splits.keys()
        }
        labels = facts.pop("labels") if isinstance(facts.get("labels"), dict) else {}
        return {
            "splits": Table.of_columns(
                "Records by split",
                {"split": list(splits)}
                | {
                    readable(name): [_value(values.get(split, "")) for split in splits]
                    for name, values in by_split.items()
                },
            ),
            "sources": Table.of_columns(
                "Rows by source",
                {
                    "source": list(sources),
                    "rows": [number(s.rows) for s in sources.values()],
                    "not wanted": [number(s.filtered_out) for s in sources.values()],
                    "left out": [number(s.left_out) for s in sources.values()],
                    "repeated": [number(s.repeated) for s in sources.values()],
                    "unusable": [number(sum(s.unusable.values())) for s in sources.values()],
                },
            ),
            "unusable": [(name, s) for name, s in sources.items() if s.unusable],
            "notes": [note for s in sources.values() for note in s.notes] + report.notes,
            "labels": Table.of_columns(
                "Training records by label",
                {
                    "label": list(labels),
                    "records": [_value(count) for count in labels.values()],
                },
            ),
            "facts": {readable(name): _value(value) for name, value in facts.items()},
        }

    def model(self) -> dict[str, Any]:
        """Return the layers of the model and what it costs."""
        info = self._info
        layers = self.attempt("table of layers", partial(self._table, LAYERS))
        return {
            "facts": _known(
                {
                    "trained parameters": _with_unit(info.parameters, ""),
                    "one request": _with_unit(info.latency_ms, "ms"),
                }
            ),
            "layers": layers,
            "routes": info.routes,
        }

    def _names(self, folder: str, *suffixes: str) -> list[str]:
        """Return the names of the tables or figures, those with a meaning first."""
        known = list(self._meanings)
        names = {p.stem for p in (self._run.folder / folder).glob("[!.]*") if p.suffix in suffixes}
        place = {name: known.index(k) for name in names if (k := _unnumbered(name)) in known}
        return sorted(names, key=lambda name: (place.get(name, len(known)), name))

    def _tables(self, names: Iterable[str]) -> list[Table]:
        made = (self.attempt(f"table {n}", partial(self._table, n)) for n in names)
        return [table for table in made if table is not None]

    def _table(self, name: str) -> Table | None:
        rows = read_table(self._run, name)
        return Table.of_csv(name, rows, self._meanings.get(name, "")) if rows else None

    def _last_examples(self) -> Table | None:
        """Return the answers after the last epoch."""
        columns, *rows = read_table(self._run, EXAMPLES) or [[]]
        last = [row[1:] for row in rows if row[0] == rows[-1][0]]
        return Table.of_csv(EXAMPLES, [columns[1:], *last], _MEANINGS[EXAMPLES]) if last else None

    def _figures(self, names: Iterable[str]) -> list[Figure]:
        made = (self.attempt(f"figure {n}", partial(self._figure, n)) for n in names)
        return [figure for figure in made if figure is not None]

    def _figure(self, name: str) -> Figure | None:
        for suffix in (".png", ".svg"):
            path = self._run.folder / "figures" / f"{name}{suffix}"
            if path.exists():
                return self.embedder.figure(path, self._meanings.get(_unnumbered(name), ""))
        return None


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def score_kind(name: str) -> str:
    """Return the name of a score without the class that it is of, as in ``recall/spam``."""
    return name.partition("/")[0]


def _unnumbered(name: str) -> str:
    """Return the name that several figures share: ``attention`` of ``attention_2``."""
    return re.sub(r"_\d+$", "", name)


def _interval(info: RunInfo, name: str) -> str:
    if name not in info.intervals:
        return ""
    return " to ".join(number(end) for end in info.intervals[name])


def _seconds(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"


def _with_unit(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{number(value)} {unit}".strip()


def _known(facts: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in facts.items() if value}


def _value(value: Any) -> str:
    """Return a value of the data's report in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{readable(str(k))} {_value(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    return number(value) if isinstance(value, int | float) else str(value)
