"""The Python API: train models and use them, from a notebook or a service.

Importing it is cheap and changes nothing in the process: Keras and TensorFlow are imported, and the
device is selected, by the first call that needs them. Errors are exceptions (`UserError`,
`TrainingError`), and nothing is written to standard output. See ``docs/python.md``.
"""

from pipelines.api.model import Model, load
from pipelines.api.training import resume, train
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.errors import TrainingError, UserError
from pipelines.engine.tasks.base import Prediction

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
