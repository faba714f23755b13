"""The sentiment pipeline."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

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
from pipelines.engine.export.digest import Measure
from pipelines.engine.export.savedmodel import Endpoint
from pipelines.engine.tasks.base import EXAMPLES, Evaluation, Prediction, Task
from pipelines.engine.tasks.comparable import Feature
from pipelines.engine.text.coverage import coverage
from pipelines.engine.text.vocabulary import UNKNOWN
from pipelines.engine.training import loop
from pipelines.sentiment import features, records
from pipelines.sentiment import model as models
from pipelines.sentiment.calibration import calibrated, calibration_of, learn_temperature
from pipelines.sentiment.config import SentimentConfig
from pipelines.sentiment.labelling import Labelling
from pipelines.sentiment.multi_label import MultiLabel
from pipelines.sentiment.processor import TextClasses, weigh_classes
from pipelines.sentiment.records import Record
from pipelines.sentiment.single_label import SingleLabel

#: Classes whose probability is drawn as a text is read.
_CURVES = 6
#: Beginnings of a text that are answered, at most.
_BEGINNINGS = 400
#: Characters of a text that is explained in every run, if there are such.
_SHORT = 400
#: Classes with fewer training texts are named among the limits.
_RARE = 50


class Sentiment(Task):
    """Which class a text belongs to, or which labels it has; any number of either."""

    name = "sentiment"
    config = SentimentConfig
    processor = TextClasses

    def load(self, config: SentimentConfig) -> Splits:
        return records.load(config)

    def fit_processor(self, config: SentimentConfig, splits: Splits) -> TextClasses:
        labels = records.labels_of(splits.train)
        counts = Counter(label for r in splits.train for label in r.labels)
        weights = weigh_classes(config.train.class_weights, labels, counts)
        texts = disk.map_records(lambda r: r.text, splits.train)
        return TextClasses.fit(config.text, texts, labels, weights, config.data.multi_label)

    def build(self, config: SentimentConfig, processor: TextClasses) -> keras.Model:
        return models.build(
            config.model,
            vocabulary=processor.tokenizer.size,
            classes=len(processor.labels),
            seed=config.seed,
        )

    def objective(self, config: SentimentConfig, processor: TextClasses) -> loop.Objective:
        return labelling(config).objective(processor)

    def encode(
        self, processor: TextClasses, records: Sequence[Record]
    ) -> tuple[Ragged, np.ndarray | Ragged]:
        texts = disk.map_records(lambda r: r.text, records)
        return processor.encode(texts), processor.targets(records)

    def calibrate(
        self,
        config: SentimentConfig,
        processor: TextClasses,
        model: keras.Model,
        splits: Splits,
    ) -> keras.Model:
        rows, targets = self.encode(processor, splits.validation)
        how, logits = labelling(config), logits_of(model, rows, config)
        hot = how.hot(targets, len(processor.labels))
        temperature = 1.0
        if config.calibration == "temperature":
            outcomes = how.outcomes(len(processor.labels))
            temperature = learn_temperature(
                how.losses, logits, hot, outcomes=outcomes, seed=config.seed
            )
        thresholds = how.choose_thresholds(how.probabilities(logits / temperature), hot)
        return calibrated(model, temperature, thresholds)

    def examples(
        self,
        config: SentimentConfig,
        processor: TextClasses,
        model: keras.Model,
        splits: Splits,
    ) -> Callable[[], Table]:
        some, how = splits.validation[:EXAMPLES], labelling(config)
        rows = processor.encode([r.text for r in some])

        def answer() -> Table:
            found = probabilities(model, rows, config)
            columns = ["text", "true", "predicted", "confidence"]
            answers = [
                how.example(r, p, processor.labels) for r, p in zip(some, found, strict=True)
            ]
            return Table(
                columns,
                [
                    [r.text[:200], true, predicted, round(confidence, 4)]
                    for r, (true, predicted, confidence) in zip(some, answers, strict=True)
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
        rows, targets = self.encode(processor, splits.test)
        how = labelling(config)
        hot = how.hot(targets, len(processor.labels))
        found = how.evaluate(
            splits.test,
            hot,
            probabilities(model, rows, config),
            processor.labels,
            calibration_of(model),
        )
        counts = splits.report.get("labels")  # of the training split
        if counts and not config.data.multi_label:
            (most_frequent,) = processor.numbers([max(counts, key=counts.__getitem__)])
            found.baselines["most_frequent_class"] = float(hot[:, most_frequent].mean())
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
        answer = labelling(config).answer(processor.labels, calibration_of(model))

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

    def request(
        self, config: SentimentConfig, examples: Sequence[Record | str]
    ) -> dict[str, tf.Tensor]:
        return {"text": tf.constant([e if isinstance(e, str) else e.text for e in examples])}

    def outputs(
        self, config: SentimentConfig, served: Any, examples: Sequence[str]
    ) -> dict[str, np.ndarray]:
        found = super().outputs(config, served, examples)
        labels = served.signatures["labels"]()["labels"].numpy()
        return found | {"classes": np.broadcast_to(labels, (len(examples), len(labels)))}

    def present(
        self, config: SentimentConfig, example: str, answer: dict[str, Any], served: Any
    ) -> Prediction:
        labels = [raw.decode() for raw in answer["classes"]]
        return labelling(config).present(example, answer, labels)

    def answer_columns(self, config: SentimentConfig, served: Any) -> dict[str, type]:
        labels = served.signatures["labels"]()["labels"].numpy()
        names = sorted(raw.decode() for raw in labels)
        return labelling(config).columns() | {f"probability_{name}": float for name in names}

    def answer_rows(self, config: SentimentConfig, prediction: Prediction) -> list[list[Any]]:
        probabilities = prediction.json["probabilities"]
        return [
            [
                *labelling(config).cells(prediction.json),
                *(probabilities[name] for name in sorted(probabilities)),
            ]
        ]

    def read_inputs(
        self, config: SentimentConfig, source: str, report: dict[str, Any]
    ) -> Sequence[Record]:
        return records.load_inputs(config, source, report)

    def features(
        self,
        config: SentimentConfig,
        processor: TextClasses,
        model: keras.Model,
        records: Sequence[Record],
    ) -> dict[str, Feature]:
        def answer(rows: Ragged) -> np.ndarray:
            found: np.ndarray = probabilities(model, rows, config).argmax(axis=-1)
            return found

        return features.features(processor, records, None if config.data.multi_label else answer)

    def measures(self, config: SentimentConfig) -> Sequence[Measure]:
        return features.measures(multi_label=config.data.multi_label)

    def requests(
        self, config: SentimentConfig, records: Sequence[Record]
    ) -> Iterable[dict[str, tf.Tensor]]:
        return (self.request(config, [record]) for record in records)

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
        how = labelling(config)
        return Explanation(
            input=given,
            answer=how.describe(so_far[-1], processor.labels, calibration_of(model)),
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


def labelling(config: SentimentConfig) -> Labelling:
    """Return how the texts of a config are labelled."""
    return MultiLabel(config) if config.data.multi_label else SingleLabel(config)


def probabilities(model: keras.Model, rows: Ragged, config: SentimentConfig) -> np.ndarray:
    """Class probabilities ``<float64>[len(rows), classes]``, in the order of ``rows``."""
    return labelling(config).probabilities(logits_of(model, rows, config))


def logits_of(model: keras.Model, rows: Ragged, config: SentimentConfig) -> np.ndarray:
    """Outputs of the model ``<float64>[len(rows), classes]``, in the order of ``rows``."""
    out = np.zeros((len(rows), model.output_shape[-1]))
    order = np.arange(len(rows))
    for ids, which in Buckets.from_config(config.train, rows.lengths).batches(rows, order, order):
        out[which.numpy()] = np.asarray(model.predict_on_batch(ids.numpy()), np.float64)
    return out


TASK = Sentiment()
