"""The translation task, assembled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from pipelines import decoding, figures, training
from pipelines.batches import Buckets, lengths_of, shuffled
from pipelines.config import LONGEST, WIDEST
from pipelines.documents import END
from pipelines.export import Endpoint
from pipelines.losses import MaskedCrossentropy, PerToken
from pipelines.tasks import Evaluation, Prediction, Splits, Table, Task
from pipelines.text import PADDING, UNKNOWN
from pipelines.translation import evaluation, records
from pipelines.translation import model as models
from pipelines.translation.config import PairTrainConfig, TranslationConfig
from pipelines.translation.model import Translator
from pipelines.translation.processor import Pairs
from pipelines.translation.records import Pair

#: Texts that are translated after every epoch, and drawn with what each word looked at.
_EXAMPLES, _DRAWN = 5, 4


class Translation(Task):
    """A text in, another text out."""

    name = "translation"
    config = TranslationConfig
    writers: ClassVar = {
        "attention": lambda prediction, path: figures.save(_draw(prediction.json), path)
    }

    def load(self, config: TranslationConfig) -> Splits:
        return records.load(config)

    def prepare(self, config: TranslationConfig, splits: Splits) -> Pairs:
        return Pairs.fit(
            config.text, [p.input for p in splits.train], [p.output for p in splits.train]
        )

    def load_processor(self, folder: Path) -> Pairs:
        return Pairs.load(folder)

    def build(self, config: TranslationConfig, processor: Pairs) -> Translator:
        return models.build(
            config.model,
            inputs=processor.input.size,
            outputs=processor.output.size,
            seed=config.seed,
        )

    def objective(self, config: TranslationConfig) -> training.Objective:
        return training.Objective(
            loss=MaskedCrossentropy(config.train.label_smoothing),
            metrics=lambda: [
                PerToken("nats", name="cross_entropy"),
                PerToken("perplexity", name="perplexity"),
            ],
            monitor="val_cross_entropy",
            higher_is_better=False,
        )

    def feed(self, config: TranslationConfig, processor: Pairs, splits: Splits) -> Feed:
        return Feed(config, processor, splits)

    def examples(
        self, config: TranslationConfig, processor: Pairs, model: Translator, splits: Splits
    ) -> Callable[[], Table] | None:
        if keras.backend.backend() != "tensorflow":
            return None  # texts are written by a TensorFlow graph
        some = splits.validation[:_EXAMPLES]
        translate = tf.function(Interpreter(config, processor, model).translate)

        def answer() -> Table:
            texts = translate(**asked([p.input for p in some], config))["text"].numpy()
            rows = [[p.input, p.output, t.decode()] for p, t in zip(some, texts, strict=True)]
            return Table(["input", "reference", "output"], rows)

        return answer

    def evaluate(
        self,
        config: TranslationConfig,
        processor: Pairs,
        model: Translator,
        served: Any,
        splits: Splits,
    ) -> Evaluation:
        inputs, references = [p.input for p in splits.test], [p.output for p in splits.test]
        rows, targets = processor.encode(inputs, references)
        nats = evaluation.cross_entropy(model, rows, targets, _buckets(rows, targets, config.train))
        serve, decoded = served.signatures["serving_default"], config.decoding
        greedy, outputs = (
            evaluation.answers(serve, inputs, beam_width=width, max_length=decoded.max_length)
            for width in (1, decoded.beam_width)
        )
        found, how = evaluation.scores(outputs, references)
        lengths = evaluation.by_length(inputs, outputs, references)
        drawn = {
            f"attention_{i + 1}": _draw(self.predict(config, served, text).json)
            for i, text in enumerate(inputs[:_DRAWN])
            if config.model.decoder.attention != "none"
        }
        pairs = zip(inputs, outputs, references, strict=True)
        return Evaluation(
            scores={
                **found,
                "greedy_bleu": evaluation.scores(greedy, references)[0]["bleu"],
                "cross_entropy": nats,
                "perplexity": evaluation.perplexity(nats),
            },
            figures={"bleu_by_length": evaluation.draw_by_length(lengths), **drawn},
            tables={
                "translations": Table(["input", "output", "reference"], list(map(list, pairs))),
                "best_and_worst": evaluation.best_and_worst(inputs, outputs, references),
                "bleu_by_length": lengths,
                "signatures": how,
            },
        )

    def endpoints(
        self, config: TranslationConfig, processor: Pairs, model: Translator
    ) -> dict[str, Endpoint]:
        interpreter = Interpreter(config, processor, model)
        inputs = {
            "text": tf.TensorSpec([None], tf.string, name="text"),
            "beam_width": tf.TensorSpec([None], tf.int32, name="beam_width"),
            "max_length": tf.TensorSpec([None], tf.int32, name="max_length"),
        }
        return {
            "serving_default": Endpoint(interpreter.translate, inputs),
            "n_best": Endpoint(interpreter.n_best, inputs),
        }

    def predict(self, config: TranslationConfig, served: Any, text: str) -> Prediction:
        question = asked([text], config)
        answer, best = (
            {name: value.numpy()[0] for name, value in served.signatures[s](**question).items()}
            for s in ("serving_default", "n_best")
        )
        ranked = [
            {"text": t.decode(), "score": float(s)}
            for t, s in zip(best["texts"], best["scores"], strict=True)
            if np.isfinite(s)
        ]
        found = {
            "input": text,
            "text": answer["text"].decode(),
            "score": float(answer["score"]),
            "n_best": ranked,
        }
        if "alignment" in answer:
            found |= {
                "input_tokens": [t.decode(errors="replace") for t in answer["input_tokens"]],
                "output_tokens": [t.decode(errors="replace") for t in answer["output_tokens"]],
                "alignment": answer["alignment"].astype(float).round(4).tolist(),
            }
        return Prediction(
            title=text if len(text) <= 70 else text[:69] + "…",
            columns=["translation", "score"],
            rows=[[one["text"], f"{one['score']:.3f}"] for one in ranked],
            json=found,
        )


def _draw(answer: dict[str, Any]) -> Any:
    return figures.attention(
        np.asarray(answer["alignment"]), answer["input_tokens"], answer["output_tokens"]
    )


def asked(texts: Sequence[str], config: TranslationConfig) -> dict[str, tf.Tensor]:
    """The inputs of the serving signature."""
    return {
        "text": tf.constant(list(texts)),
        "beam_width": tf.constant([config.decoding.beam_width]),
        "max_length": tf.constant([config.decoding.max_length]),
    }


class Interpreter:
    """The model as it is served: texts in, their translations out.

    The other arguments have one entry for each text, or one for all. They may come from anybody:
    what is out of bounds is brought to the nearest that is in them. Nothing is made of nothing: an
    empty text has an empty translation.
    """

    def __init__(self, config: TranslationConfig, processor: Pairs, model: Translator) -> None:
        self._config, self._processor, self._model = config, processor, model
        self._attends = config.model.decoder.attention != "none"

    def translate(
        self, text: tf.Tensor, beam_width: tf.Tensor, max_length: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The best translation of each text, and its log p by length (`decoding.search`).

        With attention also ``alignment <float>[batch, time, steps]``, how much each token of the
        answer looked at each token of the text, and the tokens, "" behind the ends.
        """
        read, found = self._search(text, beam_width, max_length)
        names, weights = self._names(text, read, found.ids[:, 0])
        answer = {
            "text": self._processor.output.join_names(names),
            "score": found.scores[:, 0],
        }
        if weights is not None:
            tokens = self._processor.input.names(read)
            answer |= {"alignment": weights, "input_tokens": tokens, "output_tokens": names}
        return answer

    def n_best(
        self, text: tf.Tensor, beam_width: tf.Tensor, max_length: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """``texts <string>[batch, beam]`` and ``scores <float>[batch, beam]``, the best first; the
        score of what was not found is −inf."""
        read, found = self._search(text, beam_width, max_length)
        rows, beam, time = tf.unstack(tf.shape(found.ids))
        text, read = decoding.repeat([text, read], beam)
        names, _ = self._names(text, read, tf.reshape(found.ids, [-1, time]))
        texts = self._processor.output.join_names(names)
        return {"texts": tf.reshape(texts, [rows, beam]), "scores": found.scores}

    def _search(
        self, text: tf.Tensor, beam_width: tf.Tensor, max_length: tf.Tensor
    ) -> tuple[tf.Tensor, decoding.Found]:
        """The ids that are read ``<int32>[batch, steps]``, and what is found for them."""
        rows = tf.shape(text)
        ragged = self._processor.read(text)
        read = ragged.to_tensor(PADDING)
        width = tf.clip_by_value(tf.broadcast_to(beam_width, rows), 1, WIDEST)
        most = tf.clip_by_value(tf.broadcast_to(max_length, rows), 0, LONGEST)
        nothing = ragged.row_lengths() <= 1  # the end mark
        most = tf.where(nothing, 0, most)
        states, looked_at = self._model.read(read)
        looked_at = decoding.repeat(looked_at, tf.maximum(tf.reduce_max(width), 1))
        # Padding is never written; unknown words are where there is something to replace them by.
        written = tf.range(self._processor.output.size) > (PADDING if self._attends else UNKNOWN)

        def step(ids: tf.Tensor, states: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
            logits, states, _ = self._model.write(ids[:, None], states, looked_at)
            return tf.where(written, logits[:, 0], -1e9), states

        found = decoding.search(
            step,
            states,
            end=END,
            beam_width=width,
            min_length=tf.minimum(self._config.decoding.min_length, most),
            max_length=most,
            length_penalty=self._config.decoding.length_penalty,
        )
        return read, found

    def _names(
        self, text: tf.Tensor, read: tf.Tensor, ids: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The tokens of answers, and what each looked at: the decoder goes through them again.

        Unknown words become the word of the text that they looked at most (Luong et al. 2015).
        """
        names = self._processor.output.names(ids)
        if not self._attends:
            return names, None
        before = tf.concat([tf.fill([tf.shape(ids)[0], 1], END), ids[:, :-1]], axis=1)
        _, _, weights = self._model.write(before, *self._model.read(read))
        weights = tf.where(ids[:, :, None] != PADDING, weights, 0.0)
        if self._processor.input.level == "word":
            words = self._processor.words(text).to_tensor("")
            most = tf.argmax(weights, axis=2, output_type=tf.int32)
            names = tf.where(ids == UNKNOWN, tf.gather(words, most, axis=1, batch_dims=1), names)
        return names, weights


class Feed:
    """Pairs of like length: ``({read, written}, what is to be written next)``."""

    def __init__(self, config: TranslationConfig, processor: Pairs, splits: Splits) -> None:
        self._seed = config.seed
        self._rows, self._targets = _encode(processor, splits.train)
        self._validation = _encode(processor, splits.validation)
        self._buckets = _buckets(self._rows, self._targets, config.train)
        rows, targets = self._validation
        self._validation_buckets = _buckets(rows, targets, config.train)
        self.steps = self._buckets.steps(lengths_of(self._rows, self._targets))
        self.tokens = int(sum(part.lengths.sum() for part in self._rows.values()))
        self.padded_tokens = self._buckets.padded(lengths_of(self._rows))

    def train(self, epoch: int) -> tf.data.Dataset:
        order = shuffled(len(self._targets), seed=self._seed, epoch=epoch)
        return self._buckets.batches(self._rows, self._targets, order)

    def validation(self) -> tf.data.Dataset:
        rows, targets = self._validation
        return self._validation_buckets.batches(rows, targets, np.arange(len(targets)))


def _encode(processor: Pairs, pairs: Sequence[Pair]) -> Any:
    return processor.encode([p.input for p in pairs], [p.output for p in pairs])


def _buckets(rows: Any, targets: Any, config: PairTrainConfig) -> Buckets:
    return Buckets.fit(
        lengths_of(rows, targets),
        buckets=config.buckets,
        batch_size=config.batch_size,
        batch_tokens=config.batch_tokens,
    )


TASK = Translation()
