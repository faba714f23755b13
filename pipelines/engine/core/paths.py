"""The folder of runs, exports and the MLflow store."""

from __future__ import annotations

import os
from pathlib import Path

#: Environment variable with that folder; by default it is the working directory.
HOME_VARIABLE = "UNFOLD_HOME"


def home() -> Path:
    """Return the absolute path of the folder."""
    return Path(os.environ.get(HOME_VARIABLE, ".")).expanduser().resolve()
