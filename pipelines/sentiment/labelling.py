"""What depends on how many labels a text may have: exactly one, or any number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.engine.data.ragged import Ragged
from pipelines.engine.tasks.base import Evaluation, Prediction
from pipelines.engine.training.loop import Objective
from pipelines.sentiment.calibration import Calibration
from pipelines.sentiment.config import SentimentConfig
from pipelines.sentiment.processor import TextClasses


class Labelling(ABC):
    """How the outputs of the model are trained, calibrated, answered and scored.

    Args:
        config: The config of the run.
    """

    def __init__(self, config: SentimentConfig) -> None:
        self.config = config

    @abstractmethod
    def objective(self, processor: TextClasses) -> Objective:
        """Return the loss, the metrics and the metric to monitor."""

    @abstractmethod
    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probability of each class, ``<float>[texts, classes]``."""

    @abstractmethod
    def losses(self, logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the loss of each text, ``<float>[texts]``; targets may be probabilities."""

    @abstractmethod
    def outcomes(self, classes: int) -> int:
        """Return how many outcomes exclude each other."""

    @abstractmethod
    def hot(self, targets: np.ndarray | Ragged, classes: int) -> np.ndarray:
        """Return the targets of the model as ``<float>[texts, classes]``, 1 for what is true."""

    @abstractmethod
    def choose_thresholds(self, probabilities: np.ndarray, hot: np.ndarray) -> list[float] | None:
        """Return the thresholds to keep with the model, chosen on the validation split."""

    @abstractmethod
    def answer(
        self, labels: Sequence[str], calibration: Calibration
    ) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """Return a function from logits to the outputs of the export."""

    @abstractmethod
    def present(self, example: str, answer: dict[str, Any], labels: Sequence[str]) -> Prediction:
        """Return the prediction for one text from the outputs of the export."""

    @abstractmethod
    def columns(self) -> dict[str, type]:
        """Return the columns of answers in a file, without those of probabilities."""

    @abstractmethod
    def cells(self, answer: dict[str, Any]) -> list[Any]:
        """Return the cells of these `columns` from the json of a prediction."""

    @abstractmethod
    def describe(
        self, probabilities: np.ndarray, labels: Sequence[str], calibration: Calibration
    ) -> str:
        """Return the answer to one text in a few words."""

    @abstractmethod
    def example(
        self, record: Any, probabilities: np.ndarray, labels: Sequence[str]
    ) -> tuple[str, str, float]:
        """Return what is true, what is predicted, and with which probability."""

    @abstractmethod
    def evaluate(
        self,
        records: Sequence[Any],
        hot: np.ndarray,
        probabilities: np.ndarray,
        labels: Sequence[str],
        calibration: Calibration,
    ) -> Evaluation:
        """Return scores, figures and tables of the test split."""
