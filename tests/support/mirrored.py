"""Trains the same small models on one device and on two, and prints how far apart they end.

A process of its own: the processor is made to look like two devices before anything uses it.
"""

# ruff: noqa: E402
import json
import sys
from pathlib import Path

import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import numpy as np

from layers import GRU
from pipelines.engine.config.schema import TrainConfig
from pipelines.engine.core.console import Console
from pipelines.engine.training import loop, losses
from pipelines.engine.training.distribution import Mirrored, SingleDevice
from pipelines.sentiment.config import SentimentModelConfig
from pipelines.sentiment.model import build


class Feed:
    """Rows of unequal length in batches of 5, of which the last one has 2."""

    tokens = padded_tokens = 60
    steps = 4

    def __init__(self, of_tokens: bool) -> None:
        rng = np.random.default_rng(0)
        lengths = rng.integers(1, 7, 17)
        ids = rng.integers(2, 10, (17, 6)) * (np.arange(6) < lengths[:, None])
        self.inputs = ids.astype(np.int32)
        self.targets = self.inputs if of_tokens else (ids[:, 0] > 5).astype(np.int32)

    def train(self, epoch: int) -> tf.data.Dataset:
        order = np.random.default_rng(epoch).permutation(17)
        data = tf.data.Dataset.from_tensor_slices((self.inputs[order], self.targets[order]))
        return data.batch(5)

    def validation(self) -> tf.data.Dataset:
        return self.train(0)


def tagger() -> keras.Model:
    """The logits of each token, of which the padded ones do not count."""
    ids = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(10, 4, embeddings_initializer=uniform(1))(ids)
    gru = GRU(
        5, kernel_initializer=uniform(2), recurrent_initializer=uniform(3), return_sequences=True
    )
    x = gru(x, mask=keras.ops.not_equal(ids, 0))
    return keras.Model(ids, keras.layers.Dense(10, kernel_initializer=uniform(4))(x))


def uniform(seed: int) -> keras.initializers.Initializer:
    return keras.initializers.RandomUniform(-0.5, 0.5, seed=seed)


def classifier() -> keras.Model:
    config = SentimentModelConfig(
        cell="lstm", units=[4], embedding=4, token_dropout=0, embedding_dropout=0, dropout=0
    )
    return build(config, vocabulary=10, classes=2, seed=1)


def classes() -> loop.Objective:
    return loop.Objective(
        loss=losses.ClassCrossentropy(),
        metrics=lambda: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        monitor="val_accuracy",
        higher_is_better=True,
    )


def weighted_classes() -> loop.Objective:
    weights = [0.2, 3.0]
    return loop.Objective(
        loss=losses.ClassCrossentropy(weights),
        metrics=lambda: [losses.WeightedAccuracy(weights)],
        monitor="val_weighted_accuracy",
        higher_is_better=True,
    )


def main(folder: Path) -> None:
    found = {}
    for name, make, objective in (
        ("classes", classifier, classes()),
        ("weighted classes", classifier, weighted_classes()),
        ("tokens", tagger, losses.next_token()),
    ):
        ended = []
        for strategy in (SingleDevice(), Mirrored()):
            assert strategy.device_count == 1 + len(ended)
            keras.utils.set_random_seed(1)
            with strategy.scope():
                model = make()
            evaluation_model = strategy.evaluation_model(model, make)
            state = loop.fit(
                model, Feed(name == "tokens"), objective,
                TrainConfig(
                    epochs=2, batch_size=5, learning_rate=0.5, clip_norm=0.05, optimizer="momentum"
                ),
                folder=folder / name / str(strategy.device_count), console=Console(),
                strategy=strategy, evaluation_model=evaluation_model,
            )  # fmt: skip
            # Keras weights the loss that is shown by rows, those without weight included.
            kept = {
                k: v for k, v in state.history[-1].items() if not k.endswith(("loss", "_second"))
            }
            del kept["epoch_seconds"]
            ended.append((evaluation_model.get_weights(), kept))
        (one, of_one), (two, of_two) = ended
        found[name] = {
            "weights": max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True)),
            "record": max(abs(of_one[k] - of_two[k]) for k in of_one),
            "clipped": of_two["health/clipped_share"],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
