"""The optional part of a task's contract that `unfold drift` needs: features of records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from pipelines.engine.core.drift import Histogram
from pipelines.engine.export.digest import Measure

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclass(frozen=True)
class Wording:
    """How a sentence names a feature: "*Texts* are *shorter* … median 21 *words*".

    Attributes:
        subject: What the feature is of, in the plural.
        lower: The subject, if its numbers are lower.
        higher: The subject, if its numbers are higher.
        unit: The unit of the numbers; ``%`` for shares.
        categories: Returns the name that is shown for a category.
    """

    subject: str
    lower: str = "lower"
    higher: str = "higher"
    unit: str = ""
    categories: Callable[[str], str] = str


@dataclass(frozen=True)
class Feature:
    """One feature of the records: numbers, or categories.

    Attributes:
        values: ``[n]``; numbers are floats, categories texts or whole numbers.
        wording: How it is named.
        groups: ``<int>[n]``, where several values come together (the words of a text), which
            record each is of; None if each is of another one.
    """

    values: np.ndarray
    wording: Wording
    groups: np.ndarray | None = None

    def histogram(self) -> Histogram | None:
        """Return the distribution; None if there are no values."""
        if self.values.dtype.kind == "f":
            if not np.isfinite(self.values).any():
                return None
            return Histogram.of_numbers(self.values, self.groups)
        return Histogram.of_categories(self.values, self.groups) if len(self.values) else None


@runtime_checkable
class Comparable(Protocol):
    """A task whose inputs can be compared with those of training. It is optional."""

    def read_inputs(self, config: Any, source: str, report: dict[str, Any]) -> Sequence[Any]:
        """Read the records of new data as a whole; they need no labels.

        Args:
            config: The config, whose ``data`` says how the source is read.
            source: A file, or any other source.
            report: Gets the counts of its rows, and notes.

        Raises:
            UserError: The source cannot be read.
        """

    def features(
        self, config: Any, processor: Any, model: keras.Model, records: Sequence[Any]
    ) -> dict[str, Feature]:
        """Return the features of records, those of their labels included if they have some."""

    def measures(self, config: Any) -> Sequence[Measure]:
        """Return what can be computed from requests and answers alone, as a server sees them."""

    def requests(self, config: Any, records: Sequence[Any]) -> Iterable[dict[str, tf.Tensor]]:
        """Return requests of one row for records, as clients would send them."""
