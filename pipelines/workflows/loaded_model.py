"""A run's SavedModel, loaded to answer inputs as a server of it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.engine.config.schema import Experiment
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.base import Prediction, Task
from pipelines.engine.tasks.catalog import get_task

#: Inputs in one call of the model, and their characters (or steps), padding included.
_BATCH, _BATCH_LENGTH = 32, 2**17


@dataclass(frozen=True)
class LoadedModel:
    """A run's SavedModel, and what is needed to call it.

    Attributes:
        task: The run's task.
        config: The run's config.
        served: The loaded SavedModel.
        run: The run's id.
    """

    task: Task
    config: Experiment
    served: Any
    run: str

    @classmethod
    def of(cls, run: Run, config: Experiment) -> LoadedModel:
        """Load the SavedModel of a run.

        Args:
            run: A run with an export.
            config: The run's config, perhaps with other keys for requests.
        """
        from pipelines.engine.export import savedmodel  # TensorFlow takes seconds to import

        path = run.require("savedmodel")
        return cls(get_task(run.task), config, savedmodel.load(path), run.id)

    @property
    def signatures(self) -> Any:
        """The signatures of the SavedModel by name."""
        return self.served.signatures

    def predict(self, example: str) -> Prediction:
        """Return the prediction for one example.

        Raises:
            UserError: The example cannot be answered.
        """
        return self.task.predict(self.config, self.served, example)

    def predict_all(
        self, examples: Sequence[Any], advance: Callable[[int], object] = lambda count: None
    ) -> list[Prediction]:
        """Return the predictions for any number of examples, in their order.

        Examples of similar length share a call of the model, which pads them to the longest.

        Args:
            examples: What `Task.predict_batch` takes.
            advance: Called after each call of the model, with the number of its examples.
        """
        predictions: dict[int, Prediction] = {}
        rest = sorted(range(len(examples)), key=lambda i: len(examples[i]), reverse=True)
        while rest:
            size = min(_BATCH, max(1, _BATCH_LENGTH // max(1, len(examples[rest[0]]))))
            which, rest = rest[:size], rest[size:]
            found = self.task.predict_batch(self.config, self.served, [examples[i] for i in which])
            predictions |= zip(which, found, strict=True)
            advance(len(which))
        return [predictions[i] for i in range(len(examples))]
