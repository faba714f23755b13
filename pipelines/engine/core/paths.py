"""The folder of runs, exports and the MLflow store."""

from __future__ import annotations

import os
from pathlib import Path

#: Environment variable with that folder; by default it is the working directory.
HOME_VARIABLE = "UNFOLD_HOME"

#: The file in an export that says which run, data and score it is of; TensorFlow reserves the
#: folder for such files, and does not read them.
EXPORT_ORIGIN = Path("assets.extra", "unfold.json")
#: The file in a SavedModel with the distributions of its inputs and answers in training.
EXPORT_DIGEST = Path("assets.extra", "drift.json")


def home() -> Path:
    """Return the absolute path of the folder."""
    return Path(os.environ.get(HOME_VARIABLE, ".")).expanduser().resolve()
