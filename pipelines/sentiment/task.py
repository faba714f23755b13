"""The sentiment pipeline."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from layers.recorder import Recorder
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.tables import Table
from pipelines.engine.core.wording import listed
from pipelines.engine.data import disk
from pipelines.engine.data.bucketing import Buckets
from pipelines.engine.data.ragged import PADDING, Ragged
from pipelines.engine.data.splits import Splits
from pipelines.engine.explain.explanation import Explanation, Segment
from pipelines.engine.export import stateful
from pipelines.engine.export.savedmodel import Endpoint
from pipelines.engine.tasks.base import EXAMPLES, Evaluation, Prediction, Task, shorten
from pipelines.engine.text.coverage import coverage
from pipelines.engine.text.vocabulary import UNKNOWN
from pipelines.engine.training import loop
from pipelines.engine.training.losses import ClassCrossentropy
from pipelines.sentiment import evaluation, records
from pipelines.sentiment import model as models
from pipelines.sentiment.config import SentimentConfig
from pipelines.sentiment.processor import TextClasses
from pipelines.sentiment.records import LabelledText

#: Classes whose probability is drawn as a text is read.
_CURVES = 6
#: Beginnings of a text that are answered, at most.
_BEGINNINGS = 400
#: Characters of a text that is explained in every run, if there are such.
_SHORT = 400
#: Classes with fewer training texts are named among the limits.
_RARE = 50


class Sentiment(Task):
    """Which class a text belongs to; any number of classes."""

    name = "sentiment"
    config = SentimentConfig
    processor = TextClasses

    def load(self, config: SentimentConfig) -> Splits:
        return records.load(config)

    def fit_processor(self, config: SentimentConfig, splits: Splits) -> TextClasses:
        texts = disk.map_records(lambda r: r.text, splits.train)
        return TextClasses.fit(config.text, texts, records.labels_of(splits.train))

    def build(self, config: SentimentConfig, processor: TextClasses) -> keras.Model:
        return models.build(
            config.model,
            vocabulary=processor.tokenizer.size,
            classes=len(processor.labels),
            seed=config.seed,
        )

    def objective(self, config: SentimentConfig) -> loop.Objective:
        return loop.Objective(
            loss=ClassCrossentropy(),
            metrics=lambda: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            monitor="val_accuracy",
            higher_is_better=True,
        )

    def encode(
        self, processor: TextClasses, records: Sequence[LabelledText]
    ) -> tuple[Ragged, np.ndarray]:
        texts = disk.map_records(lambda r: r.text, records)
        labels = disk.map_records(lambda r: r.label, records)
        return processor.encode(texts), processor.numbers(labels)

    def examples(
        self,
        config: SentimentConfig,
        processor: TextClasses,
        model: keras.Model,
        splits: Splits,
    ) -> Callable[[], Table]:
        some = splits.validation[:EXAMPLES]
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
        rows, truth = self.encode(processor, splits.test)
        found = evaluation.evaluate(
            splits.test, truth, probabilities(model, rows, config), processor.labels
        )
        if counts := splits.report.get("labels"):  # of the training split
            most_frequent = processor.numbers([max(counts, key=counts.__getitem__)])
            found.baselines["most_frequent_class"] = float((truth == most_frequent).mean())
        return found

    def limits(self, config: SentimentConfig, processor: TextClasses, splits: Splits) -> list[str]:
        rows, _ = self.encode(processor, splits.test)
        found = [coverage(processor.tokenizer, rows, "word", "test texts")]
        if longest := config.text.max_tokens:
            cut = float((rows.lengths >= longest).mean())
            found.append(
                f"It reads {longest:,} words of a text at most: {cut:.1%} of the test texts have "
                f"as many or more (text.keep: {config.text.keep})."
            )
        counts = splits.report.get("labels", {})
        rare = sorted((n, label) for label, n in counts.items() if n < _RARE)
        if rare:
            shown = listed([f"{label} ({n:,})" for n, label in rare])
            found.append(f"Classes with fewer than {_RARE} training texts: {shown}.")
        return found

    def endpoints(
        self, config: SentimentConfig, processor: TextClasses, model: keras.Model
    ) -> dict[str, Endpoint]:
        labels, tokenizer = tf.constant(processor.labels), processor.tokenizer

        def answer(logits: tf.Tensor) -> dict[str, tf.Tensor]:
            scores = tf.nn.softmax(logits)
            return {
                "label": tf.gather(labels, tf.argmax(scores, axis=-1)),
                "score": tf.reduce_max(scores, axis=-1),
                "probabilities": scores,
            }

        def classify(text: tf.Tensor) -> dict[str, tf.Tensor]:
            return answer(model(tokenizer.padded(text), training=False))

        def classes() -> dict[str, tf.Tensor]:
            return {"labels": labels}

        def start() -> stateful.State:
            none = tf.constant([0])
            _, state = stateful.read_on(model, tf.fill([1, 1], PADDING), None)
            return {**state, "words": none, "open": tf.constant([""])}

        def step(
            given: dict[str, tf.Tensor], state: stateful.State
        ) -> tuple[dict[str, tf.Tensor], stateful.State]:
            settled, open_ = tokenizer.split_pending(state["open"] + given["text"])
            (ids, end), (words, _) = tokenizer.encode_continuations(
                [settled, open_], state["words"]
            )
            logits, after = stateful.read_on(model, ids, state)
            # The end is read as if no more came, and read again with what does come.
            logits = tf.cond(
                tf.reduce_any(end != PADDING),
                lambda: stateful.read_on(model, end, after)[0],
                lambda: logits,
            )
            return answer(logits), {**after, "words": words, "open": open_}

        text = tf.TensorSpec([None], tf.string, name="text")
        found = {
            "serving_default": Endpoint(classify, {"text": text}),
            "labels": Endpoint(classes, {}),
        }
        if config.model.bidirectional:
            return found  # it reads from the end as well
        return found | stateful.endpoints(start, step, {"text": text})

    def request(self, config: SentimentConfig, example: LabelledText | str) -> dict[str, tf.Tensor]:
        text = example if isinstance(example, str) else example.text
        return {"text": tf.constant([text])}

    def present(
        self, config: SentimentConfig, example: str, answer: dict[str, Any], served: Any
    ) -> Prediction:
        labels = [raw.decode() for raw in served.signatures["labels"]()["labels"].numpy()]
        scores = map(float, answer["probabilities"])
        ranked = sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])
        return Prediction(
            title=shorten(example),
            columns=["label", "probability"],
            rows=[[label, f"{score:.1%}"] for label, score in ranked],
            json={
                "text": example,
                "label": answer["label"].decode(),
                "score": float(answer["score"]),
                "probabilities": dict(ranked),
            },
        )

    def explanation_examples(
        self, config: SentimentConfig, splits: Splits, count: int
    ) -> list[str]:
        # Short ones are read at a glance.
        texts = (r.text for r in splits.test)
        return heapq.nsmallest(count, texts, key=lambda text: len(text) > _SHORT)

    def explain(
        self, config: SentimentConfig, processor: TextClasses, model: keras.Model, given: str
    ) -> Explanation:
        text = tf.constant([given.encode("utf-8", errors="replace")])
        words = [w.decode() for w in processor.tokenizer.words(text).values.numpy()]
        ids = processor.tokenizer(text).values.numpy()
        if not words:
            raise UserError(f"{given!r}: no word in it")
        with Recorder().recording() as recorder:
            model(ids[None], training=False)
        # What the model would answer if the text ended at each word; of very many, at some.
        every = -(-len(ids) // _BEGINNINGS)
        lengths = np.arange((len(ids) - 1) % every + 1, len(ids) + 1, every)
        begun = Ragged(np.concatenate([ids[:n] for n in lengths]), lengths)
        answers = probabilities(model, begun, config)
        so_far = np.full((len(ids), answers.shape[1]), np.nan)
        so_far[lengths - 1] = answers
        ranked = np.argsort(-so_far[-1], kind="stable")
        best = ranked[0]
        return Explanation(
            input=given,
            answer=f"{processor.labels[best]} ({so_far[-1, best]:.1%})",
            segments=[
                Segment(
                    name="reads",
                    description="Each step reads one word. The curves show the answer if the text "
                    "ended there.",
                    tokens=words,
                    recorder=recorder,
                    curves={processor.labels[c]: so_far[:, c] for c in ranked[:_CURVES]},
                    details=["unknown to the model" if i == UNKNOWN else "" for i in ids],
                )
            ],
        )


def probabilities(model: keras.Model, rows: Ragged, config: SentimentConfig) -> np.ndarray:
    """Class probabilities ``<float64>[len(rows), classes]``, in the order of ``rows``."""
    out = np.zeros((len(rows), model.output_shape[-1]))
    order = np.arange(len(rows))
    for ids, which in Buckets.from_config(config.train, rows.lengths).batches(rows, order, order):
        logits = np.asarray(model.predict_on_batch(ids.numpy()), np.float64)
        out[which.numpy()] = softmax(logits, axis=-1)
    return out


TASK = Sentiment()
