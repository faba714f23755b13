"""Large matrices of cases: `make test` takes some of them, `make test-all` the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def thorough_after(count: int, cases: Iterable[Any]) -> list[Any]:
    """Return parameters of which all but the first ``count`` are marked ``thorough``."""
    found = list(cases)
    return found[:count] + [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.thorough)
        for case in found[count:]
    ]
