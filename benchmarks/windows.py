"""Compare full and truncated backpropagation through time by window length.

    python -m benchmarks.windows

Train the default config of generation with fewer units, in one process per window; report seconds
per epoch, the growth of the process, and the validation loss after a few epochs. A shorter window
means more updates. Gradients flow back at most one window; the state is kept across windows.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

DEFAULT = Path(__file__).parents[1] / "configs/generation/default.yaml"
WINDOWS = [8, 32, 128, 512]
EPOCHS = 2


def trained(window):
    """Return seconds per epoch, MB and nats per character, in this process."""
    import keras

    from pipelines.engine.config import loader as configs
    from pipelines.engine.core.console import Console
    from pipelines.engine.training import loop
    from pipelines.generation.task import TASK

    settings = [f"train.window={window}", f"train.epochs={EPOCHS}", "model.units=[256]"]
    config = configs.load(DEFAULT, TASK.config, settings)
    splits = TASK.load(config)
    processor = TASK.fit_processor(config, splits)
    keras.utils.set_random_seed(config.seed)
    model = TASK.build(config, processor)
    feed = TASK.feed(config, processor, splits)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        state = loop.fit(
            model,
            feed,
            TASK.objective(config, processor),
            config.train,
            folder=Path(folder),
            console=Console(),
        )
    last = state.history[-1]
    return {
        "updates an epoch": feed.steps,
        "seconds an epoch": last["epoch_seconds"],
        "MB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "validation loss": last["val_cross_entropy"],
        "padding": last["padding_share"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(trained(options.one)))
        return
    from benchmarks.measure import Table, report

    table = Table(f"LSTM 256 on tunes, {EPOCHS} epochs, by window", WINDOWS)
    started = time.perf_counter()
    for window in WINDOWS:
        command = [sys.executable, "-m", "benchmarks.windows", "--one", str(window)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        table.add(window, json.loads(done.stdout.splitlines()[-1]))
    print(f"{time.perf_counter() - started:.0f} s in all")
    report("windows", [table])


if __name__ == "__main__":
    main()
