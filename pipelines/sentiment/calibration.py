"""Learn from the validation split how sure a trained model may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from scipy.optimize import minimize_scalar

#: The temperatures that are tried.
_LOWEST, _HIGHEST = 0.05, 20.0
#: Parts of the validation split, each of which checks a temperature of the others.
_FOLDS = 5

#: ``(logits <float>[rows, classes], targets <float>[rows, classes])`` → losses ``[rows]``.
Losses = Callable[[np.ndarray, np.ndarray], np.ndarray]


@keras.saving.register_keras_serializable(package="unfold")
class Calibration(keras.layers.Layer):
    """Logits divided by a temperature (Guo et al. 2017), the last layer of a calibrated model.

    It has no weights, and is added after training: a model without it has the temperature 1.

    Args:
        temperature: T > 0. The answer with the highest logit stays the same; above 1 the
            probabilities are less extreme, below 1 more.
        thresholds: The smallest probabilities of the answers that are given, which were chosen
            with this temperature: one for all classes, or one for each label.

    Call: ``<float>[batch, classes]`` → ``<float>[batch, classes]``.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        thresholds: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.temperature = temperature
        self.thresholds = None if thresholds is None else list(thresholds)

    def call(self, logits: Any) -> Any:
        return logits / self.temperature

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {"temperature": self.temperature, "thresholds": self.thresholds}


def calibrated(
    model: keras.Model, temperature: float, thresholds: Sequence[float] | None
) -> keras.Model:
    """Return a model with a `Calibration` as its last layer; the model itself if it needs none."""
    if temperature == 1.0 and thresholds is None:
        return model
    layer = Calibration(temperature, thresholds, dtype="float32", name="calibration")
    return keras.Model(model.inputs[0], layer(model.outputs[0]), name=model.name)


def calibration_of(model: keras.Model) -> Calibration:
    """Return the calibration of a model; that with the temperature 1 if it has none."""
    last = model.layers[-1]
    return last if isinstance(last, Calibration) else Calibration()


def learn_temperature(
    losses: Losses, logits: np.ndarray, targets: np.ndarray, *, outcomes: int, seed: int
) -> float:
    """Return the temperature that makes the mean loss of the validation split smallest.

    It is 1 unless a temperature helps where it was not learned: a fifth of the rows, which are
    drawn at random, is scored with the temperature of the others, and so are the other fifths.

    Args:
        losses: The loss of each row.
        logits: ``<float>[rows, classes]``.
        targets: ``<float>[rows, classes]``, 1 for what is true.
        outcomes: How many outcomes exclude each other: the number of classes, or 2 for labels.
        seed: Seed of the parts.
    """
    rows = len(logits)
    if rows < 2:
        return 1.0
    folds = np.random.default_rng(seed).permutation(rows) % min(_FOLDS, rows)
    after = np.zeros(rows)
    for fold in np.unique(folds):
        out = folds == fold
        temperature = _best_temperature(losses, logits[~out], targets[~out], outcomes)
        after[out] = losses(logits[out] / temperature, targets[out])
    if after.mean() >= losses(logits, targets).mean():
        return 1.0
    return _best_temperature(losses, logits, targets, outcomes)


def _best_temperature(
    losses: Losses, logits: np.ndarray, targets: np.ndarray, outcomes: int
) -> float:
    # As if each outcome had been seen once more (Platt 1999). Without it, the best temperature
    # for a few rows that are all right is 0, and every answer certain.
    rows = len(logits)
    smoothed = (targets * rows + 1) / (rows + outcomes)
    found = minimize_scalar(
        lambda log: losses(logits / np.exp(log), smoothed).mean(),
        bounds=(np.log(_LOWEST), np.log(_HIGHEST)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return round(float(np.exp(found.x)), 4)
