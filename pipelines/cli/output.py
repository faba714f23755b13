"""Results on standard output, as JSON or as a table."""

from __future__ import annotations

import json
from typing import Any

from pipelines.engine.core.console import Console


def print_json(value: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_scores(
    console: Console, title: str, scores: dict[str, float], verdict: list[str]
) -> None:
    """Print a table of test scores, and the sentences that compare them with the baselines."""
    console.table(title, ["metric", "test"], [[k, f"{v:.4f}"] for k, v in scores.items()])
    for sentence in verdict:
        print(sentence)
