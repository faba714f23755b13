"""The loss of a `Forecaster` and its metrics."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from pipelines.engine.training.losses import MeanLoss, weighted
from pipelines.forecasting import distributions


@keras.saving.register_keras_serializable(package="unfold")
class ForecastLoss(MeanLoss):
    """The mean of `distributions.losses` over all targets that are not NaN.

    Args:
        head: The kind of distribution, see `ForecastingModelConfig`.
        quantiles: The levels of the quantiles, for ``head: quantiles``.

    Call arguments:
        targets: ``<float32>[batch, origins, steps]``, changes of the level; NaN where there is no
            target.
        outputs: The outputs of a `Forecaster`.
    """

    def __init__(self, head: str, quantiles: list[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head, self.quantiles = head, list(quantiles)

    def elementwise(self, targets: Any, outputs: Any) -> tuple[Any, Any, Any]:
        """Compute the loss and the squared error of every target.

        Returns:
            ``(loss, (z − median)², weight)``, each of the shape of the targets. The weight is 1 for
            a target and 0 for NaN, where the other two are 0 as well.
        """
        targets = ops.cast(targets, "float32")
        exists = ops.logical_not(ops.isnan(targets))
        base, unit, parameters = outputs[..., 0], outputs[..., 1], outputs[..., 2:]
        z = (ops.where(exists, targets, base) - base) / unit
        loss = distributions.losses(z, parameters, self.head, self.quantiles)
        error = z - distributions.median(parameters, self.head, self.quantiles)
        weight = ops.cast(exists, "float32")
        return loss * weight, ops.square(error) * weight, weight

    def parts(self, targets: Any, outputs: Any) -> tuple[Any, Any]:
        loss, _, weight = self.elementwise(targets, outputs)
        return loss, weight

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {"head": self.head, "quantiles": self.quantiles}


# The registered name is that of saved models.
@keras.saving.register_keras_serializable(package="unfold", name="MeanOf")
class ForecastMetric(keras.metrics.Metric):
    """The mean loss, or the root mean squared error of the median, over an epoch.

    Args:
        loss: The loss of the model.
        kind: ``loss``, or ``rmse`` for the error in standard units.
    """

    def __init__(self, loss: ForecastLoss, kind: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss, self.kind = loss, kind
        self.total = self.add_weight(name="total", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, targets: Any, outputs: Any, sample_weight: Any = None) -> None:
        elementwise = self.loss.elementwise(targets, outputs)
        loss, square, weight = weighted(sample_weight, *elementwise)
        self.total.assign_add(ops.sum(loss if self.kind == "loss" else square))
        self.count.assign_add(ops.sum(weight))

    def result(self) -> Any:
        mean = self.total / ops.maximum(self.count, 1.0)
        return mean if self.kind == "loss" else ops.sqrt(mean)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {
            "loss": keras.saving.serialize_keras_object(self.loss),
            "kind": self.kind,
        }
