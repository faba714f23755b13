"""The contract of a pipeline: what one task adds to the code that all of them share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.errors import UserError
from pipelines.engine.core.tables import Table
from pipelines.engine.data.sources.missing import is_missing
from pipelines.engine.data.sources.reading import has_broken_utf8
from pipelines.engine.data.sources.tables import ABSENT, InputTable
from pipelines.engine.data.splits import Splits

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf
    from matplotlib.figure import Figure

    from pipelines.engine.explain.explanation import Explanation
    from pipelines.engine.export.savedmodel import Endpoint
    from pipelines.engine.training.loop import Feed, Objective

#: Validation records that are predicted after every epoch.
EXAMPLES = 5
#: Characters of a prediction's title.
_TITLE = 70


class Processor(Protocol):
    """What is learned from the training split before the model: vocabulary, labels, scales.

    Training, evaluation and the serving signature share one object, so that they cannot differ.
    """

    def save(self, folder: Path) -> None:
        """Write the processor to a folder."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the processor that `save` wrote."""

    def resources(self) -> list[tf.Module]:
        """Return the objects, such as lookup tables, that the export must contain."""


@dataclass
class Evaluation:
    """The scores of a model on the test split, with figures and tables.

    Attributes:
        scores: Metrics by name.
        figures: Matplotlib figures by name.
        tables: Tables by name.
        drawings: Figures that matplotlib does not draw: a function that writes the file, by file
            name.
        verdict: Sentences that interpret the scores.
        baselines: The config's ``score`` of methods that need no training, by name.
        intervals: 95 % intervals of scores, by name; of the config's ``score`` at least, if there
            are enough records.
    """

    scores: dict[str, float]
    figures: dict[str, Figure]
    tables: dict[str, Table]
    drawings: dict[str, Callable[[Path], None]] = field(default_factory=dict)
    verdict: list[str] = field(default_factory=list)
    baselines: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass
class Prediction:
    """The answer to one input, for people (title and rows) and for programs (json).

    Attributes:
        error: Why there is no answer; None if there is one.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    json: dict[str, Any]
    error: str | None = None

    @classmethod
    def failed(cls, example: str, error: str) -> Prediction:
        """Return the prediction of an input that cannot be answered."""
        return cls(shorten(example), [], [], {"input": example, "error": error}, error)


@dataclass(frozen=True)
class FileInput:
    """One input of a file, and what is written of it beside the answer.

    Attributes:
        cells: The cells that are kept, one for each of `FileInputs.columns`.
        place: Where it was read, for messages.
        example: What `Task.predict_batch` takes.
        error: Why it cannot be answered; None if it can.
        text: The whole row as written in a JSON Lines file; None in other files.
    """

    cells: Sequence[Any]
    place: str
    example: Any = None
    error: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class FileInputs:
    """The inputs of a file, in order.

    Attributes:
        columns: The columns that are kept.
        count: The number of inputs.
        inputs: Yields them.
        notes: What the user should know about the file.
    """

    columns: Sequence[str]
    count: int
    inputs: Iterator[FileInput]
    notes: Sequence[str] = ()


def shorten(text: str, length: int = _TITLE) -> str:
    """Return ``text`` with at most ``length`` characters, ending with … if it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


class Task(ABC):
    """One pipeline. Subclasses define only what differs between tasks.

    Attributes:
        name: The name that commands take.
        config: The config class.
        processor: The class of the processor.
        writers: Functions that write a prediction to a file, by the names in ``output_files`` of
            the config class.
        carries_state: Whether each row of a batch continues the same row of the batch before.
    """

    name: ClassVar[str]
    config: ClassVar[type[Experiment]]
    processor: ClassVar[type[Processor]]
    writers: ClassVar[dict[str, Callable[[Prediction, Path], None]]] = {}
    carries_state: ClassVar[bool] = False

    @abstractmethod
    def load(self, config: Any) -> Splits:
        """Read and split the records of a config, without learning anything from them."""

    @abstractmethod
    def fit_processor(self, config: Any, splits: Splits) -> Any:
        """Return a `Processor` learned from the training split only."""

    @abstractmethod
    def build(self, config: Any, processor: Any) -> keras.Model:
        """Return the model with its initial weights."""

    @abstractmethod
    def objective(self, config: Any, processor: Any) -> Objective:
        """Return the loss, the metrics and the metric to monitor."""

    def encode(self, processor: Any, records: Sequence[Any]) -> tuple[Any, Any]:
        """Return the model's inputs and targets for ``records``, see `Buckets.batches`.

        Not needed by a task that overrides `feed`.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither encode nor feed")

    def feed(self, config: Any, processor: Any, splits: Splits) -> Feed:
        """Return the training and validation batches: by default `encode` in length buckets."""
        from pipelines.engine.data.bucketing import BucketFeed

        return BucketFeed(
            config.train,
            self.encode(processor, splits.train),
            self.encode(processor, splits.validation),
            seed=config.seed,
            buffer=getattr(config.data, "shuffle_buffer", None),
        )

    @abstractmethod
    def endpoints(self, config: Any, processor: Any, model: keras.Model) -> dict[str, Endpoint]:
        """Return the signatures of the export; ``serving_default`` is the main one."""

    @abstractmethod
    def request(self, config: Any, examples: Sequence[Any]) -> dict[str, tf.Tensor]:
        """Return the inputs of ``serving_default`` for a batch of examples.

        Args:
            config: The config.
            examples: Records, or inputs as given on the command line: texts, or paths of files.
        """

    def outputs(
        self, config: Any, served: Any, examples: Sequence[str]
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Return all that `present` needs of a batch: by default, what ``serving_default`` answers.

        Returns:
            Arrays by name, whose first axis is that of the examples.
        """
        answer = served.signatures["serving_default"](**self.request(config, examples))
        return {name: value.numpy() for name, value in answer.items()}

    def present(self, config: Any, example: str, answer: dict[str, Any], served: Any) -> Prediction:
        """Return the prediction for one example from the answer of ``serving_default``.

        Not needed by a task that overrides `predict_batch` and `examples`.

        Args:
            config: The config.
            example: The input as given on the command line.
            answer: The `outputs`, without the batch axis. In a batch, they may be padded.
            served: The loaded SavedModel, for its other signatures.

        Raises:
            UserError: The example cannot be answered.
        """
        raise NotImplementedError(
            f"{type(self).__name__} defines neither present nor predict_batch"
        )

    def predict_batch(self, config: Any, served: Any, examples: Sequence[str]) -> list[Prediction]:
        """Return the predictions of a loaded SavedModel for a batch, in one call of it.

        An example that cannot be answered does not affect the others: its prediction has an
        ``error``.
        """
        if not examples:
            return []
        outputs = self.outputs(config, served, examples)
        predictions = []
        for i, example in enumerate(examples):
            answer = {name: values[i] for name, values in outputs.items()}
            try:
                predictions.append(self.present(config, example, answer, served))
            except UserError as error:
                predictions.append(Prediction.failed(example, str(error)))
        return predictions

    def predict(self, config: Any, served: Any, example: str) -> Prediction:
        """Return the prediction of a loaded SavedModel, which is what a server would answer.

        Raises:
            UserError: The example cannot be answered.
        """
        (prediction,) = self.predict_batch(config, served, [example])
        if prediction.error is not None:
            raise UserError(prediction.error)
        return prediction

    def file_inputs(self, config: Any, table: InputTable, column: str) -> FileInputs:
        """Return the inputs of a table: by default one for each row, in ``column``."""
        index = table.columns.index(column)

        def inputs() -> Iterator[FileInput]:
            for row in table.read():
                example, error = None, row.reason
                if error is None:
                    try:
                        example = self.cell_input(column, row.cells[index], table.folder)
                    except UserError as problem:
                        error = str(problem)
                yield FileInput(row.cells, row.place, example, error, row.text)

        return FileInputs(table.columns, table.rows, inputs())

    def cell_input(self, column: str, value: Any, folder: Path) -> str:
        """Return the input in a cell: by default its text.

        Args:
            column: The name of the column.
            value: The value of the cell.
            folder: The folder of the table, for cells that name files.

        Raises:
            UserError: The cell cannot be used; the message is the reason.
        """
        if value is ABSENT or is_missing(value):
            raise UserError(f"{column!r} is empty")
        if not isinstance(value, str):
            raise UserError(f"{column!r} is not text")
        if has_broken_utf8(value):
            raise UserError(f"broken UTF-8 in column {column!r}")
        return value

    def answer_columns(self, config: Any, served: Any) -> dict[str, type]:
        """Return the columns of answers in a file, each with its type: ``str`` or ``float``.

        By default, one column has the prediction as JSON.
        """
        return {"prediction": str}

    def answer_rows(self, config: Any, prediction: Prediction) -> list[list[Any]]:
        """Return what a file has in `answer_columns` for a prediction: by default one row."""
        return [[json.dumps(prediction.json, ensure_ascii=False)]]

    def calibrate(
        self, config: Any, processor: Any, model: keras.Model, splits: Splits
    ) -> keras.Model:
        """Return the trained model with what remains to be learned from the validation split.

        It is called once, before the model is saved; by default it changes nothing.
        """
        return model

    def examples(
        self, config: Any, processor: Any, model: keras.Model, splits: Splits
    ) -> Callable[[], Table] | None:
        """Return a function that tables the model's current answers to a few fixed examples.

        By default there is none.

        Returns:
            The function, called after each epoch, or None if the task or the backend has none.
        """
        return None

    @abstractmethod
    def evaluate(
        self, config: Any, processor: Any, model: keras.Model, served: Any, splits: Splits
    ) -> Evaluation:
        """Return the scores on the test split.

        Args:
            config: The config.
            processor: The processor.
            model: The trained model.
            served: The run's SavedModel, for scores of the answers of a server.
            splits: The records.
        """

    def limits(self, config: Any, processor: Any, splits: Splits) -> list[str]:
        """Return short sentences for a run's report: what its model cannot do or was not tested on.

        By default there are none. The report itself says how large the test split is.
        """
        return []


@runtime_checkable
class Explainable(Protocol):
    """A task with explanations. They are optional: other tasks have no ``unfold explain``."""

    def explanation_examples(self, config: Any, splits: Splits, count: int) -> list[Any]:
        """Return at most ``count`` examples of the test split to explain in every run."""

    def explain(self, config: Any, processor: Any, model: keras.Model, given: Any) -> Explanation:
        """Return the steps of the model for one example, and its answer as it develops.

        Args:
            config: The config.
            processor: The processor.
            model: The trained model.
            given: The input as given on the command line, or one of `explanation_examples`.

        Raises:
            UserError: The example is empty or cannot be read.
        """
