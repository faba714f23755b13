"""The training loop of every task, resumable with identical results.

Keras runs the steps of an epoch; this module runs the epochs. After each epoch it writes one
checkpoint with everything the next one depends on (weights, optimizer, random streams, early
stopping, history), so that a run that was killed and resumed ends like one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
import tensorflow as tf
from keras import ops

from pipelines.engine.config.schema import TrainConfig
from pipelines.engine.core import signals
from pipelines.engine.core.console import Console, ProgressBar
from pipelines.engine.core.errors import TrainingError
from pipelines.engine.training.checkpoints import Checkpoints, assign, read_variables, to_arrays
from pipelines.engine.training.distribution import SingleDevice
from pipelines.engine.training.optimizers import MonitoredGradients, make_optimizer


class Feed(Protocol):
    """The batches that a model is trained on.

    Attributes:
        steps: Batches in one epoch.
        tokens: Tokens in one epoch, without the padding.
        padded_tokens: Tokens in one epoch, with the padding.
    """

    steps: int
    tokens: int
    padded_tokens: int

    def train(self, epoch: int) -> tf.data.Dataset:
        """Return the batches of one epoch, always the same for the same epoch."""

    def validation(self) -> tf.data.Dataset:
        """Return the validation batches."""


@dataclass(frozen=True)
class Objective:
    """What training minimises, reports and selects the best epoch by.

    Attributes:
        loss: The loss that is minimised.
        metrics: Creates the metrics reported beside the loss.
        monitor: The score that selects the best epoch, such as ``val_accuracy``.
        higher_is_better: Whether a higher score is better.
    """

    loss: keras.losses.Loss
    metrics: Callable[[], list[keras.metrics.Metric]]
    monitor: str
    higher_is_better: bool

    def rank(self, score: float) -> float:
        """Return a score with its sign turned where lower is better."""
        return score * (1 if self.higher_is_better else -1)


@dataclass
class State:
    """The progress of a training between two epochs, as its checkpoints store it.

    Attributes:
        epoch: Completed epochs.
        best: The rank (see `Objective.rank`) of the best epoch so far.
        best_epoch: The number of that epoch, from 1.
        waited: Epochs since then.
        history: A record for each epoch.
    """

    epoch: int = 0
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def update_best(self, objective: Objective) -> bool:
        """Compare the last epoch with the best so far; return whether it is better."""
        rank = objective.rank(self.history[-1][objective.monitor])
        is_best = self.best is None or rank > self.best
        if is_best:
            self.best, self.best_epoch, self.waited = rank, self.epoch, 0
        else:
            self.waited += 1
        return is_best

    def is_out_of_patience(self, config: TrainConfig) -> bool:
        """Return whether ``train.patience`` epochs have passed without a better one."""
        return config.patience is not None and self.waited >= config.patience

    def best_so_far(self, objective: Objective) -> dict[str, Any]:
        """Return the best score and its epoch; ``best_rank`` is higher for a better score."""
        return {
            "monitor": objective.monitor,
            "best": objective.rank(self.best or 0.0),
            "best_rank": self.best,
            "best_epoch": self.best_epoch,
        }

    def report(self, objective: Objective, epochs: int) -> dict[str, Any]:
        """Return the last and the best epoch, for a process that watches this training."""
        record = self.history[-1]
        value = record[objective.monitor]
        return {
            "epoch": self.epoch,
            "epochs": epochs,
            "value": value,
            "rank": objective.rank(value),
            "seconds": record["epoch_seconds"],
            **self.best_so_far(objective),
        }


class TrialPruned(Exception):  # noqa: N818 (not an error)
    """Raised when a trial is pruned because its scores are not promising."""


def set_precision(config: TrainConfig) -> None:
    """Set the dtype policy of all layers created from here on."""
    keras.config.set_dtype_policy(config.precision)


def fit(
    model: keras.Model,
    feed: Feed,
    objective: Objective,
    config: TrainConfig,
    *,
    folder: Path,
    console: Console,
    strategy: SingleDevice | None = None,
    evaluation_model: keras.Model | None = None,
    on_epoch: Callable[[State], object] = lambda state: None,
    diagnose: Callable[[int], dict[str, float]] = lambda epoch: {},
) -> State:
    """Train a model; it ends with the weights of its best epoch.

    Args:
        model: Built in the scope of ``strategy``. Training starts from its weights, or from the
            last checkpoint in ``folder``.
        feed, objective: Its batches; its loss, metrics and score.
        config: The config keys under ``train``.
        folder: The folder of the checkpoints.
        console: Shows the progress.
        strategy: How batches are distributed over devices; not at all by default. Only the main
            process calls ``on_epoch`` and ``diagnose`` and uses ``folder``.
        evaluation_model: Receives the weights after each epoch, and the best ones in the end, if
            one process cannot call ``model`` by itself.
        on_epoch: Called after each epoch, before its checkpoint is written; called again if the
            process is killed in between.
        diagnose: Called after each epoch; returns metrics for its record.

    Returns:
        The final state, with the history.

    Raises:
        TrainingError: The loss is not finite, or another process was lost.
    """
    # Whole: what happens after each epoch, and in which order, is best read in one piece.
    strategy = strategy or SingleDevice()
    evaluation_model = evaluation_model or model
    checkpoints = Checkpoints(folder, console.warn)
    with strategy.scope():
        optimizer = _compile(model, objective, config, feed.steps)
        state = State()
        if (saved := strategy.broadcast(checkpoints.load_latest)) is not None:
            assign(_variables(model), saved[0], "checkpoint.npz")
            state = State(**saved[1])
        validation = without_autotune(strategy.shard(feed.validation()))
    while state.epoch < config.epochs and not state.is_out_of_patience(config):
        record = _run_epoch(model, feed, validation, config, strategy, console, state.epoch)
        state.epoch += 1
        with strategy.scope():
            record |= optimizer.pop_metrics()
        _copy_weights(model, evaluation_model, strategy)
        state.history.append(record | (diagnose(state.epoch) if strategy.is_main_process else {}))
        is_best = state.update_best(objective)
        if strategy.is_main_process:
            if is_best:
                checkpoints.save_best(state.epoch, model.variables)
            on_epoch(state)
            checkpoints.save(_variables(model), asdict(state))
            console.epoch(state.epoch, config.epochs, record, is_best=is_best)
    if strategy.is_main_process:
        best = checkpoints.best_path(state.best_epoch)
        assign(evaluation_model.variables, read_variables(best)[0], best.name)
    return state


def _copy_weights(model: keras.Model, copy: keras.Model, strategy: SingleDevice) -> None:
    if copy is not model:
        with strategy.scope():
            weights = to_arrays(model.variables)
        assign(copy.variables, weights, copy.name)


def _compile(
    model: keras.Model, objective: Objective, config: TrainConfig, steps: int
) -> MonitoredGradients:
    """Compile a model, and return the optimizer that monitors its gradients."""
    monitored: Any = make_optimizer(config, steps)
    optimizer = monitored
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(monitored)
    model.compile(optimizer=optimizer, loss=objective.loss, weighted_metrics=objective.metrics())
    optimizer.build(model.trainable_variables)
    return monitored  # type: ignore[no-any-return]


def _run_epoch(
    model: keras.Model,
    feed: Feed,
    validation: tf.data.Dataset,
    config: TrainConfig,
    strategy: SingleDevice,
    console: Console,
    epoch: int,
) -> dict[str, float]:
    """Train for one epoch and evaluate; return the scores, the learning rate and the speed."""
    started = time.perf_counter()
    title = f"epoch {epoch + 1}/{config.epochs}"
    with strategy.scope(), console.progress(title, feed.steps) as bar:
        logs = model.fit(
            without_autotune(strategy.shard(feed.train(epoch))),
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,  # the feed has done it
            verbose=0,
            callbacks=[_StepCallback(bar, feed, config)],
        ).history
    seconds = time.perf_counter() - started
    with strategy.scope():
        scores = model.evaluate(validation, verbose=0, return_dict=True)
        # JAX reports a lost process only where a number is needed: here, inside the scope.
        record = {name: float(values[-1]) for name, values in logs.items()}
        record |= {f"val_{name}": float(value) for name, value in scores.items()}
    record |= {
        "epoch_seconds": seconds,
        "tokens_per_second": feed.tokens / seconds,
        "padding_share": 1.0 - feed.tokens / feed.padded_tokens,
        "learning_rate": float(ops.convert_to_numpy(model.optimizer.learning_rate)),
    }
    if name := next((name for name, value in record.items() if not math.isfinite(value)), None):
        raise TrainingError(
            f"{name} is {record[name]} after epoch {epoch + 1}; lower "
            f"train.learning_rate (now {config.learning_rate:g})"
        )
    return record


def without_autotune(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return a dataset without the thread that tunes tf.data.

    At its end, a dataset waits until that thread wakes up, which sleeps twice as long each time:
    an epoch would take 5, 10, 20 or 41 seconds.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


class _StepCallback(keras.callbacks.Callback):
    """Shows progress; stops when a signal arrives or the loss is not finite."""

    def __init__(self, bar: ProgressBar, feed: Feed, config: TrainConfig) -> None:
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
    """Return all that the next step depends on: weights, random streams, optimizer."""
    return [*model.variables, *model.optimizer.variables]
