"""The generation task, assembled."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from layers.recorder import Recorder
from pipelines.engine.core.tables import Table
from pipelines.engine.data import disk
from pipelines.engine.data.ragged import PADDING
from pipelines.engine.data.splits import Splits
from pipelines.engine.data.token_streams import TokenStreams
from pipelines.engine.explain import decoder_steps
from pipelines.engine.explain.explanation import Explanation, Segment
from pipelines.engine.export import stateful
from pipelines.engine.export.savedmodel import Endpoint
from pipelines.engine.models import decoding
from pipelines.engine.tasks.base import Evaluation, Prediction, Task
from pipelines.engine.tasks.endpoints import can_run_endpoints, compile_endpoint
from pipelines.engine.text.tokenizer import END, DocumentTokenizer
from pipelines.engine.text.vocabulary import RESERVED
from pipelines.engine.training import loop
from pipelines.engine.training.losses import next_token
from pipelines.generation import evaluation, playback, records, tunes
from pipelines.generation import model as models
from pipelines.generation.config import (
    MAX_LENGTH,
    MAX_TEMPERATURE,
    GenerationConfig,
    SamplingConfig,
)
from pipelines.generation.model import LanguageModel

#: How many of the likeliest next tokens are told.
NEXT = 10
#: Characters of a test document that is explained; tokens that a prompt is continued by.
_SHOWN = 80


class Generation(Task):
    """What comes next: a character, a word or a part of one."""

    name = "generation"
    config = GenerationConfig
    processor = DocumentTokenizer
    carries_state = True
    writers: ClassVar = {
        "midi": lambda prediction, path: playback.write_midi(prediction.json["text"], path),
        "score": lambda prediction, path: playback.write_score(prediction.json["text"], path),
    }

    def load(self, config: GenerationConfig) -> Splits:
        return records.load(config)

    def fit_processor(self, config: GenerationConfig, splits: Splits) -> DocumentTokenizer:
        texts = disk.map_records(lambda d: d.text, splits.train)
        return DocumentTokenizer.fit(texts, config.text, config.model.level)

    def build(self, config: GenerationConfig, processor: DocumentTokenizer) -> LanguageModel:
        return models.build(
            config.model,
            vocabulary=processor.size,
            rows=config.train.batch_size,
            seed=config.seed,
        )

    def objective(self, config: GenerationConfig) -> loop.Objective:
        return next_token()

    def feed(self, config: GenerationConfig, processor: DocumentTokenizer, splits: Splits) -> Feed:
        return Feed(config, processor, splits)

    def examples(
        self,
        config: GenerationConfig,
        processor: DocumentTokenizer,
        model: LanguageModel,
        splits: Splits,
    ) -> Callable[[], Table] | None:
        if not can_run_endpoints():
            return None
        prompts = config.sampling.prompts
        write = compile_endpoint(self.endpoints(config, processor, model)["serving_default"])

        def answer() -> Table:
            request = sampling_request(prompts, config.sampling)
            texts = write(**request)["text"].numpy()
            rows = [[p, t.decode()] for p, t in zip(prompts, texts, strict=True)]
            return Table(["prompt", "text"], rows)

        return answer

    def evaluate(
        self,
        config: GenerationConfig,
        processor: DocumentTokenizer,
        model: LanguageModel,
        served: Any,
        splits: Splits,
    ) -> Evaluation:
        held_out = [d.text for d in splits.test]
        documents = processor.encode(held_out)
        losses, places = evaluation.token_losses(model, documents)
        scores = evaluation.summarize_losses(losses, documents, config.model.level)
        count = config.sampling.count
        answer = served.signatures["serving_default"](
            **sampling_request([""] * count, config.sampling)
        )
        written = [raw.decode() for raw in answer["text"].numpy()]
        drawings: dict[str, Callable[[Path], None]] = {}
        if config.text.format == "abc":
            training_tunes = [d.text for d in splits.train]
            for prefix, texts in (("", written), ("held_out_", held_out)):
                scores |= {f"{prefix}{k}": v for k, v in tunes.summarize(texts).items()}
                scores[f"{prefix}copied"] = tunes.copied_share(texts, training_tunes)
            tune = next((t for t in written if tunes.check(t).all_bars_complete), None)
            if tune is not None and importlib.util.find_spec("verovio"):
                drawings["tune.svg"] = lambda path: playback.write_score(tune, path)
        return Evaluation(
            scores=scores,
            figures={
                "surprise_by_place": evaluation.plot_loss_by_position(losses, places),
                "lengths": evaluation.plot_lengths(
                    list(map(len, written)), list(map(len, held_out))
                ),
            },
            tables={"written": Table(["text"], [[t] for t in written])},
            drawings=drawings,
        )

    def endpoints(
        self, config: GenerationConfig, processor: DocumentTokenizer, model: LanguageModel
    ) -> dict[str, Endpoint]:
        writer = GenerationServing(config, processor, model.network)
        prompt = tf.TensorSpec([None], tf.string, name="prompt")
        how = {
            "temperature": tf.TensorSpec([None], tf.float32, name="temperature"),
            "max_length": tf.TensorSpec([None], tf.int32, name="max_length"),
            "seed": tf.TensorSpec([None], tf.int32, name="seed"),
        }
        return {
            "serving_default": Endpoint(writer.write, {"prompt": prompt} | how),
            "next": Endpoint(writer.next, {"prompt": prompt}),
            **stateful.endpoints(
                writer.start,
                writer.go_on,
                {"text": tf.TensorSpec([None], tf.string, name="text")} | how,
            ),
        }

    def request(self, config: GenerationConfig, example: Any) -> dict[str, tf.Tensor]:
        """A record has no prompt: its request is for a text from the beginning."""
        prompt = _unescape(example) if isinstance(example, str) else ""
        return sampling_request([prompt], config.sampling)

    def present(
        self, config: GenerationConfig, example: str, answer: dict[str, Any], served: Any
    ) -> Prediction:
        prompt, written = _unescape(example), answer["text"].decode()
        following = served.signatures["next"](prompt=tf.constant([prompt]))
        # A sub-word may be a byte that is no text by itself: it is written \xc3.
        tokens = [raw.decode(errors="backslashreplace") for raw in following["tokens"].numpy()[0]]
        ranked = dict(zip(tokens, map(float, following["probabilities"].numpy()[0]), strict=True))
        return Prediction(
            title=written,
            columns=["next", "probability"],
            rows=[[repr(t)[1:-1], f"{p:.1%}"] for t, p in ranked.items()]
            if config.model.level != "character"
            else [],
            json={"prompt": prompt, "text": written, "next": ranked},
        )

    def explanation_examples(
        self, config: GenerationConfig, splits: Splits, count: int
    ) -> list[str]:
        return [d.text[:_SHOWN] for d in splits.test[:count]]

    def explain(
        self,
        config: GenerationConfig,
        processor: DocumentTokenizer,
        model: LanguageModel,
        given: str,
    ) -> Explanation:
        prompt = _unescape(given)
        limits = {"max_length": min(config.sampling.max_length, _SHOWN)}
        sampling = config.sampling.model_copy(update=limits)
        writer = GenerationServing(config, processor, model.network)
        answer = writer.write(**sampling_request([prompt], sampling))["text"].numpy()[0]
        ids = np.array([END, *processor(tf.constant([answer])).values.numpy()], np.int32)
        known = len(processor(tf.constant([prompt])).values)
        states = [np.zeros((1, s.shape[-1]), np.float32) for s in model.network.inputs[1:]]
        with Recorder().recording() as recorder:
            logits, _ = models.run_network(model.network, ids[None], states)
        found = decoder_steps.token_probabilities(logits[0])
        came = found[np.arange(len(ids) - 1), ids[1:]]
        part = Segment(
            name="reads",
            description="Each step reads one token; the model wrote those after the prompt "
            "itself. The curve is the probability of the token before it was read.",
            tokens=[decoder_steps.START_LABEL, *decoder_steps.token_names(processor, ids[1:])],
            recorder=recorder,
            curves={"this token": np.concatenate([[np.nan], came])},
            details=["" if i <= known else "written by the model" for i in range(len(ids))],
            top_tokens=[[], *decoder_steps.top_tokens(processor, found[:-1])],
        )
        return Explanation(given, answer.decode(), [part])


def _unescape(text: str) -> str:
    """Return a text with line ends, which a command line has as ``\\n``."""
    return text.replace("\\n", "\n")


def sampling_request(prompts: Sequence[str], sampling: SamplingConfig) -> dict[str, tf.Tensor]:
    """The inputs of the serving signature; each prompt has a seed of its own."""
    seeds = (sampling.seed + np.arange(len(prompts))) % 2**31
    return {
        "prompt": tf.constant(list(prompts)),
        "temperature": tf.constant([sampling.temperature], tf.float32),
        "max_length": tf.constant([sampling.max_length], tf.int32),
        "seed": tf.constant(seeds, tf.int32),
    }


class GenerationServing:
    """The language model as it is served: a prompt in, a text out."""

    def __init__(
        self, config: GenerationConfig, processor: DocumentTokenizer, network: keras.Model
    ) -> None:
        self._sampling, self._processor, self._network = config.sampling, processor, network

    def write(
        self, prompt: tf.Tensor, temperature: tf.Tensor, max_length: tf.Tensor, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Each prompt and what follows it, up to an end mark or ``max_length`` tokens.

        The other arguments have one entry for each prompt, or one for all. They may come from
        anybody: what is no number or out of bounds is brought to the nearest that is in them.
        """
        prompt = tf.strings.unicode_transcode(prompt, "UTF-8", "UTF-8", errors="replace")
        rows = tf.shape(prompt)
        temperature, max_length, seed = _bounded(rows, temperature, max_length, seed)
        ids = decoding.sample(
            self._step,
            *self._read(self._nothing(rows[0]), self._begun(prompt)),
            end=END,
            max_length=max_length,
            temperature=temperature,
            seed=seed,
            top_k=self._sampling.top_k,
            top_p=self._sampling.top_p,
        ).ids
        return {"text": self._processor.detokenize(ids, prefix=prompt)}

    def next(self, prompt: tf.Tensor) -> dict[str, tf.Tensor]:
        """The likeliest tokens after each prompt, and their probabilities."""
        scores, _ = self._read(self._nothing(tf.shape(prompt)[0]), self._begun(prompt))
        return self._likeliest(scores)

    def start(self) -> stateful.State:
        """What `go_on` begins with."""
        scores, states = self._step(tf.constant([END]), self._nothing(1))
        return {
            **{f"cells_{i}": state for i, state in enumerate(states)},
            "scores": scores,
            "open": tf.constant([""]),
            "before": tf.constant([""]),
            "drawn": tf.constant([0]),
            "ended": tf.constant([False]),
        }

    def go_on(
        self, given: dict[str, tf.Tensor], state: stateful.State
    ) -> tuple[dict[str, tf.Tensor], stateful.State]:
        """Each text goes on with ``text``, which may be empty, and with what is written then: up to
        ``max_length`` tokens, none at 0.

        Gives what was written, ``text``; ``ended``, whether an end mark was met, after which
        nothing is written until there is more to read; and the likeliest next ``tokens``.

        A word that is not ended is read when more comes, or when something is to be written. Behind
        what was written a new word begins.
        """
        read = state["open"] + given["text"]
        temperature, most, seed = _bounded(
            tf.shape(read), given["temperature"], given["max_length"], given["seed"]
        )
        ended = state["ended"] & (given["text"] == "")
        most = tf.where(ended, 0, most)
        settled, open_ = self._processor.split_pending(read)
        settled = tf.where(most > 0, read, settled)
        open_ = tf.where(most > 0, "", open_)

        fresh = (state["before"] == "") & (state["drawn"] == 0)
        cells = [state[f"cells_{i}"] for i in range(len(self._network.inputs) - 1)]
        scores, cells = self._read_on(state["scores"], cells, settled, fresh)
        written = decoding.sample(
            self._step,
            scores,
            cells,
            end=END,
            max_length=most,
            temperature=temperature,
            seed=seed,
            drawn=state["drawn"] % MAX_LENGTH,
            top_k=self._sampling.top_k,
            top_p=self._sampling.top_p,
        )
        count = tf.math.count_nonzero(written.ids, axis=1, dtype=tf.int32)
        before = _last_character(state["before"] + settled)
        text = self._processor.detokenize(written.ids, prefix=before)
        text = tf.strings.substr(text, tf.strings.length(before), tf.strings.length(text))
        ended |= count < most
        following, _ = self._read_on(written.logits, written.states, open_, fresh & (settled == ""))
        return {"text": text, "ended": ended} | self._likeliest(following), {
            **{f"cells_{i}": cell for i, cell in enumerate(written.states)},
            "scores": written.logits,
            "open": open_,
            "before": _last_character(before + text),
            "drawn": state["drawn"] + count,
            "ended": ended,
        }

    def _likeliest(self, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        best = tf.math.top_k(tf.nn.softmax(scores), min(NEXT, self._processor.size - RESERVED))
        return {"tokens": self._processor.ids_to_tokens(best.indices), "probabilities": best.values}

    def _nothing(self, rows: tf.Tensor | int) -> list[tf.Tensor]:
        """The states before anything was read."""
        return [tf.zeros([rows, s.shape[-1]]) for s in self._network.inputs[1:]]

    def _begun(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """The ids of texts, behind the token that stands before every text."""
        ids = self._processor(texts)
        return tf.concat([tf.fill([ids.nrows(tf.int32), 1], END), ids], axis=1)

    def _read(
        self, states: list[tf.Tensor], ids: tf.RaggedTensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The scores of what comes next once ``ids`` were read, and the states then; the scores of
        a row without ids mean nothing."""

        # All but the last token for the states only: of so many steps no scores are computed.
        def before() -> list[tf.Tensor]:
            return self._on(ids[:, :-1].to_tensor(PADDING), states)[1]

        if states:
            states = tf.cond(tf.reduce_max(ids.row_lengths()) > 1, before, lambda: states)
        last = ids[:, -1:].to_tensor(PADDING, shape=[None, 1])
        return self._step(last[:, 0], states)

    def _read_on(
        self, scores: tf.Tensor, states: list[tf.Tensor], texts: tf.Tensor, fresh: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Scores and states once the next pieces of texts were read, too, which may be empty."""

        def read() -> tuple[tf.Tensor, list[tf.Tensor]]:
            ids = self._processor.encode_continuation(texts, fresh)
            found, after = self._read(states, ids)
            return tf.where(ids.row_lengths()[:, None] > 0, found, scores), after

        return tf.cond(tf.reduce_any(texts != ""), read, lambda: (scores, states))

    def _step(self, ids: tf.Tensor, states: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        logits, states = self._on(ids[:, None], states)
        # Padding and unknown are never written.
        written = tf.range(self._processor.size) >= RESERVED
        return tf.where(written, logits[:, -1], -1e9), states

    def _on(self, ids: tf.Tensor, states: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        logits, states = models.run_network(self._network, ids, states)
        # Cells of half precision give halves, and the state is of one dtype throughout.
        return logits, [tf.cast(s, tf.float32) for s in states]


def _bounded(
    rows: tf.Tensor, temperature: tf.Tensor, max_length: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One of each for every row, and within bounds."""
    temperature, max_length, seed = (
        tf.broadcast_to(a, rows) for a in (temperature, max_length, seed)
    )
    temperature = tf.where(tf.math.is_nan(temperature), 0.0, temperature)
    temperature = tf.clip_by_value(temperature, 0.0, MAX_TEMPERATURE)
    return temperature, tf.clip_by_value(max_length, 0, MAX_LENGTH), seed


def _last_character(texts: tf.Tensor) -> tf.Tensor:
    return tf.strings.regex_replace(texts, r"^(?s:.*)((?s:.))$", r"\1")


class Feed:
    """Windows of parallel streams: ``({ids, fresh}, the next ids)``."""

    def __init__(
        self, config: GenerationConfig, processor: DocumentTokenizer, splits: Splits
    ) -> None:
        self._seed = config.seed
        train, validation = (
            TokenStreams(
                processor.encode(disk.map_records(lambda d: d.text, documents)),
                rows=config.train.batch_size,
                window=config.train.window,
                end=END,
            )
            for documents in (splits.train, splits.validation)
        )
        self._train, self._validation = train, validation
        self.steps, self.tokens = train.windows, train.tokens
        self.padded_tokens = train.padded_tokens

    def train(self, epoch: int) -> tf.data.Dataset:
        return self._train.arrange(np.random.default_rng([self._seed, epoch])).dataset()

    def validation(self) -> tf.data.Dataset:
        return self._validation.arrange().dataset()


TASK = Generation()
