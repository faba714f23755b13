"""Measure how the time of a training step grows with rows, steps, units and processes on JAX.

    python -m benchmarks.scaling             # one process, then 1, 2, 4 … up to the cores
    python -m benchmarks.scaling --processes 2

The model is one LSTM layer and V, with the layers and batch distribution used in training. The
global batch does not depend on the number of processes, so one table shows both the gain and the
cost of exchanging gradients.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time

#: Rows, steps and units: one is varied while the others keep their middle value.
BASE = {"rows": 64, "steps": 64, "units": 64}
GRID = {"rows": [16, 64, 256], "steps": [16, 64, 256], "units": [16, 64, 256]}
CLASSES = 16


def parameters(units: int) -> int:
    """Return the parameters of V and an LSTM with as many inputs as units."""
    return 4 * units * (2 * units + 1) + (units + 1) * CLASSES


def step_ms(shape: dict[str, int], count: int) -> float:
    """Return the milliseconds of a training step (fastest of three passes of ``count`` steps)."""
    import keras
    import numpy as np

    from layers import LSTM

    processes = keras.distribution.distribution()
    share = shape["rows"] // (processes.num_processes if processes else 1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(share, shape["steps"], shape["units"])).astype(np.float32)
    y = rng.integers(0, CLASSES, share)

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            return x, y

    keras.utils.set_random_seed(1)
    inputs = keras.Input((None, shape["units"]))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(LSTM(shape["units"])(inputs)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(Batches(), verbose=0)
    passes = []
    for _ in range(3):
        started = time.perf_counter()
        model.fit(Batches(), verbose=0)
        passes.append((time.perf_counter() - started) / count * 1e3)
    return min(passes)


def grid() -> None:
    for name, values in GRID.items():
        for value in values:
            shape = BASE | {name: value}
            print(json.dumps(shape | {"ms": round(step_ms(shape, 20), 2)}), flush=True)


def worker(coordinator: str, processes: int, number: int, shape: dict[str, int]) -> None:
    cores = sorted(os.sched_getaffinity(0))
    each = max(1, len(cores) // processes)
    os.sched_setaffinity(0, cores[number * each % len(cores) :][:each])
    import keras

    if processes > 1:
        keras.distribution.initialize(coordinator, processes, number)
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )
    ms = step_ms(shape, 20)
    if number == 0:
        found = shape | {"processes": processes, "cores_each": each, "ms": round(ms, 2)}
        sent = 4 * parameters(shape["units"])
        print(json.dumps(found | {"gradient_kB": round(sent / 1e3, 1)}), flush=True)


def together(processes: int, shape: dict[str, int]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "benchmarks.scaling", "--processes", str(processes)]
    command += ["--coordinator", address, "--shape", json.dumps(shape), "--process-id"]
    running = [subprocess.Popen([*command, str(number)]) for number in range(processes)]
    codes = [process.wait() for process in running]
    if any(codes):
        sys.exit("a process failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int)
    parser.add_argument("--coordinator")
    parser.add_argument("--process-id", type=int)
    parser.add_argument("--shape", type=json.loads, default=BASE | {"rows": 256})
    args = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "jax")
    if args.coordinator:
        worker(args.coordinator, args.processes, args.process_id, args.shape)
    elif args.processes:
        together(args.processes, args.shape)
    else:
        grid()
        processes = 1
        while processes <= len(os.sched_getaffinity(0)):
            for units in (64, 256):
                together(processes, args.shape | {"units": units})
            processes *= 2


if __name__ == "__main__":
    main()
