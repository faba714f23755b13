"""The scores of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Scores(dict[str, float]):
    """Scores by name.

    Attributes:
        records: The number of records that were scored.
        verdict: Sentences that compare the scores with the baselines; empty if the task has none.

    Args:
        result: What `pipelines.workflows.evaluate.evaluate` returned.
    """

    def __init__(self, result: Mapping[str, Any]) -> None:
        super().__init__((k, v) for k, v in result.items() if isinstance(v, float))
        self.records: int = result["records"]
        self.verdict: list[str] = result.get("verdict", [])
