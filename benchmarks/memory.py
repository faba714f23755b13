"""Peak memory of LSTM training steps: what a fresh process needs beyond its start-up.

    python -m benchmarks.memory

One process for each shape and contender: ten training steps, and how far the largest resident
set grew since the inputs were there.
"""

import argparse
import json
import os
import resource
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

CONTENDERS = ("unfold", "keras graph")


def grown(name, shape):
    """Megabytes, in this process."""
    import keras

    import layers
    from benchmarks.layers import inputs_of, of_keras

    x, upstream, _ = inputs_of(shape, ragged=False)
    module = layers if name == "unfold" else keras.layers
    # A small layer first, so that what every process needs once is not counted.
    small = (8, 4, 4, 4)
    step, convert = of_keras(module, "LSTM", small, None, train=True)
    step(*(convert(a) for a in inputs_of(small, ragged=False)[:2]))
    step, convert = of_keras(module, "LSTM", shape, None, train=True)
    x, upstream = convert(x), convert(upstream)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10):
        step(x, upstream)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(grown(options.one[0], tuple(json.loads(options.one[1])))))
        return
    from benchmarks.layers import SHAPES
    from benchmarks.measure import Table, report

    table = Table("LSTM, ten training steps: growth of the process, MB", SHAPES)
    for shape in SHAPES:
        row = {}
        for name in CONTENDERS:
            command = [sys.executable, "-m", "benchmarks.memory", "--one", name]
            done = subprocess.run(
                [*command, json.dumps(shape)], capture_output=True, text=True, check=True
            )
            row[name] = json.loads(done.stdout.splitlines()[-1])
        table.add(shape, row)
    table.note("keras.layers", [row["keras graph"] for row in table.rows])
    report("memory", [table])


if __name__ == "__main__":
    main()
