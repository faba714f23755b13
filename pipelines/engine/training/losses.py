"""Losses and metrics as one weighted mean over the tokens that are not padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from pipelines.engine.data.ragged import PADDING
from pipelines.engine.training.loop import Objective


def token_losses(targets: Any, logits: Any, smoothing: float = 0.0) -> tuple[Any, Any]:
    """Compute −log p of each target, and a mask of the targets that are not padding.

    With label smoothing ε (Szegedy et al. 2016) the target has the share 1 − ε, and every class
    the same part of the rest. For the logits z of K classes and the target y::

        loss   = log Σ exp z − (1 − ε) z_y − ε/K Σ z
        ∂/∂z_k = softmax(z)_k − (1 − ε) [k = y] − ε/K

    The derivative is written out: with thousands of classes this takes two thirds of the time of
    TensorFlow's own cross-entropy, and half of the time of one with smoothing.

    Args:
        targets: ``<int>[batch, time]``.
        logits: ``<float>[batch, time, classes]``.
        smoothing: ε, in [0, 1).

    Returns:
        Losses, 0 at padding, and the mask (1, and 0 at padding), both ``<float>[batch, time]``.
    """
    targets = ops.cast(targets, "int32")
    even = smoothing / logits.shape[-1]

    @ops.custom_gradient
    def losses_of(logits: Any) -> Any:
        top = ops.max(logits, axis=-1, keepdims=True)
        exp = ops.exp(logits - top)
        total = ops.sum(exp, axis=-1, keepdims=True)
        of_target = ops.take_along_axis(logits, targets[..., None], axis=-1)
        losses = ops.log(total) + top - (1.0 - smoothing) * of_target
        if smoothing:
            losses = losses - smoothing * ops.mean(logits, axis=-1, keepdims=True)

        def gradient(*args: Any, upstream: Any = None) -> Any:
            upstream = (args[0] if upstream is None else upstream)[..., None]
            slope = exp * (upstream / total)
            if smoothing:
                slope = slope - even * upstream
            classes = ops.arange(logits.shape[-1], dtype="int32")
            is_target = ops.equal(classes, targets[..., None])
            return ops.where(is_target, slope - (1.0 - smoothing) * upstream, slope)

        return losses[..., 0], gradient

    real = ops.cast(ops.not_equal(targets, PADDING), logits.dtype)
    return losses_of(logits) * real, real


class TokenLosses(keras.layers.Layer):
    """`token_losses` within a functional model: ``(targets, logits)`` → the losses."""

    def call(self, targets: Any, logits: Any) -> Any:
        return token_losses(targets, logits)[0]


def weighted(sample_weight: Any, *parts: Any) -> tuple[Any, ...]:
    """Multiply arrays, whose first axis is the batch, by the weights of the rows.

    Args:
        sample_weight: ``<float>[batch]``, or None if every row has weight 1.
        *parts: The arrays.
    """
    if sample_weight is None:
        return parts

    def times(part: Any) -> Any:
        weights = ops.cast(sample_weight, part.dtype)
        return part * ops.reshape(weights, (-1,) + (1,) * (len(part.shape) - 1))

    return tuple(map(times, parts))


class MeanLoss(keras.losses.Loss):
    """Σ w ℓ / Σ w over a batch, independent of padding and of rows with weight 0.

    Keras divides by the padded size, and takes the mean of the devices' means if a batch is divided
    among several, which differs if some hold more padding than others. Here Σ w is that of the
    whole batch.
    """

    def parts(self, targets: Any, outputs: Any) -> tuple[Any, Any]:
        """Return the losses ℓ and the weights w of each row, 0 at padding."""
        raise NotImplementedError

    def __call__(self, targets: Any, outputs: Any, sample_weight: Any = None) -> Any:
        losses, weights = weighted(sample_weight, *self.parts(targets, outputs))
        total = ops.sum(weights)
        if keras.backend.backend() == "tensorflow" and (
            # None while Keras only infers shapes
            (device := tf.distribute.get_replica_context()) and tf.distribute.has_strategy()
        ):
            # The gradients of the devices are added up, not averaged.
            total = device.all_reduce(tf.distribute.ReduceOp.SUM, total)
        return ops.sum(losses) / ops.maximum(total, 1.0)


@keras.saving.register_keras_serializable(package="unfold")
class ClassCrossentropy(MeanLoss):
    """The mean of −log p of the class over the rows of a batch, each times the weight of its class.

    The mean is over the number of rows, as in Keras and scikit-learn, and not over the sum of
    their weights: a rare class would else count less in each batch that it occurs in.

    Args:
        class_weights: A weight for each class; by default 1.

    Call: ``(targets <int>[batch], logits <float>[batch, classes])``.
    """

    def __init__(self, class_weights: Sequence[float] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.class_weights = class_weights

    def parts(self, targets: Any, outputs: Any) -> tuple[Any, Any]:
        losses = keras.losses.sparse_categorical_crossentropy(targets, outputs, from_logits=True)
        rows = ops.ones_like(losses)
        if self.class_weights is not None:
            losses = losses * weights_of(targets, self.class_weights, losses.dtype)
        return losses, rows

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "class_weights": self.class_weights}


def weights_of(targets: Any, class_weights: Sequence[float], dtype: Any) -> Any:
    """Return the weight of the class of each row, ``[batch]``."""
    weights = ops.convert_to_tensor(class_weights, dtype)
    return ops.take(weights, ops.reshape(ops.cast(targets, "int32"), (-1,)))


@keras.saving.register_keras_serializable(package="unfold")
class WeightedAccuracy(keras.metrics.SparseCategoricalAccuracy):
    """The share of rows with the right class, each row counted with the weight of its class.

    With balanced weights, this is the mean of the recalls of the classes.

    Args:
        class_weights: A weight for each class.
    """

    def __init__(
        self, class_weights: Sequence[float], name: str = "weighted_accuracy", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.class_weights = class_weights

    def update_state(self, targets: Any, outputs: Any, sample_weight: Any = None) -> None:
        weights = weights_of(targets, self.class_weights, self.dtype)
        (weights,) = weighted(sample_weight, weights)
        super().update_state(targets, outputs, weights)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "class_weights": list(self.class_weights)}


@keras.saving.register_keras_serializable(package="unfold")
class LabelCrossentropy(MeanLoss):
    """The mean over the rows of a batch, and over all labels, of the binary cross-entropy.

    Call: ``(targets <int>[batch, most], logits <float>[batch, labels])``, where a row of targets
    has the numbers of its labels, counted from 1; 0 is padding.
    """

    def parts(self, targets: Any, outputs: Any) -> tuple[Any, Any]:
        losses = label_losses(targets, outputs)
        return losses, ops.ones_like(losses)


def label_losses(targets: Any, logits: Any) -> Any:
    """Return the binary cross-entropy of each row, the mean over all labels, ``[batch]``."""
    numbers = ops.one_hot(ops.cast(targets, "int32"), logits.shape[-1] + 1, dtype=logits.dtype)
    hot = ops.max(numbers, axis=1)[:, 1:]
    # −log σ(z) where the label is given, −log σ(−z) where it is not.
    return ops.mean(ops.softplus(logits) - hot * logits, axis=-1)


@keras.saving.register_keras_serializable(package="unfold")
class LabelCrossentropyMean(keras.metrics.Mean):
    """The mean of `label_losses` over all rows of an epoch."""

    def __init__(self, name: str = "cross_entropy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def update_state(self, targets: Any, logits: Any, sample_weight: Any = None) -> None:
        super().update_state(label_losses(targets, logits), sample_weight)


@keras.saving.register_keras_serializable(package="unfold")
class MaskedCrossentropy(MeanLoss):
    """The mean of −log p of the target over the tokens of a batch that are not padding.

    Args:
        smoothing: Label smoothing, see `token_losses`.
    """

    def __init__(self, smoothing: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.smoothing = smoothing

    def parts(self, targets: Any, outputs: Any) -> tuple[Any, Any]:
        return token_losses(targets, outputs, self.smoothing)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "smoothing": self.smoothing}


@keras.saving.register_keras_serializable(package="unfold")
class PerToken(keras.metrics.Metric):
    """The mean cross-entropy of all tokens of an epoch that are not padding.

    Args:
        unit: ``nats``, or ``perplexity``, which is e to the nats.
    """

    def __init__(self, unit: Literal["nats", "perplexity"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unit = unit
        self.total = self.add_weight(name="total", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, targets: Any, logits: Any, sample_weight: Any = None) -> None:
        losses, real = weighted(sample_weight, *token_losses(targets, logits))
        self.total.assign_add(ops.cast(ops.sum(losses), self.total.dtype))
        self.count.assign_add(ops.cast(ops.sum(real), self.count.dtype))

    def result(self) -> Any:
        nats = self.total / ops.maximum(self.count, 1.0)
        return nats if self.unit == "nats" else ops.exp(nats)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "unit": self.unit}


def cross_entropy(model: keras.Model, batches: Iterable[Any]) -> float:
    """Compute the mean of −log p, in nats, of each true token given all tokens before it.

    Args:
        model: Returns logits.
        batches: Inputs by name, and targets ``<int>[batch, time]``.
    """
    total, count = 0.0, 0.0
    for losses, real in _predicted_losses(model, batches):
        total += float(ops.sum(losses))
        count += float(ops.sum(real))
    return total / count


def row_cross_entropies(model: keras.Model, batches: Iterable[Any]) -> np.ndarray:
    """Compute the cross-entropy of each row, as `cross_entropy` does of all of them.

    Returns:
        ``<float64>[rows]``, in the order of the batches.
    """
    means = [
        ops.convert_to_numpy(ops.sum(losses, axis=1) / ops.maximum(ops.sum(real, axis=1), 1.0))
        for losses, real in _predicted_losses(model, batches)
    ]
    return np.concatenate(means).astype(np.float64)


def _predicted_losses(model: keras.Model, batches: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the losses of each batch, and 1 where there is a token; see `token_losses`."""
    for inputs, ids in batches:
        logits = model.predict_on_batch({name: i.numpy() for name, i in inputs.items()})
        yield token_losses(ids.numpy(), logits)


def next_token(smoothing: float = 0.0) -> Objective:
    """Return the objective of models that predict tokens: their cross-entropy."""
    return Objective(
        loss=MaskedCrossentropy(smoothing),
        metrics=lambda: [
            PerToken("nats", name="cross_entropy"),
            PerToken("perplexity", name="perplexity"),
        ],
        monitor="val_cross_entropy",
        higher_is_better=False,
    )
