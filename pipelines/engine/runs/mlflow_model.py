"""An exported SavedModel as an MLflow model.

MLflow stores this file with the model and runs it when the model is loaded; it needs TensorFlow
and MLflow, and nothing of this project.
"""

from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class SavedModel(PythonModel):
    """Columns in, columns out: each is one tensor of the serving signature."""

    def load_context(self, context: Any) -> None:
        self._model = tf.saved_model.load(context.artifacts["savedmodel"])
        self._serve = self._model.signatures["serving_default"]

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        specs = self._serve.structured_input_signature[1]
        outputs = self._serve(
            **{
                name: tf.constant(model_input[name].tolist(), spec.dtype)
                for name, spec in specs.items()
            }
        )
        columns = {}
        for name, value in outputs.items():
            array = value.numpy()
            if array.dtype == object:
                array = np.vectorize(lambda raw: raw.decode("utf-8"), otypes=[object])(array)
            columns[name] = array.tolist()
        return pd.DataFrame(columns)


set_model(SavedModel())
