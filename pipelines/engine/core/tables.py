"""A table of results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Table:
    """Rows under named columns; may be empty."""

    columns: list[str]
    rows: list[list[Any]]
