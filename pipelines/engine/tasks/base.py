"""What a task is, and where it is found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.tables import Table
from pipelines.engine.data.splits import Splits

if TYPE_CHECKING:
    import keras
    import tensorflow as tf
    from matplotlib.figure import Figure

    from pipelines.engine.explain.explanation import Explanation
    from pipelines.engine.export.savedmodel import Endpoint
    from pipelines.engine.training.loop import Feed, Objective


class Processor(Protocol):
    """What is learned from the training split before the model: vocabulary, labels, scales.

    Training, evaluation and the serving signature all go through the same object, so that they
    cannot drift apart.
    """

    def save(self, folder: Path) -> None: ...

    def resources(self) -> list[tf.Module]: ...


@dataclass
class Evaluation:
    """How good a model is: numbers, pictures and tables."""

    scores: dict[str, float]
    figures: dict[str, Figure]
    tables: dict[str, Table]
    #: Pictures that are not drawn by matplotlib: by file name, what writes the file.
    drawings: dict[str, Callable[[Path], None]] = field(default_factory=dict)
    #: What the numbers mean, in sentences.
    verdict: list[str] = field(default_factory=list)
    #: What is to be had without training, by name: the config's ``score`` of each.
    baselines: dict[str, float] = field(default_factory=dict)


@dataclass
class Prediction:
    """The answer to one command-line input, for people (title and rows) and programs (json)."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    json: dict[str, Any]


class Task(ABC):
    """One task: only what no other task has. Everything else is shared."""

    name: ClassVar[str]
    config: ClassVar[type[Experiment]]
    #: How a prediction is written as a file, by the names in the config's ``writes``.
    writers: ClassVar[dict[str, Callable[[Prediction, Path], None]]] = {}
    #: Whether the model's state after a batch is where the next one starts, row by row.
    carries_state: ClassVar[bool] = False

    @abstractmethod
    def load(self, config: Any) -> Splits:
        """Read the records of a config and split them. Nothing is learned here."""

    @abstractmethod
    def prepare(self, config: Any, splits: Splits) -> Any:
        """Learn a ``Processor`` from the training split only."""

    @abstractmethod
    def load_processor(self, folder: Path) -> Any:
        """The ``Processor`` that was saved to ``folder``."""

    @abstractmethod
    def build(self, config: Any, processor: Any) -> keras.Model:
        """The model, with the weights it starts from."""

    @abstractmethod
    def objective(self, config: Any) -> Objective:
        """What is minimised and monitored."""

    @abstractmethod
    def feed(self, config: Any, processor: Any, splits: Splits) -> Feed:
        """The training and validation batches."""

    @abstractmethod
    def examples(
        self, config: Any, processor: Any, model: keras.Model, splits: Splits
    ) -> Callable[[], Table] | None:
        """What shows, after each epoch, how the model answers the same few inputs.

        None where this backend cannot.
        """

    @abstractmethod
    def evaluate(
        self, config: Any, processor: Any, model: keras.Model, served: Any, splits: Splits
    ) -> Evaluation:
        """Score on the test split.

        Args:
            served: the run's SavedModel, for scores of what a server would answer.
        """

    @abstractmethod
    def endpoints(self, config: Any, processor: Any, model: keras.Model) -> dict[str, Endpoint]:
        """The signatures of the export; ``serving_default`` is the main one."""

    @abstractmethod
    def request(self, config: Any, record: Any) -> dict[str, tf.Tensor]:
        """What a client asks about one record of the test split: inputs of ``serving_default``."""

    @abstractmethod
    def predict(self, config: Any, served: Any, given: str) -> Prediction:
        """Answer one input with a loaded SavedModel, as a client of it would.

        Args:
            given: the input as it stands on the command line: a text, or the path of a file.
        """

    @abstractmethod
    def to_explain(self, config: Any, splits: Splits, count: int) -> list[Any]:
        """At most so many inputs of the test split for `explain`."""

    @abstractmethod
    def explain(self, config: Any, processor: Any, model: keras.Model, given: Any) -> Explanation:
        """What the model does with one input, step by step: which steps there are, what its
        layers were called with, and its answer as it evolves.

        Args:
            given: as in `predict`, or one of `to_explain`.

        Raises:
            UserError: there is nothing in it that could be read.
        """
