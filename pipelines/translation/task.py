"""The translation pipeline."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from layers.recorder import Recorder
from pipelines.engine.core import intervals, plotting
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.tables import Table
from pipelines.engine.data import disk
from pipelines.engine.data.bucketing import ordered_batches
from pipelines.engine.data.ragged import PADDING
from pipelines.engine.data.splits import Splits
from pipelines.engine.explain import decoder_steps
from pipelines.engine.explain.explanation import Explanation, Segment
from pipelines.engine.export.digest import Measure
from pipelines.engine.models import beam_search, seq2seq
from pipelines.engine.tasks.base import Evaluation, Prediction, shorten
from pipelines.engine.tasks.comparable import Feature
from pipelines.engine.tasks.encoder_decoder import EncoderDecoderTask, n_best, trim
from pipelines.engine.text.coverage import coverage
from pipelines.engine.text.tokenizer import END
from pipelines.engine.text.vocabulary import UNKNOWN
from pipelines.engine.training.losses import cross_entropy
from pipelines.translation import evaluation, features, records
from pipelines.translation import model as models
from pipelines.translation.config import TranslationConfig
from pipelines.translation.model import Translator
from pipelines.translation.processor import Pairs
from pipelines.translation.records import Pair

#: Test texts whose attention map is drawn.
_DRAWN = 4


class Translation(EncoderDecoderTask):
    """A text in, another text out."""

    name = "translation"
    config = TranslationConfig
    processor = Pairs
    input_name = "text"
    output_name = "text"
    example_columns = ("input", "reference", "output")
    answer_column = "translation"

    def load(self, config: TranslationConfig) -> Splits:
        return records.load(config)

    def fit_processor(self, config: TranslationConfig, splits: Splits) -> Pairs:
        inputs, outputs = _sides(splits.train)
        return Pairs.fit(config.text, config.model.level, inputs, outputs)

    def build(self, config: TranslationConfig, processor: Pairs) -> Translator:
        return models.build(
            config.model,
            inputs=processor.input.size,
            outputs=processor.output.size,
            seed=config.seed,
        )

    def encode(self, processor: Pairs, records: Sequence[Pair]) -> Any:
        return processor.encode(*_sides(records))

    def serving(
        self, config: TranslationConfig, processor: Pairs, model: Translator
    ) -> TranslationServing:
        return TranslationServing(config, processor, model)

    def content(self, example: Pair | str) -> str:
        return example if isinstance(example, str) else example.input

    def example_labels(self, record: Pair) -> tuple[str, str]:
        return record.input, record.output

    def evaluate(
        self,
        config: TranslationConfig,
        processor: Pairs,
        model: Translator,
        served: Any,
        splits: Splits,
    ) -> Evaluation:
        inputs, references = [p.input for p in splits.test], [p.output for p in splits.test]
        rows, targets = self.encode(processor, splits.test)
        nats = cross_entropy(model, ordered_batches(config.train, rows, targets))
        serve = served.signatures["serving_default"]
        greedy, outputs = (
            evaluation.answers(serve, inputs, limits)
            for limits in (config.decoding.model_copy(update={"beam_width": 1}), config.decoding)
        )
        found, how = evaluation.scores(outputs, references, config.text.scored)
        lengths = evaluation.by_length(inputs, outputs, references, config.text.scored)
        drawn = {
            f"attention_{i + 1}": self.attention_figure(self.predict(config, served, text).json)
            for i, text in enumerate(inputs[:_DRAWN])
            if config.model.decoder.attention != "none"
        }
        pairs = zip(inputs, outputs, references, strict=True)
        bleu = evaluation.bleu_interval(outputs, references, config.text.scored, seed=config.seed)
        return Evaluation(
            intervals=intervals.known(bleu=bleu),
            scores={
                **found,
                "greedy_bleu": evaluation.scores(greedy, references, config.text.scored)[0]["bleu"],
                "cross_entropy": nats,
                "perplexity": math.exp(nats),
            },
            figures={"bleu_by_length": evaluation.draw_by_length(lengths), **drawn},
            tables={
                "translations": Table(["input", "output", "reference"], list(map(list, pairs))),
                "best_and_worst": evaluation.best_and_worst(inputs, outputs, references),
                "bleu_by_length": lengths,
                "signatures": how,
            },
        )

    def limits(self, config: TranslationConfig, processor: Pairs, splits: Splits) -> list[str]:
        inputs, _ = _sides(splits.test)
        rows = processor.input.encode(inputs)
        return [
            coverage(processor.input, rows, config.model.level, "test inputs"),
            "It translates in one direction only, and texts like those of the training; pairs with "
            f"a text of more than {config.data.max_characters:,} characters are in no split.",
            "Each test input has one reference: other right translations are scored as wrong.",
        ]

    def present(
        self, config: TranslationConfig, example: str, answer: dict[str, Any], served: Any
    ) -> Prediction:
        ranked = n_best(answer["texts"], answer["scores"], "text")
        found = {
            "input": example,
            "text": answer["text"].decode(),
            "score": float(answer["score"]),
            "n_best": ranked,
        }
        if "alignment" in answer:
            alignment, (written, read) = trim(
                answer["alignment"], answer["output_tokens"], answer["input_tokens"]
            )
            found |= {"input_tokens": read, "output_tokens": written, "alignment": alignment}
        return Prediction(
            title=shorten(example),
            columns=["translation", "score"],
            rows=[[one["text"], f"{one['score']:.3f}"] for one in ranked],
            json=found,
        )

    @classmethod
    def draw_attention(cls, answer: dict[str, Any]) -> Figure:
        return plotting.attention_map(
            np.asarray(answer["alignment"]), answer["input_tokens"], answer["output_tokens"]
        )

    def read_inputs(
        self, config: TranslationConfig, source: str, report: dict[str, Any]
    ) -> Sequence[Pair]:
        return records.load_inputs(config, source, report)

    def features(
        self,
        config: TranslationConfig,
        processor: Pairs,
        model: Translator,
        records: Sequence[Pair],
    ) -> dict[str, Feature]:
        return features.features(config, processor, model, records)

    def measures(self, config: TranslationConfig) -> Sequence[Measure]:
        return features.MEASURES

    def explanation_examples(
        self, config: TranslationConfig, splits: Splits, count: int
    ) -> list[str]:
        return [pair.input for pair in splits.test[:count]]


class TranslationServing:
    """The model as it is served: texts in, their translations out.

    The other arguments have one entry for each text, or one for all. They may come from anybody:
    what is out of bounds is brought to the nearest that is in them. Nothing is made of nothing: an
    empty text has an empty translation.
    """

    def __init__(self, config: TranslationConfig, processor: Pairs, model: Translator) -> None:
        self._config, self._processor, self._model = config, processor, model
        self._attends = seq2seq.has_attention(model.decoder)
        #: Only whole words can be unknown, and only attention says what stands in their place.
        self._copies = self._attends and config.model.level == "word"
        #: Padding is never written; unknown words are where the text has one to put there.
        self._first = 1 + (PADDING if self._copies else UNKNOWN)

    def answer(
        self, text: tf.Tensor, beam_width: tf.Tensor, max_length: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The best translation of each text, and its log p by length (`beam_search.search`); beside
        it all of the beam, the best first: ``texts <string>[batch, beam]`` and ``scores``, which
        are `beam_search.IMPOSSIBLE` where no more were found.

        With attention also ``alignment <float>[batch, time, steps]``, how much each token of the
        answer looked at each token of the text, and the tokens, "" behind the ends.
        """
        read, found = self._search(text, beam_width, max_length)
        rows, beam, time, size = tf.unstack(tf.shape(found.annotations))
        names = self._names(
            beam_search.repeat_rows([text], beam)[0],
            tf.reshape(found.ids, [rows * beam, time]),
            tf.reshape(found.annotations, [rows * beam, time, size]),
        )
        texts = tf.reshape(self._processor.output.join_tokens(names), [rows, beam])
        answer = {
            "text": texts[:, 0],
            "score": found.scores[:, 0],
            "texts": texts,
            "scores": found.scores,
        }
        if self._attends:
            # The best of each text; all may be shorter than other hypotheses.
            longest = tf.reduce_max(tf.math.count_nonzero(found.ids[:, 0], axis=1))
            best = tf.reshape(names, [rows, beam, time])[:, 0, :longest]
            answer |= {
                "alignment": found.annotations[:, 0, :longest],
                "input_tokens": _valid(self._processor.input.ids_to_tokens(read)),
                "output_tokens": _valid(best),
            }
        return answer

    def explain(self, given: str) -> Explanation:
        """Encoder and decoder, while the best translation is written."""
        text = tf.constant([given.encode("utf-8", "replace")])
        limits = self._config.decoding
        read, found = self._search(
            text, tf.constant([limits.beam_width]), tf.constant([limits.max_length])
        )
        if read.shape[1] < 2:  # the end mark
            raise UserError(f"{given!r}: nothing in it to translate")
        with Recorder().recording() as recorder:
            states, attended = self._model.encode(read)
        tokens = decoder_steps.token_names(self._processor.input, read[0].numpy())
        names = self._names(text, found.ids[:, 0], found.annotations[:, 0])
        answer = self._processor.output.join_tokens(names)[0].numpy().decode()
        ids = found.ids[0, 0].numpy()
        ids = ids[: np.count_nonzero(ids)]
        about = "Each step reads one token. The answer is written after all of them are read."
        return Explanation(
            given,
            answer,
            [
                Segment("reads", about, tokens, recorder, {}),
                decoder_steps.decoder_segment(
                    self._model,
                    self._processor.output,
                    states,
                    attended,
                    ids,
                    [name.decode("utf-8", "replace") for name in names[0, : len(ids)].numpy()],
                    first=self._first,
                    positions=tokens,
                ),
            ],
        )

    def _search(
        self, text: tf.Tensor, beam_width: tf.Tensor, max_length: tf.Tensor
    ) -> tuple[tf.Tensor, beam_search.BeamSearchResult]:
        """The ids that are read ``<int32>[batch, steps]``, and what is found for them; with it is
        noted what each token looked at ``<float>[batch, beam, time, steps]``."""
        ragged = self._processor.read(text)
        # Of no texts at all there would not be one step.
        steps = tf.maximum(ragged.bounding_shape(axis=1), 1)
        read = ragged.to_tensor(PADDING, shape=tf.stack([-1, steps]))
        states, attended = self._model.encode(read)
        found = beam_search.generate(
            self._model.decode,
            states,
            attended,
            self._config.decoding,
            end=END,
            first=self._first,
            has_input=ragged.row_lengths() > 1,  # the end mark
            beam_width=beam_width,
            max_length=max_length,
        )
        return read, found

    def _names(self, text: tf.Tensor, ids: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """The tokens of answers ``<int32>[batch, time]``; an unknown word becomes the word of its
        text that it looked at most (Luong et al. 2015)."""
        names = self._processor.output.ids_to_tokens(ids)
        if not self._copies:
            return names
        steps = tf.shape(weights, tf.int64)[2]
        words = self._processor.words(text).to_tensor("", shape=tf.stack([-1, steps]))
        # The end mark is looked at too, but is no word.
        most = tf.argmax(tf.where(words[:, None] != "", weights, -1.0), 2, output_type=tf.int32)
        return tf.where(ids == UNKNOWN, tf.gather(words, most, axis=1, batch_dims=1), names)


def _valid(tokens: tf.Tensor) -> tf.Tensor:
    """As UTF-8: a token may be one byte of a character."""
    return tf.strings.unicode_transcode(tokens, "UTF-8", "UTF-8", errors="replace")


def _sides(pairs: Sequence[Pair]) -> tuple[Collection[str], Collection[str]]:
    return disk.map_records(lambda p: p.input, pairs), disk.map_records(lambda p: p.output, pairs)


TASK = Translation()
