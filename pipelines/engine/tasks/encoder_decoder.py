"""Tasks that generate a text about an encoded input: translation and captioning."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from pipelines.engine.config.decoding import DecodingConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.plotting import save_figure
from pipelines.engine.core.tables import Table
from pipelines.engine.data.splits import Splits
from pipelines.engine.explain.explanation import Explanation
from pipelines.engine.export.savedmodel import Endpoint
from pipelines.engine.models.beam_search import IMPOSSIBLE
from pipelines.engine.models.seq2seq import Seq2Seq
from pipelines.engine.tasks.base import EXAMPLES, Prediction, Task
from pipelines.engine.tasks.endpoints import can_run_endpoints, compile_endpoint
from pipelines.engine.training.loop import Objective
from pipelines.engine.training.losses import next_token


class Serving(Protocol):
    """The model as it is served."""

    def answer(
        self, inputs: tf.Tensor, beam_width: tf.Tensor, max_length: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Return the best text of each input, all texts of the beam, and the alignment."""

    def explain(self, given: str) -> Explanation:
        """Return the steps of encoder and decoder for one input."""


def decoding_request(
    name: str, inputs: Sequence[str | bytes], decoding: DecodingConfig
) -> dict[str, tf.Tensor]:
    """Return the inputs of the serving signature.

    Args:
        name: The name of the input that holds the texts or files.
        inputs: The texts or the contents of the files.
        decoding: The limits of the search.
    """
    return {
        name: tf.constant(list(inputs), tf.string),
        "beam_width": tf.constant([decoding.beam_width]),
        "max_length": tf.constant([decoding.max_length]),
    }


def n_best(texts: np.ndarray, scores: np.ndarray, name: str) -> list[dict[str, Any]]:
    """Return the hypotheses that the search found, the best first.

    Args:
        texts: ``<bytes>[beam]``.
        scores: ``<float>[beam]``, `beam_search.IMPOSSIBLE` where there is no hypothesis.
        name: The key of the text in each result.
    """
    pairs = zip(texts, scores, strict=True)
    return [{name: t.decode(), "score": float(s)} for t, s in pairs if s > IMPOSSIBLE]


def trim(alignment: np.ndarray, *tokens: np.ndarray) -> tuple[list[Any], list[list[str]]]:
    """Return an alignment and its tokens without the padding of their batch.

    Args:
        alignment: ``<float>[time, …]``, zero where there is only padding.
        tokens: ``<bytes>[n]`` for the first axis, and perhaps for the second.

    Returns:
        The alignment as nested lists, and the tokens of each axis.
    """
    found = []
    for axis, names in enumerate(tokens):
        others = tuple(i for i in range(alignment.ndim) if i != axis)
        used = np.flatnonzero(alignment.any(axis=others) | (names != b""))
        # The output may be empty; what is read has at least an end mark.
        size = int(used[-1]) + 1 if len(used) else axis
        alignment = alignment.take(np.arange(size), axis=axis)
        found.append([name.decode() for name in names[:size]])
    return alignment.astype(float).round(4).tolist(), found


class EncoderDecoderTask(Task):
    """A task whose model encodes an input and generates a text about it.

    Attributes:
        input_name: The input of the signature that holds the texts or files.
        output_name: The output of the signature that holds the best texts.
        answer_column: The column of the best texts in files of predictions.
        example_columns: The columns of the table of examples.
    """

    input_name: ClassVar[str]
    output_name: ClassVar[str]
    answer_column: ClassVar[str]
    example_columns: ClassVar[tuple[str, str, str]]
    writers: ClassVar[dict[str, Callable[[Prediction, Path], None]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Add the writer of the attention map, which each subclass draws its own way."""
        super().__init_subclass__(**kwargs)
        cls.writers = {"attention": cls._write_attention}

    @abstractmethod
    def serving(self, config: Any, processor: Any, model: Any) -> Serving:
        """Return the model as it is served."""

    @abstractmethod
    def content(self, example: Any) -> str | bytes:
        """Return the text, or the content of the file, of a record or a command-line input."""

    @abstractmethod
    def example_labels(self, record: Any) -> tuple[str, str]:
        """Return the name and the reference text of a record, for the table of examples."""

    @classmethod
    @abstractmethod
    def draw_attention(cls, answer: dict[str, Any]) -> Figure:
        """Return the attention map of a prediction's json, which has an ``alignment``."""

    @classmethod
    def attention_figure(cls, answer: dict[str, Any]) -> Figure:
        """Return the attention map of a prediction's json.

        Raises:
            UserError: The model has no attention.
        """
        if "alignment" not in answer:
            raise UserError("a model without attention has no attention map")
        return cls.draw_attention(answer)

    @classmethod
    def _write_attention(cls, prediction: Prediction, path: Path) -> None:
        save_figure(cls.attention_figure(prediction.json), path)

    def objective(self, config: Any, processor: Any) -> Objective:
        return next_token(config.train.label_smoothing)

    def endpoints(self, config: Any, processor: Any, model: Any) -> dict[str, Endpoint]:
        inputs = {
            self.input_name: tf.TensorSpec([None], tf.string, name=self.input_name),
            "beam_width": tf.TensorSpec([None], tf.int32, name="beam_width"),
            "max_length": tf.TensorSpec([None], tf.int32, name="max_length"),
        }
        return {"serving_default": Endpoint(self.serving(config, processor, model).answer, inputs)}

    def request(self, config: Any, examples: Sequence[Any]) -> dict[str, tf.Tensor]:
        contents = [self.content(example) for example in examples]
        return decoding_request(self.input_name, contents, config.decoding)

    def answer_columns(self, config: Any, served: Any) -> dict[str, type]:
        return {self.answer_column: str, "score": float}

    def answer_rows(self, config: Any, prediction: Prediction) -> list[list[Any]]:
        return [[prediction.json[self.output_name], prediction.json["score"]]]

    def requests(self, config: Any, records: Sequence[Any]) -> Iterable[dict[str, tf.Tensor]]:
        """Return a request for each record; see `Comparable`."""
        return (self.request(config, [record]) for record in records)

    def examples(
        self, config: Any, processor: Any, model: Seq2Seq, splits: Splits
    ) -> Callable[[], Table] | None:
        if not can_run_endpoints():
            return None
        records = splits.validation[:EXAMPLES]
        serve = compile_endpoint(self.endpoints(config, processor, model)["serving_default"])

        def table() -> Table:
            contents = [self.content(record) for record in records]
            request = decoding_request(self.input_name, contents, config.decoding)
            texts = serve(*request.values())[self.output_name].numpy()
            pairs = zip(records, texts, strict=True)
            rows = [[*self.example_labels(record), text.decode()] for record, text in pairs]
            return Table(list(self.example_columns), rows)

        return table

    def explain(self, config: Any, processor: Any, model: Seq2Seq, given: str) -> Explanation:
        """Return the steps of encoder and decoder for one input; see `Explainable`."""
        return self.serving(config, processor, model).explain(given)
