"""Run the experiments and write them down: one HTML file that needs nothing else, and MLflow."""

from __future__ import annotations

import base64
import io
import math
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata, resources
from pathlib import Path

import jinja2
import keras
from matplotlib.figure import Figure

from pipelines.engine.core import signals
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.files import require_writable, write_text
from pipelines.engine.core.paths import home
from pipelines.engine.runs import tracking
from pipelines.lab.experiments import EXPERIMENTS
from pipelines.lab.section import Section, Size


def run(console: Console, *, only: Sequence[str] | None, fast: bool, seed: int) -> Path:
    """Run experiments and write ``lab/report.html``.

    Args:
        only: their names; None for all, in the order of the chapter.

    Returns:
        The file.

    Raises:
        UserError: there is no such experiment, the seed is negative, or the backend is not
            TensorFlow.
    """
    names = list(EXPERIMENTS) if only is None else list(only)
    for name in names:
        if name not in EXPERIMENTS:
            raise UserError(f"--only {name}: there are: {', '.join(EXPERIMENTS)}")
    if not 0 <= seed < 2**31:
        raise UserError(f"--seed {seed}: allowed: 0 to {2**31 - 1}")
    if keras.backend.backend() != "tensorflow":
        raise UserError("the lab needs the TensorFlow backend: unset KERAS_BACKEND")
    path = home() / "lab" / "report.html"
    require_writable(path.parent, "the report")
    size, sections, seconds = Size(fast, seed), [], {}
    signals.install()
    for number, name in enumerate(names, 1):
        started = time.perf_counter()
        section = EXPERIMENTS[name](size)
        seconds[name] = time.perf_counter() - started
        signals.check()
        sections.append(section)
        console.say(
            f"{number}/{len(names)}  {name}: {'holds' if section.holds else 'does not hold'}  "
            f"{seconds[name]:.0f} s"
        )
    total = sum(seconds.values())
    write_text(path, page(sections, size, total))
    metrics = {
        f"{name}/{label}": value
        for name, section in zip(names, sections, strict=True)
        for label, value in {**section.numbers, "holds": float(section.holds)}.items()
        if math.isfinite(value)
    }
    params = {"fast": fast, "seed": seed, "experiments": ", ".join(names)}
    title = f"lab-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if reason := tracking.log_report("lab", title, params, _named(metrics), path):
        console.warn(f"{reason}; the report is in {path}")
    return path


def _named(metrics: dict[str, float]) -> dict[str, float]:
    """MLflow takes letters, digits and a few marks in the name of a metric."""
    return {
        "".join(c if c.isascii() and (c.isalnum() or c in "/_-. ") else "_" for c in name): value
        for name, value in metrics.items()
    }


def page(sections: Sequence[Section], size: Size, seconds: float) -> str:
    """The report as one HTML file without a script and without a request."""
    template = resources.files("pipelines.lab").joinpath("report.html.jinja").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["picture"] = _picture
    versions = {name: metadata.version(name) for name in ("keras", "numpy")}
    return environment.from_string(template).render(
        sections=sections,
        size=size,
        minutes=f"{seconds / 60:.1f}",
        machine=f"{platform.machine()}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items()),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
    )


def _picture(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
