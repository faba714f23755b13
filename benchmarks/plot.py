"""Draw the plot of docs/speed.md from the stored results of `benchmarks.layers`.

python -m benchmarks.plot benchmarks/results/layers-cpu2.json docs/images/speed.png
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np

COLOURS = {
    "unfold": "#2563eb",
    "keras graph": "#9ca3af",
    "keras XLA": "#d1d5db",
    "torch": "#f59e0b",
    "jax scan": "#10b981",
    "GEMM limit": "#111827",
}


def main(source: Path, target: Path) -> None:
    tables = json.loads(source.read_text(encoding="utf-8"))["tables"]
    wanted = [t for t in tables if "training step" in t["title"] and "bidir" not in t["title"]]
    figure, axes = plt.subplots(
        len(wanted) // 2, 2, figsize=(11, 2.7 * (len(wanted) // 2)), layout="constrained"
    )
    for axis, table in zip(axes.flat, wanted, strict=False):
        names = list(table["rows"][0]["values"])
        for place, name in enumerate(names):
            ratio = [row["values"][name] / row["values"]["unfold"] for row in table["rows"]]
            at = np.arange(len(ratio)) + (place - len(names) / 2) * 0.8 / len(names)
            axis.bar(at, ratio, 0.8 / len(names), label=name, color=COLOURS[name])
        axis.axhline(1, color=COLOURS["unfold"], lw=0.8)
        axis.set_title(table["title"].removesuffix(", ms"), fontsize=9)
        axis.set_ylim(0, 4)
        axis.set_xticks(
            range(len(table["rows"])),
            ["×".join(map(str, row["case"])) for row in table["rows"]],
            fontsize=7,
        )
        axis.set_ylabel("time / unfold's", fontsize=8)
    axes.flat[0].legend(fontsize=7, ncols=3)
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
