"""Where the answers of a model come from: a run, its data and its test score."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from pipelines.engine.runs.mlflow_names import shorten
from pipelines.engine.runs.registry import Champion
from pipelines.engine.runs.run import Run
from pipelines.engine.tasks.catalog import get_config

#: The longest list of sources that is shown.
_LONGEST_DATA = 200


@dataclass(frozen=True)
class Origin:
    """What is said of a model wherever it answers.

    Attributes:
        model: the model's name.
        run: the id of the run that trained it.
        data: the sources that it was trained on; None if unknown.
        metric: the task's main metric.
        score: the run's test score in it; None if unknown.
    """

    model: str
    run: str
    data: str | None
    metric: str
    score: float | None

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the origin of a run's answers."""
        info, metric = run.info, get_config(run.task).score.name
        sources = ", ".join(name for name, _ in info.data.sources()) or None
        return cls(run.model_name, run.id, sources, metric, info.scores.get(metric))

    @classmethod
    def of_champion(cls, task: str, model: str, champion: Champion) -> Self:
        """Return the origin of a champion's answers; its run may be on another machine."""
        metric = get_config(task).score.name
        return cls(model, champion.run, champion.data, metric, champion.score)

    def to_dict(self) -> dict[str, Any]:
        """Return what is known, as JSON data."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def describe(self, reason: str) -> str:
        """Describe it in one line.

        Args:
            reason: why it is this run that answers.
        """
        parts = [f"model {self.model}, run {self.run}: {reason}"]
        if self.data is not None:
            parts.append(f"data {shorten(self.data, _LONGEST_DATA)}")
        if self.score is not None:
            parts.append(f"test {self.metric.replace('_', ' ')} {self.score:.4f}")
        return "; ".join(parts)
