"""One epoch of the same sentiment model, trained three ways on the same 22,500 IMDb reviews.

    python -m benchmarks.imdb_epoch

Embedding 100 → bidirectional LSTM 64 → maximum over the valid steps → two classes; 400 tokens of
a review at most, batches of 32, Adam at 1e-3.

- unfold: this suite's layers and batches of like length;
- keras, padded: ``keras.layers`` on reviews padded to 400 tokens with a mask, as tutorials have it;
- torch, packed: ``torch.nn.LSTM`` on packed sequences, where torch is installed.

Each is compiled and warm before its epoch is timed. Accuracy is on 2,500 reviews held out.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf

import layers
from benchmarks.measure import Table, report
from pipelines import config as configs
from pipelines.batches import Buckets, shuffled
from pipelines.models import ValidPool
from pipelines.sentiment.task import TASK
from pipelines.text import Ragged

DEFAULT = Path(__file__).parents[1] / "configs/sentiment/default.yaml"
VOCABULARY, EMBEDDING, UNITS, TOKENS, BATCH, BUCKETS = 20_000, 100, 64, 400, 32, 12


def load():
    """The reviews of the default config as ids, training and held out."""
    # No validation split is needed, and none is allowed to be empty.
    overrides = [
        f"text.vocabulary={VOCABULARY}",
        f"text.max_tokens={TOKENS}",
        "data.validation=0.01",
    ]
    config = configs.load(DEFAULT, TASK.config, overrides)
    splits = TASK.load(config)
    processor = TASK.prepare(config, splits)
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
    """Seconds of one epoch, compiled before and from the first weights on, and the accuracy."""
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
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    torch.manual_seed(1)
    torch.set_num_threads(os.cpu_count())

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(VOCABULARY, EMBEDDING)
            torch.nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
            self.lstm = torch.nn.LSTM(EMBEDDING, UNITS, batch_first=True, bidirectional=True)
            self.out = torch.nn.Linear(2 * UNITS, 2)

        def forward(self, ids, lengths):
            packed = pack_padded_sequence(
                self.embedding(ids), lengths, batch_first=True, enforce_sorted=False
            )
            hidden, _ = pad_packed_sequence(
                self.lstm(packed)[0], batch_first=True, padding_value=-1e4
            )
            return self.out(hidden.max(dim=1).values)

    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def batches(rows, labels, order):
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            lengths = np.maximum(rows.lengths[some], 1)
            ids = np.zeros((len(some), lengths.max()), np.int64)
            for place, i in enumerate(some):
                ids[place, : rows.lengths[i]] = rows[i]
            yield (
                torch.from_numpy(ids),
                torch.from_numpy(lengths),
                torch.from_numpy(labels[some].astype(np.int64)),
            )

    def by_length(order):
        """Batches of like length in random order, as the suite's are."""
        chunks = np.array_split(order, max(1, len(order) // (50 * BATCH)))
        chunks = [c[np.argsort(train[0].lengths[c], kind="stable")] for c in chunks]
        return np.concatenate(chunks)

    def step(ids, lengths, labels):
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(ids, lengths), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    order = by_length(shuffled(len(train[0]), seed=1, epoch=0))
    started = time.perf_counter()
    for batch in batches(*train, order):
        step(*batch)
    seconds = time.perf_counter() - started
    with torch.inference_mode():
        right = sum(
            int((model(ids, lengths).argmax(-1) == labels).sum())
            for ids, lengths, labels in batches(*test, np.argsort(test[0].lengths))
        )
    return seconds, right / len(test[0])


def main():
    train, test = load()
    if sys.argv[1:] == ["--torch"]:
        print(json.dumps(torch_packed(train, test)))
        return
    ways = {"unfold": unfold, "keras, padded": keras_padded}
    results = {name: way(train, test) for name, way in ways.items()}
    if importlib.util.find_spec("torch"):
        # In a process of its own: torch and XLA each bring an LLVM, and a process stands one.
        command = [sys.executable, "-m", "benchmarks.imdb_epoch", "--torch"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results["torch, packed"] = json.loads(done.stdout.splitlines()[-1])
    table = Table("IMDb, one epoch of 22,500 reviews: seconds, and accuracy after it", ["seconds"])
    table.add("seconds", {name: seconds for name, (seconds, _) in results.items()})
    table.keys.append("accuracy")
    table.rows.append({name: accuracy for name, (_, accuracy) in results.items()})
    report("imdb_epoch", [table])


if __name__ == "__main__":
    main()
