"""One model on several devices: each computes the gradient of its share of a batch.

Rows are divided evenly. A batch that does not divide is filled up with copies of its last row
that have no weight, so that every loss and metric is that of the batch (see `losses.MeanLoss`).
The weights after a step are those of one device that had the whole batch, within rounding.
"""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipelines.engine.config.schema import TrainConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.training.cluster import Cluster


class SingleDevice:
    """One device, or whatever the backend makes of several."""

    #: Among how many devices the rows of a batch are divided.
    devices = 1
    #: Whether this process writes what is to be kept, and speaks.
    writes = True

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """What the model, its optimizer and its metrics are made, trained and scored in."""
        return contextlib.nullcontext()

    def divide(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """This process's share of each batch."""
        return batches

    def spread(self, read: Callable[[], tuple[dict, dict] | None]) -> tuple[dict, dict] | None:
        """What the process that writes has read from its disk, in every process."""
        return read()

    def seen(self, model: keras.Model, build: Callable[[], keras.Model]) -> keras.Model:
        """A model with the weights of ``model`` that can be asked outside of `scope`."""
        return model

    def agree(self, what: str, value: str) -> None:
        """See that every process has the same."""

    def copied(self, folder: Path) -> Path:
        """A small folder of the process that writes, or the same elsewhere."""
        return folder

    def on_loss(self, what: Callable[[], object]) -> None:
        """What is to be done before this process ends because another one is lost."""

    def leave(self) -> None:
        """Training is over: what follows is the business of the process that writes."""


class Distributed(SingleDevice):
    """What the ways to divide a training have in common."""

    def seen(self, model: keras.Model, build: Callable[[], keras.Model]) -> keras.Model:
        # The other devices, and processes, would have to compute as well.
        return build()


class Mirrored(Distributed):
    """The devices of this process, by `tf.distribute.MirroredStrategy`."""

    def __init__(self) -> None:
        gpus = tf.config.list_logical_devices("GPU")
        devices = gpus or tf.config.list_logical_devices("CPU")
        # Not the default, collective ops: the order of two of them (a batch's weight, and its
        # gradients) can be another one on each device, and then they do not fit.
        ways = tf.distribute.NcclAllReduce if gpus else tf.distribute.ReductionToOneDevice
        self._strategy = tf.distribute.MirroredStrategy([d.name for d in devices], ways())
        self.devices = self._strategy.num_replicas_in_sync

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return self._strategy.scope()

    def divide(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        return batches.map(lambda *batch: filled(batch, self.devices))


class MultiProcess(Distributed):
    """All devices of all processes, by `keras.distribution.DataParallel` on JAX."""

    def __init__(self, cluster: Cluster | None) -> None:
        self._cluster = cluster
        self._count, self._number = (cluster.processes, cluster.number) if cluster else (1, 0)
        self.writes = self._number == 0
        self._parallel = keras.distribution.DataParallel(auto_shard_dataset=False)
        self.devices = len(keras.distribution.list_devices())

    @contextlib.contextmanager
    def scope(self) -> Any:
        watching = self._cluster.watching() if self._cluster else contextlib.nullcontext()
        with watching, self._parallel.scope():
            yield

    def divide(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        def share(*batch: Any) -> Any:
            whole = filled(batch, self.devices)
            rows = tf.shape(whole[-1])[0] // self._count
            first = rows * self._number
            return tf.nest.map_structure(lambda t: t[first : first + rows], whole)

        return batches.map(share)

    def spread(self, read: Callable[[], tuple[dict, dict] | None]) -> tuple[dict, dict] | None:
        found = read() if self.writes else None
        if self._cluster is None:
            return found
        from jax.experimental import multihost_utils

        head = None
        if self.writes and found is not None:
            shapes = {n: [a.shape, a.dtype.str] for n, a in found[0].items()}
            head = {"arrays": shapes, "meta": found[1]}
        head = json.loads(self._cluster.tell(json.dumps(head) if self.writes else None))
        if head is None:
            return None
        arrays = (
            found[0]
            if found is not None
            else {n: np.zeros(shape, kind) for n, (shape, kind) in head["arrays"].items()}
        )
        # As bytes: JAX would narrow what has 64 bits.
        raw = {n: np.frombuffer(a.tobytes(), np.uint8) for n, a in arrays.items()}
        got = multihost_utils.broadcast_one_to_all(raw, is_source=self.writes)
        return {
            n: np.frombuffer(np.asarray(got[n]).tobytes(), a.dtype).reshape(a.shape)
            for n, a in arrays.items()
        }, head["meta"]

    def agree(self, what: str, value: str) -> None:
        if self._cluster:
            self._cluster.agree(what, value)

    def copied(self, folder: Path) -> Path:
        if self._cluster is None:
            return folder
        files = None
        if self.writes:
            paths = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
            files = json.dumps(
                {name: base64.b64encode(p.read_bytes()).decode() for name, p in paths.items()}
            )
        told = json.loads(self._cluster.tell(files))
        if self.writes:
            return folder
        self._folder = tempfile.TemporaryDirectory()
        for name, text in told.items():
            path = Path(self._folder.name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(text))
        return Path(self._folder.name)

    def on_loss(self, what: Callable[[], object]) -> None:
        if self._cluster:
            self._cluster.on_loss = what

    def leave(self) -> None:
        if self._cluster:
            self._cluster.leave()


def choose(config: TrainConfig, cluster: Cluster | None, *, carries_state: bool) -> SingleDevice:
    """How a config says that a model is trained.

    Args:
        carries_state: whether the state after a batch is where the next one starts.

    Raises:
        UserError: such a state cannot be divided among the devices there are.
    """
    if config.distribute == "none":
        return SingleDevice()
    parallel = Mirrored() if config.distribute == "mirrored" else MultiProcess(cluster)
    if carries_state and config.distribute == "mirrored" and parallel.devices > 1:
        raise UserError(
            "train.distribute: mirrored: this model carries its state from batch to batch in "
            "variables, which that keeps alike on all devices; use jax"
        )
    if carries_state and config.batch_size % parallel.devices:
        raise UserError(
            f"train.batch_size: {config.batch_size} streams cannot be divided among "
            f"{parallel.devices} devices"
        )
    return parallel


def filled(batch: Any, devices: int) -> Any:
    """``(inputs, targets)`` with as many rows more as divide among ``devices``, and the weight of
    each row: 1, and 0 for those that were added."""
    rows = tf.shape(tf.nest.flatten(batch)[0])[0]
    more = -rows % devices

    def fill(part: tf.Tensor) -> tf.Tensor:
        return tf.concat([part, tf.repeat(part[-1:], more, axis=0)], axis=0)

    weights = tf.concat([tf.ones([rows]), tf.zeros([more])], axis=0)
    return (*tf.nest.map_structure(fill, batch), weights)
