"""What a model's inputs and answers were like in training: a small file inside its SavedModel.

It has histograms and no texts of records, so that `unfold drift` and the server can compare new
inputs with those of training wherever the SavedModel is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.engine.core.drift import Histogram
from pipelines.engine.core.files import write_text
from pipelines.engine.core.paths import EXPORT_DIGEST

#: Version of the file's format.
_SCHEMA = 1

Arrays = Mapping[str, np.ndarray]
How = Literal[
    "characters", "words", "bytes", "category", "value",
    "steps", "mean", "spread", "variation", "change",
]  # fmt: skip


class Measure(BaseModel):
    """A number or a category that is computed from a request or its answer, for each row.

    Attributes:
        name: Name of the feature.
        side: Whether the tensor is an input or an output of ``serving_default``.
        tensor: Name of the tensor.
        how: What is computed: of a text its ``characters``, ``words`` (separated by white space)
            or ``bytes``; a ``category`` or a ``value`` as it is; of the first column of a series
            the number of ``steps``, the ``mean``, the ``spread`` (standard deviation), or,
            relative to the mean size of the values, the spread (``variation``) and the mean
            ``change`` from step to step.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    side: Literal["input", "output"]
    tensor: str
    how: How

    def of(self, inputs: Arrays, outputs: Arrays) -> list[Any]:
        """Return a number or a category for each row; none if the tensor has no rows."""
        array = (inputs if self.side == "input" else outputs).get(self.tensor)
        return [] if array is None or array.ndim == 0 else _HOW[self.how](array)


class MeasuredHistogram(BaseModel):
    """A measure and its distribution in training."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    measure: Measure
    histogram: Histogram


class Digest(BaseModel):
    """The distributions of a model's inputs and answers in training.

    Attributes:
        version: Version of the format.
        split: The split that they are of.
        records: Number of records of that split.
        used: Number of those that the distributions were computed from.
        answered: Number of records of ``measured``.
        features: Distributions of what the task computes from records.
        measured: Distributions of what a server can compute from requests and answers.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = _SCHEMA
    split: str
    records: int
    used: int
    answered: int
    features: dict[str, Histogram]
    measured: tuple[MeasuredHistogram, ...]

    def write(self, folder: Path) -> None:
        """Write the digest into a SavedModel, whole or not at all."""
        text = self.model_dump_json(indent=1, exclude_none=True)
        write_text(folder / EXPORT_DIGEST, text + "\n")

    @classmethod
    def read(cls, folder: Path) -> Digest | None:
        """Read the digest of a SavedModel; None if it has none.

        Raises:
            ValueError: The file cannot be read, or was written by a newer version.
        """
        path = folder / EXPORT_DIGEST
        try:
            digest = cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise ValueError(f"{path}: damaged ({place}: {first['msg']})") from None
        if digest.version > _SCHEMA:
            raise ValueError(f"{path}: written by a newer version ({digest.version})")
        return digest


def _texts(function: Callable[[bytes], Any]) -> Callable[[np.ndarray], list[Any]]:
    return lambda array: [function(text) for text in array.ravel().tolist()]


def _numbers(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], list[Any]]:
    """Apply a function to the first column of each row, ``<float64>[rows, steps]``."""

    def apply(array: np.ndarray) -> list[Any]:
        if array.ndim < 2 or not array.size:
            return []
        series = np.asarray(array, np.float64).reshape(*array.shape[:2], -1)
        with np.errstate(all="ignore"):  # what is not finite is not counted
            return list(function(series[..., 0]).tolist())

    return apply


def _size(series: np.ndarray) -> np.ndarray:
    """Return the mean absolute value of each row."""
    return np.asarray(np.abs(series).mean(axis=1))


def _change(series: np.ndarray) -> np.ndarray:
    """Return the mean absolute change of each row from step to step; 0 for a single step."""
    return np.asarray(np.abs(np.diff(series)).sum(axis=1) / max(series.shape[1] - 1, 1))


_HOW: dict[How, Callable[[np.ndarray], list[Any]]] = {
    "characters": _texts(lambda text: len(text.decode("utf-8", "replace"))),
    "words": _texts(lambda text: len(text.split())),
    "bytes": _texts(len),
    "category": _texts(lambda text: text.decode("utf-8", "replace")),
    "value": lambda array: list(array.ravel().tolist()),
    "steps": lambda array: [array.shape[1] if array.ndim > 1 else 1] * len(array),
    "mean": _numbers(lambda series: series.mean(axis=1)),
    "spread": _numbers(lambda series: series.std(axis=1)),
    "variation": _numbers(lambda series: series.std(axis=1) / _size(series)),
    "change": _numbers(lambda series: _change(series) / _size(series)),
}
