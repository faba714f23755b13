"""The sentiment task, assembled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipelines import training
from pipelines.batches import BucketFeed, Buckets
from pipelines.export import Endpoint
from pipelines.sentiment import evaluation, records
from pipelines.sentiment import model as models
from pipelines.sentiment.config import SentimentConfig
from pipelines.sentiment.processor import TextClasses
from pipelines.tasks import Evaluation, Prediction, Splits, Table, Task
from pipelines.text import Ragged

#: Texts that are answered after every epoch.
_EXAMPLES = 5


class Sentiment(Task):
    """Which class a text belongs to; any number of classes."""

    name = "sentiment"
    config = SentimentConfig

    def load(self, config: SentimentConfig) -> Splits:
        return records.load(config)

    def prepare(self, config: SentimentConfig, splits: Splits) -> TextClasses:
        texts = [r.text for r in splits.train]
        return TextClasses.fit(config.text, texts, records.labels_of(splits.train))

    def load_processor(self, folder: Path) -> TextClasses:
        return TextClasses.load(folder)

    def build(self, config: SentimentConfig, processor: TextClasses) -> keras.Model:
        return models.build(
            config.model,
            vocabulary=processor.tokenizer.size,
            classes=len(processor.labels),
            seed=config.seed,
        )

    def objective(self, config: SentimentConfig) -> training.Objective:
        return training.Objective(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=lambda: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            monitor="val_accuracy",
            higher_is_better=True,
        )

    def feed(self, config: SentimentConfig, processor: TextClasses, splits: Splits) -> BucketFeed:
        train, validation = (
            (processor.encode([r.text for r in part]), processor.numbers([r.label for r in part]))
            for part in (splits.train, splits.validation)
        )
        return BucketFeed(config.train, train, validation, seed=config.seed)

    def examples(
        self,
        config: SentimentConfig,
        processor: TextClasses,
        model: keras.Model,
        splits: Splits,
    ) -> Callable[[], Table]:
        some = splits.validation[:_EXAMPLES]
        rows = processor.encode([r.text for r in some])

        def answer() -> Table:
            found = probabilities(model, rows, config)
            return Table(
                ["text", "true", "predicted", "confidence"],
                [
                    [r.text[:200], r.label, processor.labels[p.argmax()], round(float(p.max()), 4)]
                    for r, p in zip(some, found, strict=True)
                ],
            )

        return answer

    def evaluate(
        self,
        config: SentimentConfig,
        processor: TextClasses,
        model: keras.Model,
        served: Any,
        splits: Splits,
    ) -> Evaluation:
        rows = processor.encode([r.text for r in splits.test])
        truth = processor.numbers([r.label for r in splits.test])
        return evaluation.evaluate(
            splits.test, truth, probabilities(model, rows, config), processor.labels
        )

    def endpoints(
        self, config: SentimentConfig, processor: TextClasses, model: keras.Model
    ) -> dict[str, Endpoint]:
        labels = tf.constant(processor.labels)

        def classify(text: tf.Tensor) -> dict[str, tf.Tensor]:
            logits = model(processor.tokenizer.padded(text), training=False)
            scores = tf.nn.softmax(logits)
            return {
                "label": tf.gather(labels, tf.argmax(scores, axis=-1)),
                "score": tf.reduce_max(scores, axis=-1),
                "probabilities": scores,
            }

        def classes() -> dict[str, tf.Tensor]:
            return {"labels": labels}

        text = tf.TensorSpec([None], tf.string, name="text")
        return {
            "serving_default": Endpoint(classify, {"text": text}),
            "labels": Endpoint(classes, {}),
        }

    def predict(self, config: SentimentConfig, served: Any, text: str) -> Prediction:
        answer = served.signatures["serving_default"](text=tf.constant([text]))
        labels = [raw.decode() for raw in served.signatures["labels"]()["labels"].numpy()]
        scores = answer["probabilities"].numpy()[0]
        ranked = sorted(zip(labels, map(float, scores), strict=True), key=lambda pair: -pair[1])
        return Prediction(
            title=text if len(text) <= 70 else text[:69] + "…",
            columns=["label", "probability"],
            rows=[[label, f"{score:.1%}"] for label, score in ranked],
            json={
                "text": text,
                "label": answer["label"].numpy()[0].decode(),
                "score": float(answer["score"].numpy()[0]),
                "probabilities": dict(ranked),
            },
        )


def probabilities(model: keras.Model, rows: Ragged, config: SentimentConfig) -> np.ndarray:
    """Class probabilities ``<float64>[len(rows), classes]``, in the order of ``rows``."""
    out = np.zeros((len(rows), model.output_shape[-1]))
    order = np.arange(len(rows))
    for ids, which in Buckets.of(config.train, rows.lengths).batches(rows, order, order):
        logits = np.asarray(model.predict_on_batch(ids.numpy()), np.float64)
        exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
        out[which.numpy()] = exp / exp.sum(axis=-1, keepdims=True)
    return out


TASK = Sentiment()
