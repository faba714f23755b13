"""Task pipelines: config → data → model → training → evaluation → export.

Nothing downstream is imported upstream. Each task is one package (``pipelines.sentiment``)
that holds only what is its own; everything else is shared by all tasks.

The names in ``__all__`` are the Python API, see `pipelines.api`. They are imported when they are
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.api import (
        Experiment,
        Model,
        Prediction,
        TrainingError,
        UserError,
        load,
        resume,
        train,
    )

__all__ = [
    "Experiment",
    "Model",
    "Prediction",
    "TrainingError",
    "UserError",
    "load",
    "resume",
    "train",
]

if not TYPE_CHECKING:  # a type checker knows the names, and no others

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from pipelines import api

        return getattr(api, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
