"""Messages and progress on standard error, and results on standard output."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

#: Seconds between two progress lines where there is no terminal.
PROGRESS_INTERVAL = 30.0


class Console:
    """Prints messages, progress and tables.

    Args:
        silent: print tables only.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._err = RichConsole(stderr=True, highlight=False, soft_wrap=True, quiet=silent)

    def say(self, text: str) -> None:
        """Print a message."""
        self._err.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._err.print(f"warning: {text}", markup=False, style="yellow")

    def error(self, text: str) -> None:
        """Print an error."""
        self._err.print(f"error: {text}", markup=False, style="red")

    @contextlib.contextmanager
    def progress(
        self, title: str, steps: int, unit: str = "tokens", *, done: int = 0
    ) -> Iterator[ProgressBar]:
        """Show progress: a bar on a terminal, a line now and then elsewhere.

        Args:
            title: printed before the progress.
            steps: number of steps until the work is done.
            unit: what the rate counts.
            done: number of steps that were done before.
        """
        with contextlib.ExitStack() as stack:
            live = None
            if self._err.is_terminal:
                live = stack.enter_context(
                    Progress(
                        TextColumn("{task.description}"),
                        BarColumn(),
                        TextColumn("{task.completed}/{task.total}"),
                        TextColumn("{task.fields[note]}"),
                        TimeRemainingColumn(),
                        console=self._err,
                        transient=True,
                    )
                )
            yield ProgressBar(self, title, steps, unit, live, done)

    def epoch(self, epoch: int, epochs: int, record: Mapping[str, float], *, is_best: bool) -> None:
        """Print the metrics of an epoch in one line."""
        shown = [
            f"{name} {value:.4f}"
            for name, value in record.items()
            if name.removeprefix("val_") not in {"learning_rate", "padding_share"}
            and "second" not in name
            and not name.startswith("health/")
        ]
        self.say(
            f"epoch {epoch}/{epochs}  {'  '.join(shown)}  "
            f"{record['tokens_per_second']:,.0f} tokens/s  {record['epoch_seconds']:.0f} s"
            f"{'  (best)' if is_best else ''}"
        )

    @staticmethod
    def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print the result of a command to standard output."""
        out = RichConsole(file=sys.stdout, highlight=False, markup=False, emoji=False)
        out.print(title, soft_wrap=True)
        if not rows:
            return
        table = Table(box=box.SIMPLE, pad_edge=False, collapse_padding=True)
        for i, column in enumerate(columns):
            table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        out.print(table)


class ProgressBar:
    """Progress through a known number of steps, with rate and time left."""

    def __init__(
        self,
        console: Console,
        title: str,
        steps: int,
        unit: str,
        live: Progress | None,
        done: int = 0,
    ) -> None:
        self._console, self._title, self._steps = console, title, steps
        self._unit, self._live = unit, live
        self._started = self._shown = time.monotonic()
        self._before, self._done, self._units = done, done, 0.0
        if live is not None:
            self._row = live.add_task(title, total=steps, completed=done, note="")

    def advance(self, units: float, loss: float | None = None, *, steps: int = 1) -> None:
        """Count a step, or several.

        Args:
            units: number of units in the step, such as tokens.
            loss: mean training loss so far.
            steps: number of steps.
        """
        now = time.monotonic()
        self._done += steps
        self._units += units
        elapsed = max(now - self._started, 1e-6)
        note = f"{self._units / elapsed:,.0f} {self._unit}/s"
        if loss is not None:
            note = f"loss {loss:.4f}  {note}"
        if self._live is not None:
            self._live.update(self._row, advance=steps, note=note)
        elif now - self._shown >= PROGRESS_INTERVAL:
            self._shown = now
            left = elapsed / (self._done - self._before) * (self._steps - self._done)
            self._console.say(
                f"{self._title}  {self._done}/{self._steps}  {note}  {left:.0f} s left"
            )
