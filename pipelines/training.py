"""One training loop for every task: resumable to the bit, and never silent.

Keras runs the steps of an epoch; this module runs the epochs. After each it writes one
checkpoint with everything the next epoch depends on (weights, optimizer, random streams, early
stopping, history), so that a run that was killed and resumed ends like one that was not.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from keras import ops

# What Keras clips by; it has no public name.
from keras.src.optimizers.base_optimizer import global_norm

from pipelines import signals
from pipelines.config import TrainConfig
from pipelines.console import Console
from pipelines.errors import TrainingError, UserError
from pipelines.files import write_bytes


class Feed(Protocol):
    """What a task trains on."""

    #: Steps and valid (not padded) tokens in one epoch; tokens computed with the padding.
    steps: int
    tokens: int
    padded_tokens: int

    def train(self, epoch: int) -> tf.data.Dataset:
        """The batches of one epoch, the same each time for the same epoch."""

    def validation(self) -> tf.data.Dataset:
        """The validation batches."""


@dataclass(frozen=True)
class Objective:
    """What is minimised, what is reported beside it, and by which score a model is kept."""

    loss: keras.losses.Loss
    metrics: Callable[[], list[keras.metrics.Metric]]
    monitor: str
    higher_is_better: bool


@dataclass
class State:
    """Where training stands, between two epochs."""

    epoch: int = 0
    #: The best score so far, its sign turned so that higher is better.
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def set_precision(config: TrainConfig) -> None:
    keras.config.set_dtype_policy(config.precision)


@keras.saving.register_keras_serializable(package="unfold")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate at a step: a linear warm-up, then constant or falling to a twentieth.

    Args:
        peak: the rate after the warm-up.
        shape: ``constant``, ``linear`` or ``cosine``.
        warmup: steps of the warm-up.
        total: steps of the whole training.
    """

    floor = 0.05

    def __init__(self, peak: float, shape: str, warmup: int, total: int) -> None:
        self.peak, self.shape, self.warmup, self.total = peak, shape, warmup, total

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rise = ops.minimum((step + 1.0) / max(1, self.warmup), 1.0) if self.warmup else 1.0
        done = ops.clip((step - self.warmup) / max(1, self.total - self.warmup), 0.0, 1.0)
        fall = {
            "constant": lambda: 1.0,
            "linear": lambda: 1.0 - (1.0 - self.floor) * done,
            "cosine": lambda: (
                self.floor + (1.0 - self.floor) * 0.5 * (1.0 + ops.cos(math.pi * done))
            ),
        }[self.shape]()
        return self.peak * rise * fall

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "shape": self.shape,
            "warmup": self.warmup,
            "total": self.total,
        }


class Measured:
    """An optimizer that keeps how large the gradients were, and how often they were clipped."""

    def build(self, variables: list[Any]) -> None:
        super().build(variables)  # type: ignore[misc]
        self._norms, self._clipped, self._steps = (
            self.add_variable((), dtype="float32", name=name)  # type: ignore[attr-defined]
            for name in ("norms", "clipped", "steps_measured")
        )

    def apply(self, grads: list[Any], trainable_variables: list[Any] | None = None) -> None:
        super().apply(grads, trainable_variables)  # type: ignore[misc]
        norm = ops.cast(global_norm(grads), "float32")
        self._norms.assign_add(norm)
        if limit := self.global_clipnorm:  # type: ignore[attr-defined]
            self._clipped.assign_add(ops.cast(norm > limit, "float32"))
        self._steps.assign_add(1.0)

    def measured(self) -> dict[str, float]:
        """The mean of the gradient's global norm since it was last asked for, before clipping, and
        the share of steps that were clipped."""
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
class SGD(Measured, keras.optimizers.SGD):
    """`Measured`."""


@keras.saving.register_keras_serializable(package="unfold")
class RMSprop(Measured, keras.optimizers.RMSprop):
    """`Measured`."""


@keras.saving.register_keras_serializable(package="unfold")
class Adam(Measured, keras.optimizers.Adam):
    """`Measured`."""


@keras.saving.register_keras_serializable(package="unfold")
class AdamW(Measured, keras.optimizers.AdamW):
    """`Measured`."""


def make_optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer of a config. ``sgd`` is the chapter's rule: θ ← θ − η ∂L/∂θ."""
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
    if config.optimizer == "adamw":
        return AdamW(**{**common, "weight_decay": config.weight_decay})
    return {
        "sgd": lambda: SGD(**common),
        "momentum": lambda: SGD(momentum=0.9, nesterov=True, **common),
        "rmsprop": lambda: RMSprop(**common),
        "adam": lambda: Adam(**common),
    }[config.optimizer]()


def fit(
    model: keras.Model,
    feed: Feed,
    objective: Objective,
    config: TrainConfig,
    *,
    folder: Path,
    console: Console,
    on_epoch: Callable[[State], object] = lambda state: None,
    examine: Callable[[int], dict[str, float]] = lambda epoch: {},
) -> State:
    """Train ``model`` and leave it with the weights of its best epoch.

    Args:
        model: built; its weights are where training starts, unless ``folder`` holds a
            checkpoint, which is then continued.
        on_epoch: called after each epoch, before its checkpoint is on disk: killed in between, the
            epoch is done again and this called again.
        examine: called with the number of an epoch that has ended; what it finds is put on record.

    Raises:
        TrainingError: the loss is not finite.
    """
    optimizer = make_optimizer(config, feed.steps)
    measured = optimizer
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer=optimizer, loss=objective.loss, metrics=objective.metrics())
    optimizer.build(model.trainable_variables)
    checkpoint, best = folder / "checkpoint.npz", folder / "best.npz"
    state = State()
    if checkpoint.exists():
        state = State(**load_variables(checkpoint, _variables(model)))
    validation = without_tuning(feed.validation())
    while state.epoch < config.epochs and not _out_of_patience(state, config):
        started = time.perf_counter()
        with console.progress(f"epoch {state.epoch + 1}/{config.epochs}", feed.steps) as bar:
            logs = model.fit(
                without_tuning(feed.train(state.epoch)),
                initial_epoch=state.epoch,
                epochs=state.epoch + 1,
                shuffle=False,  # the feed has done it
                verbose=0,
                callbacks=[_Watch(bar, feed, config)],
            ).history
        seconds = time.perf_counter() - started
        scores = model.evaluate(validation, verbose=0, return_dict=True)
        record = {name: float(values[-1]) for name, values in logs.items()}
        record |= {f"val_{name}": float(value) for name, value in scores.items()}
        record |= {
            "epoch_seconds": seconds,
            "tokens_per_second": feed.tokens / seconds,
            "padding_share": 1.0 - feed.tokens / feed.padded_tokens,
            "learning_rate": float(ops.convert_to_numpy(optimizer.learning_rate)),
        }
        if odd := next((name for name, value in record.items() if not math.isfinite(value)), None):
            raise TrainingError(
                f"{odd} is {record[odd]} after epoch {state.epoch + 1}; lower "
                f"train.learning_rate (now {config.learning_rate:g})"
            )
        state.epoch += 1
        state.history.append(record | measured.measured() | examine(state.epoch))
        score = record[objective.monitor] * (1 if objective.higher_is_better else -1)
        if state.best is None or score > state.best:
            state.best, state.best_epoch, state.waited = score, state.epoch, 0
            save_variables(best, model.variables, {})
        else:
            state.waited += 1
        on_epoch(state)
        save_variables(checkpoint, _variables(model), asdict(state))
        console.epoch(state.epoch, config.epochs, record, is_best=state.waited == 0)
    load_variables(best, model.variables)
    return state


def without_tuning(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Without the thread that tunes tf.data: an epoch that has ended waits until it wakes up next,
    and it sleeps twice as long each time, so that an epoch takes 5, 10, 20 or 41 seconds."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def _out_of_patience(state: State, config: TrainConfig) -> bool:
    return config.patience is not None and state.waited >= config.patience


class _Watch(keras.callbacks.Callback):
    """Shows progress, and stops where a stop is wanted or the loss is no number any more."""

    def __init__(self, bar: Any, feed: Feed, config: TrainConfig) -> None:
        super().__init__()
        self.bar, self.feed, self.config = bar, feed, config

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        signals.check()
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            clip = self.config.clip_norm
            raise TrainingError(
                f"the loss is {loss} after step {batch + 1}: the gradient exploded; lower "
                f"train.learning_rate (now {self.config.learning_rate:g}) or "
                + (f"train.clip_norm (now {clip:g})" if clip else "set train.clip_norm, e.g. to 1")
            )
        self.bar.advance(self.feed.tokens / self.feed.steps, loss)


def _variables(model: keras.Model) -> list[Any]:
    """All that the next step depends on: weights, random streams, optimizer."""
    return [*model.variables, *model.optimizer.variables]


def save_variables(path: Path, variables: list[Any], meta: dict[str, Any]) -> None:
    """Variables by position with their paths, and ``meta`` as JSON, in one atomic file."""
    arrays = {f"v{i}": _to_numpy(v) for i, v in enumerate(variables)}
    arrays["meta"] = np.frombuffer(
        json.dumps({"paths": [v.path for v in variables], "meta": meta}).encode(), np.uint8
    )
    write_bytes(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def load_variables(path: Path, variables: list[Any]) -> dict[str, Any]:
    """Put saved values back and return the saved ``meta``."""
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as saved:
        head = json.loads(bytes(saved["meta"]))
        shapes = [saved[f"v{i}"].shape for i in range(len(head["paths"]))]
        if shapes != [tuple(v.shape) for v in variables]:
            raise UserError(f"{path}: belongs to another model than this config builds")
        for i, variable in enumerate(variables):
            variable.assign(saved[f"v{i}"])
    return dict(head["meta"])


def _to_numpy(variable: Any) -> np.ndarray:
    value = np.asarray(ops.convert_to_numpy(variable.value))
    # NumPy files have no bfloat16; float32 holds each of its values exactly.
    return value.astype(np.float32) if value.dtype.name == "bfloat16" else value
