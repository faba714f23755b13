"""Run the experiments, and report them as one HTML file and an MLflow run."""

from __future__ import annotations

import io
import math
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import keras
from matplotlib.figure import Figure

from pipelines.engine.core import signals
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import require_writable, write_text
from pipelines.engine.core.pages import data_url, templates
from pipelines.engine.core.paths import home
from pipelines.engine.runs import mlflow_store
from pipelines.lab.experiments import EXPERIMENTS
from pipelines.lab.section import Section, Settings


def run(console: Console, *, only: Sequence[str] | None, fast: bool, seed: int) -> Path:
    """Run experiments and write ``lab/report.html``.

    Args:
        console: shows progress.
        only: names of the experiments to run; None for all, in the order of the chapter.
        fast: do about a tenth of the work.
        seed: of all random numbers.

    Returns:
        Path of the report.

    Raises:
        UserError: an experiment does not exist, the seed is out of range, or the backend is not
            TensorFlow.
    """
    names = list(EXPERIMENTS) if only is None else list(only)
    _validate(names, seed)
    path = home() / "lab" / "report.html"
    require_writable(path.parent, "the report")
    settings = Settings(fast, seed)
    sections: list[Section] = []
    signals.install()
    begun = time.perf_counter()
    for number, name in enumerate(names, 1):
        started = time.perf_counter()
        section = EXPERIMENTS[name](settings)
        signals.check()
        sections.append(section)
        console.say(
            f"{number}/{len(names)}  {name}: {'holds' if section.holds else 'does not hold'}  "
            f"{time.perf_counter() - started:.0f} s"
        )
    seconds = time.perf_counter() - begun
    write_text(path, page(sections, settings, seconds))
    params = {"fast": fast, "seed": seed, "experiments": ", ".join(names)}
    title = f"lab-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if reason := mlflow_store.log_report("lab", title, params, _metrics(names, sections), path):
        console.warn(f"{reason}; the report is in {path}")
    return path


def _validate(names: Sequence[str], seed: int) -> None:
    for name in names:
        if name not in EXPERIMENTS:
            raise UserError(
                f"--only {name}: no such experiment; there are: {', '.join(EXPERIMENTS)}"
            )
    if not 0 <= seed < 2**31:
        raise UserError(f"--seed {seed}: allowed: 0 to {2**31 - 1}")
    if keras.backend.backend() != "tensorflow":
        raise UserError("the lab needs the TensorFlow backend: unset KERAS_BACKEND")


def _metrics(names: Sequence[str], sections: Sequence[Section]) -> dict[str, float]:
    """The finite numbers of all sections, under names that MLflow accepts."""
    metrics = {}
    for experiment, section in zip(names, sections, strict=True):
        for label, value in {**section.numbers, "holds": float(section.holds)}.items():
            if math.isfinite(value):
                metrics[_metric_name(f"{experiment}/{label}")] = value
    return metrics


def _metric_name(name: str) -> str:
    """Replace the characters that MLflow does not allow in a metric's name."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "/_-. ") else "_" for c in name)


def page(sections: Sequence[Section], settings: Settings, seconds: float) -> str:
    """Render the report as one HTML file without scripts or external resources."""
    template = templates(__package__).get_template("report.html.jinja")
    versions = {name: metadata.version(name) for name in ("keras", "numpy")}
    return template.render(
        sections=sections,
        draw=_data_url,
        settings=settings,
        minutes=f"{seconds / 60:.1f}",
        machine=f"{platform.machine()}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items()),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
    )


def _data_url(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return data_url(file.getvalue(), "image/png")
