"""Compare three implementations of one epoch of a sentiment model on 22,500 IMDb reviews.

    python -m benchmarks.imdb_epoch

Embedding 100 → bidirectional LSTM 64 → maximum over the valid steps → two classes; at most 400
tokens per review, batches of 32, Adam with learning rate 1e-3.

- unfold: this suite's layers and batches of similar length;
- keras, padded: ``keras.layers`` on reviews padded to 400 tokens with a mask, as in tutorials;
- torch, packed: ``torch.nn.LSTM`` on packed sequences, if torch is installed.

Each implementation is compiled and warmed up before its epoch is timed. The result is the better of
two interleaved rounds. Accuracy is on 2,500 held-out reviews.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf

import layers
from benchmarks.measure import Table, report
from pipelines.engine.config import loader as configs
from pipelines.engine.data.bucketing import Buckets, shuffled
from pipelines.engine.data.ragged import Ragged
from pipelines.engine.models.blocks import ValidPool
from pipelines.engine.training import loop
from pipelines.sentiment.task import TASK

DEFAULT = Path(__file__).parents[1] / "configs/sentiment/default.yaml"
VOCABULARY, EMBEDDING, UNITS, TOKENS, BATCH, BUCKETS = 20_000, 100, 64, 400, 32, 12
ROUNDS = 2


def load():
    """Return the reviews of the default config as ids: training and held-out."""
    # No validation split is needed, and none is allowed to be empty.
    overrides = [
        f"text.vocabulary={VOCABULARY}",
        f"text.max_tokens={TOKENS}",
        "data.validation=0.01",
    ]
    config = configs.load(DEFAULT, TASK.config, overrides)
    splits = TASK.load(config)
    processor = TASK.fit_processor(config, splits)
    return [
        (processor.encode([r.text for r in part]), processor.numbers([r.label for r in part]))
        for part in (splits.train, splits.test)
    ]


def keras_model(module):
    keras.utils.set_random_seed(1)
    ids = keras.Input((None,), dtype="int32")
    valid = keras.ops.not_equal(ids, 0)
    x = keras.layers.Embedding(VOCABULARY, EMBEDDING)(ids)
    x = module.Bidirectional(module.LSTM(UNITS, return_sequences=True))(x, mask=valid)
    model = keras.Model(ids, keras.layers.Dense(2)(ValidPool(["max"])(x, valid)))
    model.compile(
        keras.optimizers.Adam(1e-3, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def padded(rows: Ragged) -> np.ndarray:
    out = np.zeros((len(rows), TOKENS), np.int32)
    for i in range(len(rows)):
        out[i, : rows.lengths[i]] = rows[i]
    return out


def timed_fit(model, warm, data, held_out):
    """Return the seconds of one epoch (compiled, from the initial weights) and the accuracy."""
    warm, data, held_out = (loop.without_autotune(d) for d in (warm, data, held_out))
    start = model.get_weights()
    model.fit(warm, verbose=0)
    model.set_weights(start)
    for variable in model.optimizer.variables:
        if "learning_rate" not in variable.path:
            variable.assign(keras.ops.zeros_like(variable))
    started = time.perf_counter()
    model.fit(data, verbose=0)
    seconds = time.perf_counter() - started
    return seconds, model.evaluate(held_out, verbose=0, return_dict=True)["accuracy"]


def unfold(train, test):
    rows, labels = train
    buckets = Buckets.fit(rows.lengths, buckets=BUCKETS, batch_size=BATCH)
    data = buckets.batches(rows, labels, shuffled(len(rows), seed=1, epoch=0))
    # A batch of each shape, so that everything is compiled.
    order = np.argsort(rows.lengths, kind="stable")
    places = np.searchsorted(buckets.edges, rows.lengths[order])
    warm = np.concatenate([order[places == p][:BATCH] for p in range(len(buckets.edges))])
    held_out = Buckets.fit(test[0].lengths, buckets=BUCKETS, batch_size=BATCH).batches(
        *test, np.arange(len(test[0]))
    )
    return timed_fit(keras_model(layers), buckets.batches(rows, labels, warm), data, held_out)


def keras_padded(train, test):
    order = shuffled(len(train[0]), seed=1, epoch=0)
    x, y = padded(train[0])[order], train[1][order]
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).prefetch(4)
    held_out = tf.data.Dataset.from_tensor_slices((padded(test[0]), test[1])).batch(BATCH)
    return timed_fit(keras_model(keras.layers), data.take(3), data, held_out)


def torch_packed(train, test):
    """Run torch in a process without TensorFlow: its compiler and XLA's cannot share one."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        arrays = {}
        for part, (rows, labels) in {"train": train, "test": test}.items():
            arrays |= {f"{part}_values": rows.values, f"{part}_lengths": rows.lengths}
            arrays[f"{part}_labels"] = labels
        np.savez(data, **arrays)
        sizes = [str(n) for n in (VOCABULARY, EMBEDDING, UNITS, BATCH)]
        command = [sys.executable, "-m", "benchmarks.torch_epoch", str(data), *sizes]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    train, test = load()
    ways = {"unfold": unfold, "keras, padded": keras_padded}
    if importlib.util.find_spec("torch"):
        ways["torch, packed"] = torch_packed
    rounds = [{name: way(train, test) for name, way in ways.items()} for _ in range(ROUNDS)]
    table = Table("IMDb, one epoch of 22,500 reviews: seconds, and accuracy after it", ["seconds"])
    table.add("seconds", {name: min(found[name][0] for found in rounds) for name in ways})
    table.keys.append("accuracy")
    table.rows.append({name: rounds[0][name][1] for name in ways})
    report("imdb_epoch", [table])


if __name__ == "__main__":
    main()
