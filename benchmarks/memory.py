"""Measure the peak memory of LSTM training steps.

    python -m benchmarks.memory

Each shape and contender runs in its own process. "Step" is the rise of the resident set in one
compiled training step, from a trimmed heap (median of seven). "Growth" is the rise of its peak in
the first ten steps, including retained memory, tracing and compilation. Linux only.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

CONTENDERS = ("unfold", "keras graph", "keras XLA")
PROCESS = Path("/proc/self")


def megabytes(key):
    """Return VmRSS (the resident set) or VmHWM (its peak) in megabytes."""
    lines = (PROCESS / "status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def measured(name, shape):
    """Return the megabytes of one step and of the first ten, in this process."""
    import keras

    import layers
    from benchmarks.layers import inputs_of, of_keras

    x, upstream, _ = inputs_of(shape, ragged=False)
    module, xla = (layers if name == "unfold" else keras.layers), name == "keras XLA"
    # Run a small layer first, so that one-time costs of a process are not counted.
    small = (8, 4, 4, 4)
    step, convert = of_keras(module, "LSTM", small, None, train=True, xla=xla)
    step(*(convert(a) for a in inputs_of(small, ragged=False)[:2]))
    step, convert = of_keras(module, "LSTM", shape, None, train=True, xla=xla)
    x, upstream = convert(x), convert(upstream)
    before = megabytes("VmHWM")
    for _ in range(10):
        step(x, upstream)
    growth = megabytes("VmHWM") - before
    rises = []
    for _ in range(7):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        (PROCESS / "clear_refs").write_text("5")  # reset the peak to the current value
        before = megabytes("VmRSS")
        step(x, upstream)
        rises.append(megabytes("VmHWM") - before)
    return [statistics.median(rises), growth]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one[0], tuple(json.loads(options.one[1])))))
        return
    from benchmarks.layers import SHAPES
    from benchmarks.measure import Table, report

    one = Table("LSTM, a training step once compiled: rise of the process, MB", SHAPES)
    ten = Table("LSTM, first ten training steps, compiling included: growth, MB", SHAPES)
    for shape in SHAPES:
        found = {}
        for name in CONTENDERS:
            command = [sys.executable, "-m", "benchmarks.memory", "--one", name]
            done = subprocess.run(
                [*command, json.dumps(shape)], capture_output=True, text=True, check=True
            )
            found[name] = json.loads(done.stdout.splitlines()[-1])
        for number, table in enumerate((one, ten)):
            table.add(shape, {name: values[number] for name, values in found.items()})
    for table in (one, ten):
        best = [min(row["keras graph"], row["keras XLA"]) for row in table.rows]
        table.note("keras.layers, its better mode", best)
    report("memory", [one, ten])


if __name__ == "__main__":
    main()
