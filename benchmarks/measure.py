"""Time calls, print tables and store results: shared by the benchmarks."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

RESULTS = Path(__file__).parent / "results"


def best_of(
    calls: dict[str, Callable[[], object]], rounds: int, seconds: float = 0.25
) -> dict[str, float]:
    """Return the fastest time of each call in milliseconds, with the calls interleaved."""
    best = dict.fromkeys(calls, math.inf)
    for call in calls.values():
        call()  # compile and warm up
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            until = time.perf_counter() + seconds
            while True:
                started = time.perf_counter()
                call()
                ended = time.perf_counter()
                best[name] = min(best[name], (ended - started) * 1e3)
                if ended > until:
                    break
    return best


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


class Table:
    """Times by shape and contender, compared with ``unfold`` if it is one of them."""

    def __init__(self, title: str, keys: list[object]) -> None:
        self.title, self.keys = title, keys
        self.rows: list[dict[str, float]] = []
        self.ratios: dict[str, list[float]] = {}

    def add(self, key: object, times: dict[str, float]) -> None:
        self.rows.append(times)
        for name in times:
            if "unfold" in times and name not in ("unfold", "keras graph", "keras XLA"):
                self.note(name, [row[name] for row in self.rows if name in row])

    def note(self, name: str, times: list[float]) -> None:
        """Record how many times as long as ``unfold`` a contender takes, row by row."""
        self.ratios[name] = [
            other / row["unfold"] for other, row in zip(times, self.rows, strict=True)
        ]

    def show(self, console: Console) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        shown = RichTable(title=self.title, title_justify="left")
        shown.add_column("")
        for name in names:
            shown.add_column(name, justify="right")
        for key, row in zip(self.keys, self.rows, strict=False):
            shown.add_row(
                str(key).strip("()"),
                *(_shown(row.get(name)) for name in names),
            )
        console.print(shown)
        for name, ratios in self.ratios.items():
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            console.print(
                f"  {name} / unfold: {geometric_mean(ratios):.2f} in the geometric mean ({each})"
            )


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def machine() -> dict[str, object]:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((n.split(":")[1].strip() for n in lines if n.startswith("model name")), model)
        wide = "AVX-512" if any("avx512f" in line for line in lines) else "AVX2"
        model = f"{model}, {wide}"
    versions = {}
    for name in ("tensorflow-cpu", "tensorflow", "keras", "jax", "torch", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }


def report(subject: str, tables: list[Table]) -> None:
    """Print the tables and store them in ``results/`` with the machine and the date."""
    console = Console(width=120)
    for table in tables:
        table.show(console)
    now = datetime.now(UTC)
    kept = {
        "subject": subject,
        "date": now.date().isoformat(),
        "machine": machine(),
        "tables": [
            {
                "title": t.title,
                "rows": [
                    {"case": k, "values": {n: round(v, 3) for n, v in r.items()}}
                    for k, r in zip(t.keys, t.rows, strict=True)
                ],
                "ratios": {
                    n: {
                        "geometric_mean": round(geometric_mean(r), 3),
                        "each": [round(v, 3) for v in r],
                    }
                    for n, r in t.ratios.items()
                },
            }
            for t in tables
        ],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{subject}-cpu{os.cpu_count()}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    console.print(
        f"kept in {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}"
    )
