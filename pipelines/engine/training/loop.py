"""One training loop for every task: resumable to the bit, and never silent.

Keras runs the steps of an epoch; this module runs the epochs. After each it writes one
checkpoint with everything the next epoch depends on (weights, optimizer, random streams, early
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
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import TrainingError
from pipelines.engine.training.checkpoints import Checkpoints, arrays, assign, read_variables
from pipelines.engine.training.distribution import SingleDevice
from pipelines.engine.training.optimizers import make_optimizer


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

    def standing(self, objective: Objective) -> dict[str, Any]:
        """The best so far; ``best_rank`` has its sign turned where lower is better."""
        best = (self.best or 0.0) * (1 if objective.higher_is_better else -1)
        return {
            "monitor": objective.monitor,
            "best": best,
            "best_rank": self.best,
            "best_epoch": self.best_epoch,
        }

    def report(self, objective: Objective, epochs: int) -> dict[str, Any]:
        """Where training stands, for whoever watches it from another process."""
        record = self.history[-1]
        value = record[objective.monitor]
        return {
            "epoch": self.epoch,
            "epochs": epochs,
            "value": value,
            "rank": value * (1 if objective.higher_is_better else -1),
            "seconds": record["epoch_seconds"],
            **self.standing(objective),
        }


class TrialPruned(Exception):  # noqa: N818 (nothing went wrong)
    """Whoever compares this training with others sees no promise in it: it ends here."""


def set_precision(config: TrainConfig) -> None:
    keras.config.set_dtype_policy(config.precision)


def fit(
    model: keras.Model,
    feed: Feed,
    objective: Objective,
    config: TrainConfig,
    *,
    folder: Path,
    console: Console,
    parallel: SingleDevice | None = None,
    seen: keras.Model | None = None,
    on_epoch: Callable[[State], object] = lambda state: None,
    examine: Callable[[int], dict[str, float]] = lambda epoch: {},
) -> State:
    """Train ``model`` and leave it with the weights of its best epoch.

    Args:
        model: built in the scope of ``parallel``; its weights are where training starts, unless
            ``folder`` holds a checkpoint, which is then continued.
        parallel: what divides the batches; one device does it all if not given. A process that
            does not write calls neither ``on_epoch`` nor ``examine``, and uses no ``folder``.
        seen: what has the weights after each epoch, and the best in the end, in place of ``model``
            where that cannot be asked by one process.
        on_epoch: called after each epoch, before its checkpoint is on disk: killed in between, the
            epoch is done again and this called again.
        examine: called with the number of an epoch that has ended; what it finds is put on record.

    Raises:
        TrainingError: the loss is not finite, or another process was lost.
    """
    parallel, seen = parallel or SingleDevice(), seen or model
    checkpoints = Checkpoints(folder, console.warn)
    with parallel.scope():
        optimizer = make_optimizer(config, feed.steps)
        measured = optimizer
        if config.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(
            optimizer=optimizer, loss=objective.loss, weighted_metrics=objective.metrics()
        )
        optimizer.build(model.trainable_variables)
        state = State()
        if (saved := parallel.spread(checkpoints.latest)) is not None:
            assign(_variables(model), saved[0], "checkpoint.npz")
            state = State(**saved[1])
        validation = without_tuning(parallel.divide(feed.validation()))
    while state.epoch < config.epochs and not _out_of_patience(state, config):
        started = time.perf_counter()
        title = f"epoch {state.epoch + 1}/{config.epochs}"
        with parallel.scope(), console.progress(title, feed.steps) as bar:
            logs = model.fit(
                without_tuning(parallel.divide(feed.train(state.epoch))),
                initial_epoch=state.epoch,
                epochs=state.epoch + 1,
                shuffle=False,  # the feed has done it
                verbose=0,
                callbacks=[_Watch(bar, feed, config)],
            ).history
        seconds = time.perf_counter() - started
        with parallel.scope():
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
        record |= measured.pop_metrics()
        if seen is not model:
            assign(seen.variables, arrays(model.variables), seen.name)
        state.history.append(record | (examine(state.epoch) if parallel.writes else {}))
        score = record[objective.monitor] * (1 if objective.higher_is_better else -1)
        if is_best := state.best is None or score > state.best:
            state.best, state.best_epoch, state.waited = score, state.epoch, 0
        else:
            state.waited += 1
        if parallel.writes:
            if is_best:
                checkpoints.save_best(state.epoch, model.variables)
            on_epoch(state)
            checkpoints.save(_variables(model), asdict(state))
            console.epoch(state.epoch, config.epochs, record, is_best=is_best)
    if parallel.writes:
        best = checkpoints.best(state.best_epoch)
        assign(seen.variables, read_variables(best)[0], best.name)
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
