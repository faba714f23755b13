"""The folder in which runs, exports and the MLflow store are kept."""

from __future__ import annotations

import os
from pathlib import Path

#: The folder that runs, exports and the MLflow store are kept in; the working directory if unset.
HOME_VARIABLE = "UNFOLD_HOME"


def home() -> Path:
    return Path(os.environ.get(HOME_VARIABLE, ".")).expanduser().resolve()
