"""Optimizers that record gradient norms, and their learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from pipelines.engine.config.schema import TrainConfig
from pipelines.engine.core import _compat


@keras.saving.register_keras_serializable(package="unfold")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, then a rate that stays constant or decays to a twentieth of its peak.

    Args:
        peak: The rate after the warm-up.
        shape: ``constant``, ``linear`` or ``cosine``.
        warmup: Steps of the warm-up.
        total: Steps of the whole training.
    """

    floor = 0.05

    def __init__(self, peak: float, shape: str, warmup: int, total: int) -> None:
        self.peak, self.shape, self.warmup, self.total = peak, shape, warmup, total

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rise = ops.minimum((step + 1.0) / max(1, self.warmup), 1.0) if self.warmup else 1.0
        done = ops.clip((step - self.warmup) / max(1, self.total - self.warmup), 0.0, 1.0)
        fall: Any
        match self.shape:
            case "constant":
                fall = 1.0
            case "linear":
                fall = 1.0 - (1.0 - self.floor) * done
            case "cosine":
                fall = self.floor + (1.0 - self.floor) * 0.5 * (1.0 + ops.cos(math.pi * done))
            case _:
                raise ValueError(f"shape must be constant, linear or cosine, not {self.shape!r}")
        return self.peak * rise * fall

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "shape": self.shape,
            "warmup": self.warmup,
            "total": self.total,
        }


class MonitoredGradients:
    """A mixin for optimizers that records gradient norms and how often gradients were clipped."""

    def build(self, variables: list[Any]) -> None:
        super().build(variables)  # type: ignore[misc]
        self._norms, self._clipped, self._steps = (
            self.add_variable(  # type: ignore[attr-defined]
                (), dtype="float32", name=name, aggregation="only_first_replica"
            )
            for name in ("norms", "clipped", "steps_measured")
        )

    def apply(self, grads: list[Any], trainable_variables: list[Any] | None = None) -> None:
        if keras.backend.backend() == "tensorflow":
            # Keras would clip on each device before it adds up over the devices.
            variables = trainable_variables or self._trainable_variables  # type: ignore[attr-defined]
            grads = _compat.sum_over_replicas(super(), grads, variables)
        super().apply(grads, trainable_variables)  # type: ignore[misc]
        norm = ops.cast(global_norm(grads), "float32")
        self._norms.assign_add(norm)
        if limit := self.global_clipnorm:  # type: ignore[attr-defined]
            self._clipped.assign_add(ops.cast(norm > limit, "float32"))
        self._steps.assign_add(1.0)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars  # `apply` has added them up

    def pop_metrics(self) -> dict[str, float]:
        """Return what was recorded since the last call, and start anew.

        Returns:
            The mean global norm of the gradient before clipping, and the share of clipped steps.
        """
        norms, clipped, steps = (
            float(ops.convert_to_numpy(v)) for v in (self._norms, self._clipped, self._steps)
        )
        for variable in (self._norms, self._clipped, self._steps):
            variable.assign(0.0)
        return {
            "health/gradient_norm": norms / max(steps, 1.0),
            "health/clipped_share": clipped / max(steps, 1.0),
        }


@keras.saving.register_keras_serializable(package="unfold")
class SGD(MonitoredGradients, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with `MonitoredGradients`."""


@keras.saving.register_keras_serializable(package="unfold")
class RMSprop(MonitoredGradients, keras.optimizers.RMSprop):
    """`keras.optimizers.RMSprop` with `MonitoredGradients`."""


@keras.saving.register_keras_serializable(package="unfold")
class Adam(MonitoredGradients, keras.optimizers.Adam):
    """`keras.optimizers.Adam` with `MonitoredGradients`."""


@keras.saving.register_keras_serializable(package="unfold")
class AdamW(MonitoredGradients, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with `MonitoredGradients`."""


def global_norm(gradients: Sequence[Any]) -> Any:
    """Return √(Σ g²) over all gradients, by which Keras clips; None entries are skipped."""
    squares = [ops.sum(ops.square(gradient)) for gradient in gradients if gradient is not None]
    return ops.sqrt(ops.sum(ops.stack(squares)))


def make_optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Create the optimizer that a config chooses.

    ``sgd`` is the chapter's rule: θ ← θ − η ∂L/∂θ.
    """
    common: dict[str, Any] = {
        "learning_rate": Schedule(
            config.learning_rate,
            config.schedule,
            config.warmup_steps,
            steps_per_epoch * config.epochs,
        ),
        "global_clipnorm": config.clip_norm,
        "weight_decay": config.weight_decay or None,
    }
    match config.optimizer:
        case "sgd":
            return SGD(**common)
        case "momentum":
            return SGD(momentum=0.9, nesterov=True, **common)
        case "rmsprop":
            return RMSprop(**common)
        case "adam":
            return Adam(**common)
        case "adamw":
            return AdamW(**common | {"weight_decay": config.weight_decay})
