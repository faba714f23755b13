"""The generation task: continue a text character by character, or word by word."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from layers.recorder import Recorder
from pipelines.engine.core.tables import Table
from pipelines.engine.data import disk
from pipelines.engine.data.splits import Splits
from pipelines.engine.explain import decoder_steps
from pipelines.engine.explain.explanation import Explanation, Segment
from pipelines.engine.export import stateful
from pipelines.engine.export.digest import Measure
from pipelines.engine.export.savedmodel import Endpoint
from pipelines.engine.tasks.base import Evaluation, Prediction, Task
from pipelines.engine.tasks.comparable import Feature
from pipelines.engine.tasks.endpoints import can_run_endpoints, compile_endpoint
from pipelines.engine.text.coverage import coverage
from pipelines.engine.text.tokenizer import END, DocumentTokenizer
from pipelines.engine.training import loop
from pipelines.engine.training.losses import next_token
from pipelines.generation import evaluation, features, playback, records, tunes
from pipelines.generation import model as models
from pipelines.generation.config import GenerationConfig
from pipelines.generation.feed import StreamFeed
from pipelines.generation.model import LanguageModel
from pipelines.generation.records import Document
from pipelines.generation.serving import GenerationServing, sampling_request

#: Characters of an explained test document, and tokens by which its explanation continues it.
_SHOWN = 80


class Generation(Task):
    """Predict the next character, word or sub-word of a text."""

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

    def objective(self, config: GenerationConfig, processor: Any) -> loop.Objective:
        return next_token()

    def feed(
        self, config: GenerationConfig, processor: DocumentTokenizer, splits: Splits
    ) -> StreamFeed:
        return StreamFeed(config, processor, splits)

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
        losses, positions, documents_of = evaluation.token_losses(model, documents)
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
            intervals=evaluation.loss_intervals(losses, documents_of, seed=config.seed),
            figures={
                "surprise_by_place": evaluation.plot_loss_by_position(losses, positions),
                "lengths": evaluation.plot_lengths(
                    list(map(len, written)), list(map(len, held_out))
                ),
            },
            tables={"written": Table(["text"], [[t] for t in written])},
            drawings=drawings,
        )

    def limits(
        self, config: GenerationConfig, processor: DocumentTokenizer, splits: Splits
    ) -> list[str]:
        rows = processor.encode(disk.map_records(lambda d: d.text, splits.test))
        found = [coverage(processor, rows, config.model.level, "test texts")]
        if splits.report.get("cut_by_position"):
            found.append(
                "Training and test are parts of the same texts: how well it continues other texts "
                "was not tested."
            )
        if config.text.format == "plain":
            found.append(
                "It writes what is likely after the training texts; whether it is true, or fit to "
                "print, was not tested."
            )
        return found

    def endpoints(
        self, config: GenerationConfig, processor: DocumentTokenizer, model: LanguageModel
    ) -> dict[str, Endpoint]:
        serving = GenerationServing(config, processor, model.network)
        prompt = tf.TensorSpec([None], tf.string, name="prompt")
        arguments = {
            "temperature": tf.TensorSpec([None], tf.float32, name="temperature"),
            "max_length": tf.TensorSpec([None], tf.int32, name="max_length"),
            "seed": tf.TensorSpec([None], tf.int32, name="seed"),
        }
        return {
            "serving_default": Endpoint(serving.write, {"prompt": prompt} | arguments),
            "next": Endpoint(serving.next, {"prompt": prompt}),
            **stateful.endpoints(
                serving.initial_state,
                serving.step,
                {"text": tf.TensorSpec([None], tf.string, name="text")} | arguments,
            ),
        }

    def request(self, config: GenerationConfig, examples: Sequence[Any]) -> dict[str, tf.Tensor]:
        """Return a request to continue prompts. A record has no prompt and requests a new text.

        All are sampled with the same seed, so that no answer depends on the rest of its batch.
        """
        prompts = [_unescape(e) if isinstance(e, str) else "" for e in examples]
        seed = tf.constant([config.sampling.seed], tf.int32)
        return sampling_request(prompts, config.sampling) | {"seed": seed}

    def outputs(
        self, config: GenerationConfig, served: Any, examples: Sequence[str]
    ) -> dict[str, np.ndarray]:
        found = super().outputs(config, served, examples)
        prompts = tf.constant([_unescape(example) for example in examples])
        following = served.signatures["next"](prompt=prompts)
        return found | {name: value.numpy() for name, value in following.items()}

    def present(
        self, config: GenerationConfig, example: str, answer: dict[str, Any], served: Any
    ) -> Prediction:
        prompt, written = _unescape(example), answer["text"].decode()
        # A sub-word may be a byte that is not a character by itself; it is shown as \xc3.
        tokens = [raw.decode(errors="backslashreplace") for raw in answer["tokens"]]
        ranked = dict(zip(tokens, map(float, answer["probabilities"]), strict=True))
        return Prediction(
            title=written,
            columns=["next", "probability"],
            rows=[[repr(t)[1:-1], f"{p:.1%}"] for t, p in ranked.items()]
            if config.model.level != "character"
            else [],
            json={"prompt": prompt, "text": written, "next": ranked},
        )

    def cell_input(self, column: str, value: Any, folder: Path) -> str:
        """Return the prompt in a cell; an empty one requests a new text."""
        return "" if value == "" else super().cell_input(column, value, folder)

    def answer_columns(self, config: GenerationConfig, served: Any) -> dict[str, type]:
        return {"text": str}

    def answer_rows(self, config: GenerationConfig, prediction: Prediction) -> list[list[Any]]:
        return [[prediction.json["text"]]]

    def read_inputs(
        self, config: GenerationConfig, source: str, report: dict[str, Any]
    ) -> Sequence[Document]:
        return records.load_inputs(config, source, report)

    def features(
        self,
        config: GenerationConfig,
        processor: DocumentTokenizer,
        model: LanguageModel,
        records: Sequence[Document],
    ) -> dict[str, Feature]:
        return features.features(processor, model, records)

    def measures(self, config: GenerationConfig) -> Sequence[Measure]:
        return ()  # the prompts of clients are no sample of the texts of training

    def requests(
        self, config: GenerationConfig, records: Sequence[Document]
    ) -> Iterable[dict[str, tf.Tensor]]:
        return ()

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
        serving = GenerationServing(config, processor, model.network)
        answer = serving.write(**sampling_request([prompt], sampling))["text"].numpy()[0]
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


TASK = Generation()
