"""Run the torch part of `benchmarks.imdb_epoch`: seconds of an epoch and accuracy after it."""

import json
import os
import sys
import time

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Model(torch.nn.Module):
    def __init__(self, vocabulary, embedding, units):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, embedding)
        torch.nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        self.lstm = torch.nn.LSTM(embedding, units, batch_first=True, bidirectional=True)
        self.out = torch.nn.Linear(2 * units, 2)

    def forward(self, ids, lengths):
        packed = pack_padded_sequence(
            self.embedding(ids), lengths, batch_first=True, enforce_sorted=False
        )
        hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, padding_value=-1e4)
        return self.out(hidden.max(dim=1).values)


def batches(values, lengths, labels, order, size):
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    for first in range(0, len(order), size):
        some = order[first : first + size]
        real = np.maximum(lengths[some], 1)
        ids = np.zeros((len(some), real.max()), np.int64)
        for place, i in enumerate(some):
            ids[place, : lengths[i]] = values[starts[i] : starts[i] + lengths[i]]
        yield (
            torch.from_numpy(ids),
            torch.from_numpy(real),
            torch.from_numpy(labels[some].astype(np.int64)),
        )


def main(path, vocabulary, embedding, units, size):
    torch.manual_seed(1)
    torch.set_num_threads(os.cpu_count())
    data = np.load(path)
    train = [data[f"train_{name}"] for name in ("values", "lengths", "labels")]
    test = [data[f"test_{name}"] for name in ("values", "lengths", "labels")]
    model = Model(vocabulary, embedding, units)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step(ids, lengths, labels):
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(ids, lengths), labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    # Batches of similar length in random order, as in the suite.
    order = np.random.default_rng(1).permutation(len(train[1]))
    chunks = np.array_split(order, max(1, len(order) // (50 * size)))
    order = np.concatenate([c[np.argsort(train[1][c], kind="stable")] for c in chunks])
    started = time.perf_counter()
    for batch in batches(*train, order, size):
        step(*batch)
    seconds = time.perf_counter() - started
    right = 0
    with torch.inference_mode():
        for ids, lengths, labels in batches(*test, np.argsort(test[1]), size):
            right += int((model(ids, lengths).argmax(-1) == labels).sum())
    print(json.dumps([seconds, right / len(test[1])]))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
