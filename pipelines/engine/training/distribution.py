"""One model on several devices: each computes the gradient of its share of a batch.

Rows are divided evenly. A batch that does not divide is padded with copies of its last row that
have weight 0, so that every loss and metric is that of the batch (see `losses.MeanLoss`). After a
step, the weights equal, within rounding, those of one device that had the whole batch.
"""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipelines.engine.config.schema import TrainConfig
from pipelines.engine.core.errors import UserError
from pipelines.engine.training.checkpoints import SavedVariables
from pipelines.engine.training.cluster import Cluster


class SingleDevice:
    """Training on one device; the base class of the ways to distribute a training.

    Attributes:
        device_count: Among how many devices the rows of a batch are divided.
        is_main_process: Whether this process writes the run and prints.
    """

    device_count = 1
    is_main_process = True

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which a model is built, compiled, trained and evaluated."""
        return contextlib.nullcontext()

    def shard(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Return this process's share of each batch."""
        return batches

    def broadcast(self, read: Callable[[], SavedVariables | None]) -> SavedVariables | None:
        """Return in every process what ``read`` returns in the main process."""
        return read()

    def evaluation_model(self, model: keras.Model, build: Callable[[], keras.Model]) -> keras.Model:
        """Return a model that this process can call by itself, outside of `scope`.

        Args:
            model: The model that is trained.
            build: Builds another one, into which the caller copies the weights.
        """
        return model

    def require_equal(self, name: str, value: str) -> None:
        """Check that ``value`` is the same in every process; a UserError names it if not."""

    def replicate(self, folder: Path) -> Path:
        """Return a small folder of the main process, or in other processes a copy of it."""
        return folder

    def on_process_loss(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` before this process exits because another one is lost."""

    def leave(self) -> None:
        """End the common work; the main process continues alone."""


class Distributed(SingleDevice):
    """The base class of training on several devices."""

    def evaluation_model(self, model: keras.Model, build: Callable[[], keras.Model]) -> keras.Model:
        # To call `model`, the other devices and processes would have to call it as well.
        return build()


class Mirrored(Distributed):
    """All devices of this process, by `tf.distribute.MirroredStrategy`."""

    def __init__(self) -> None:
        gpus = tf.config.list_logical_devices("GPU")
        devices = gpus or tf.config.list_logical_devices("CPU")
        # Not the default, collective ops: their order (a batch's total weight, its gradients) may
        # differ between devices, and then they do not match.
        reduction = tf.distribute.NcclAllReduce if gpus else tf.distribute.ReductionToOneDevice
        self._strategy = tf.distribute.MirroredStrategy([d.name for d in devices], reduction())
        self.device_count = self._strategy.num_replicas_in_sync

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return self._strategy.scope()  # type: ignore[no-any-return]

    def shard(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        return batches.map(lambda *batch: pad_batch(batch, self.device_count))


class MultiProcess(Distributed):
    """All devices of all processes, by `keras.distribution.DataParallel` on JAX.

    Args:
        cluster: The processes; None for all devices of one process.
    """

    def __init__(self, cluster: Cluster | None) -> None:
        self._cluster = cluster
        self._processes = cluster.processes if cluster else 1
        self._process_id = cluster.process_id if cluster else 0
        self.is_main_process = self._process_id == 0
        self._parallel = keras.distribution.DataParallel(auto_shard_dataset=False)
        self.device_count = len(keras.distribution.list_devices())

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        detect_loss = self._cluster.detect_loss() if self._cluster else contextlib.nullcontext()
        with detect_loss, self._parallel.scope():
            yield

    def shard(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        def share(*batch: Any) -> Any:
            padded = pad_batch(batch, self.device_count)
            rows = tf.shape(padded[-1])[0] // self._processes
            first = rows * self._process_id
            return tf.nest.map_structure(lambda t: t[first : first + rows], padded)

        return batches.map(share)

    def broadcast(self, read: Callable[[], SavedVariables | None]) -> SavedVariables | None:
        saved = read() if self.is_main_process else None
        if self._cluster is None:
            return saved
        from jax.experimental import multihost_utils

        header = None
        if saved is not None:
            shapes = {name: [a.shape, a.dtype.str] for name, a in saved[0].items()}
            header = {"arrays": shapes, "meta": saved[1]}
        text = json.dumps(header) if self.is_main_process else None
        header = json.loads(self._cluster.broadcast(text))
        if header is None:
            return None
        arrays = (
            saved[0]
            if saved is not None
            else {name: np.zeros(shape, dtype) for name, (shape, dtype) in header["arrays"].items()}
        )
        # As bytes: JAX would narrow 64-bit values.
        raw = {name: np.frombuffer(a.tobytes(), np.uint8) for name, a in arrays.items()}
        received = multihost_utils.broadcast_one_to_all(raw, is_source=self.is_main_process)
        return {
            name: np.frombuffer(np.asarray(received[name]).tobytes(), a.dtype).reshape(a.shape)
            for name, a in arrays.items()
        }, header["meta"]

    def require_equal(self, name: str, value: str) -> None:
        if self._cluster:
            self._cluster.require_equal(name, value)

    def replicate(self, folder: Path) -> Path:
        if self._cluster is None:
            return folder
        text = None
        if self.is_main_process:
            paths = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
            text = json.dumps(
                {name: base64.b64encode(p.read_bytes()).decode() for name, p in paths.items()}
            )
        files = json.loads(self._cluster.broadcast(text))
        if self.is_main_process:
            return folder
        self._folder = tempfile.TemporaryDirectory()
        for name, content in files.items():
            path = Path(self._folder.name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(content))
        return Path(self._folder.name)

    def on_process_loss(self, callback: Callable[[], object]) -> None:
        if self._cluster:
            self._cluster.on_loss = callback

    def leave(self) -> None:
        if self._cluster:
            self._cluster.leave()


def choose(config: TrainConfig, cluster: Cluster | None, *, carries_state: bool) -> SingleDevice:
    """Return the distribution that ``train.distribute`` names.

    Args:
        config: The keys under ``train``.
        cluster: The processes that train together, if there are several.
        carries_state: Whether each batch starts from the state after the previous one.

    Raises:
        UserError: Such a state cannot be divided among the devices.
    """
    if config.distribute == "none":
        return SingleDevice()
    strategy = Mirrored() if config.distribute == "mirrored" else MultiProcess(cluster)
    if carries_state and config.distribute == "mirrored" and strategy.device_count > 1:
        raise UserError(
            "train.distribute: mirrored: this model carries its state from batch to batch in "
            "variables, which mirrored keeps equal on all devices; use jax"
        )
    if carries_state and config.batch_size % strategy.device_count:
        raise UserError(
            f"train.batch_size: {config.batch_size} streams cannot be divided among "
            f"{strategy.device_count} devices"
        )
    return strategy


def pad_batch(batch: Any, devices: int) -> Any:
    """Pad a batch with copies of its last row until its rows divide among ``devices``.

    Args:
        batch: ``(inputs, targets)``, nested as Keras allows; rows along the first axis.
        devices: How many.

    Returns:
        ``(inputs, targets, weights)``, with ``<float32>[rows]`` weights: 1, and 0 for the copies.
    """
    rows = tf.shape(tf.nest.flatten(batch)[0])[0]
    missing = -rows % devices

    def pad(part: tf.Tensor) -> tf.Tensor:
        return tf.concat([part, tf.repeat(part[-1:], missing, axis=0)], axis=0)

    weights = tf.concat([tf.ones([rows]), tf.zeros([missing])], axis=0)
    return (*tf.nest.map_structure(pad, batch), weights)
