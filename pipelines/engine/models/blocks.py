"""What models of several tasks are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from layers import GRU, LSTM, Bidirectional, SimpleRNN
from layers.base import RecurrentLayer
from layers.streaming import StreamingState, current_state
from pipelines.engine.config.schema import CellConfig, RecurrentConfig
from pipelines.engine.core._compat import flatten_layers
from pipelines.engine.core.tables import Table
from pipelines.engine.data.ragged import PADDING
from pipelines.engine.text.vocabulary import UNKNOWN


def routes(model: keras.Model) -> dict[str, str]:
    """By recurrent layer, which implementation its training takes, and why."""
    found = {}
    for layer in flatten_layers(model):
        if isinstance(layer, RecurrentLayer):
            route = layer.route(training=True)
            found[layer.name] = f"{route.name} ({route.reason})"
    return found


#: A nested model with more layers than this, such as an image encoder, is one row of the table.
_NESTED = 30


def layer_table(model: keras.Model) -> Table:
    """Return the layers of a model: name, class, number of weights, whether they are trained."""
    rows = []
    for layer in model.layers:
        if isinstance(layer, keras.Model) and len(layer.layers) <= _NESTED:
            rows += layer_table(layer).rows
        elif not isinstance(layer, keras.layers.InputLayer):
            weights = sum(math.prod(w.shape) for w in layer.weights)
            trained = "yes" if layer.trainable_weights else "no" if weights else ""
            rows.append([layer.name, type(layer).__name__, weights, trained])
    return Table(["layer", "kind", "parameters", "trained"], rows)


_CELLS = {"rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}


def recurrent_stack(
    config: CellConfig,
    inputs: Any,
    mask: Any,
    *,
    seed: int,
    dropout: float = 0.0,
    states: Sequence[Any] | None = None,
    below: int = 0,
    name: str = "recurrent",
) -> tuple[Any, list[Any]]:
    """``<float>[batch, time, features]`` → hidden states ``<float>[batch, time, units]``.

    Args:
        mask: ``<bool>[batch, time]``, right-padded: which steps are valid.
        dropout: share of the features zeroed between layers, at each step anew.
        states: where the sequences start from, those of all layers as `state_sizes` counts them,
            if what is read goes on something; None for their beginning.
        below: how many layers there are below these.
        name: of the layers, before their number from below. It says nothing of the cell, so that
            what is measured of them has the same name in runs that differ by it.

    Returns:
        The hidden states of the last layer, and the states of all layers after the last valid
        step (of a bidirectional layer: the forward ones and the backward ones).
    """
    hidden, left, after = inputs, None if states is None else list(states), []
    whole = config if isinstance(config, RecurrentConfig) else None
    settings: dict[str, Any] = (
        {} if whole is None else {"truncate": whole.truncate, "initial": whole.initial}
    )
    for depth, units in enumerate(config.units):
        numbered = f"{name}_{below + depth + 1}"
        if depth and dropout:
            drop = keras.layers.Dropout(dropout, seed=seed + depth, name=f"dropout_{below + depth}")
            hidden = drop(hidden)
        two = whole is not None and whole.bidirectional
        if config.cell == "feedforward":
            width = units * (2 if two else 1)
            hidden = keras.layers.Dense(width, activation="tanh", name=numbered)(hidden)
            continue
        layer = _CELLS[config.cell](
            units, return_sequences=True, return_state=True, seed=seed + depth, name=numbered,
            **settings,
        )  # fmt: skip
        count = len(layer.cell.state_names) * (2 if two else 1)
        if two:
            layer = Bidirectional(layer, name=f"bidirectional_{numbered}")
        before = None
        if left is not None:
            before, left = left[:count], left[count:]
        hidden, *last = layer(hidden, initial_state=before, mask=mask)
        after += last
    return hidden, after


def reversible_embedding(vocabulary: int, size: int, *, seed: int) -> keras.layers.Layer:
    """Ids to vectors ``<float>[…, size]``; with ``reverse=True``, as V, vectors to scores."""
    embedding = keras.layers.ReversibleEmbedding(
        vocabulary,
        size,
        embeddings_initializer=keras.initializers.RandomUniform(-0.1, 0.1, seed=seed),
        reverse_dtype="float32",
        name="embedding",
    )
    embedding.supports_masking = True  # as V it is handed masked states, and warns otherwise
    return embedding


def state_sizes(config: CellConfig) -> list[int]:
    """Units of each state tensor of one direction: h, or h and c, of each layer."""
    if config.cell == "feedforward":
        return []
    states = len(_CELLS[config.cell](1).cell.state_names)
    return [units for units in config.units for _ in range(states)]


@keras.saving.register_keras_serializable(package="unfold")
class ValidPool(keras.layers.Layer):
    """All valid steps of a sequence as one vector; zeros where no step is valid.

    ``last`` is the chapter's many-to-one: the state after the last valid step (for a
    bidirectional layer, each direction's own last state: the forward half at the last valid
    step, the backward half at the first). ``mean`` and ``max`` go over valid steps only.

    Args:
        kinds: any of ``last``, ``mean``, ``max``; several are concatenated.
        bidirectional: the second half of the features was read from the end.

    Call: ``(hidden <float>[batch, time, units], valid <bool>[batch, time])``
    → ``<float>[batch, units · len(kinds)]``.
    """

    def __init__(self, kinds: Sequence[str], bidirectional: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not kinds or set(kinds) - {"last", "mean", "max"}:
            raise ValueError(f"kinds: any of last, mean, max, not {kinds}")
        self.kinds = list(kinds)
        self.bidirectional = bidirectional
        self.supports_masking = True

    def compute_mask(self, hidden: Any, previous_mask: Any = None) -> None:
        return None  # nothing is left to mask

    def call(self, hidden: Any, valid: Any) -> Any:
        streaming = current_state()
        if streaming is not None:
            return self._read_on(streaming, hidden, valid)
        weight = ops.expand_dims(ops.cast(valid, hidden.dtype), -1)
        count = ops.sum(weight, axis=1)
        return ops.concatenate(
            [getattr(self, f"_{k}")(hidden, weight, count) for k in self.kinds], -1
        )

    def _last(self, hidden: Any, weight: Any, count: Any) -> Any:
        # One-hot at the last valid step: right padding means that the next weight is zero.
        after = ops.pad(weight[:, 1:], [[0, 0], [0, 1], [0, 0]])
        last = ops.sum(hidden * (weight - after), axis=1)
        if not self.bidirectional:
            return last
        half = hidden.shape[-1] // 2
        return ops.concatenate([last[:, :half], hidden[:, 0, half:] * weight[:, 0]], -1)

    def _mean(self, hidden: Any, weight: Any, count: Any) -> Any:
        return ops.sum(hidden * weight, axis=1) / ops.maximum(count, 1)

    def _max(self, hidden: Any, weight: Any, count: Any) -> Any:
        lowest = ops.cast(-1e4, hidden.dtype)
        highest = ops.max(ops.where(weight > 0, hidden, lowest), axis=1)
        return ops.where(count > 0, highest, ops.zeros_like(highest))

    def _read_on(self, streaming: StreamingState, hidden: Any, valid: Any) -> Any:
        """As `call`, of all steps so far: carried are their number ``<float32>[batch, 1]``, and for
        each kind the last one, their sum or their maximum ``<float32>[batch, units]``."""
        if self.bidirectional:
            raise ValueError(f"{self.name} reads from the end: it cannot read in pieces")
        dtype, hidden = hidden.dtype, ops.cast(hidden, "float32")
        weight = ops.expand_dims(ops.cast(valid, "float32"), -1)
        count = ops.sum(weight, axis=1)
        first = [ops.zeros_like(count), *[ops.zeros_like(hidden[:, 0]) for _ in self.kinds]]
        seen, *before = streaming.before.get(self.name, first)
        after, pooled = [], []
        for kind, old in zip(self.kinds, before, strict=True):
            new = old
            if kind == "mean":
                new = old + ops.sum(hidden * weight, axis=1)
            elif kind == "last":
                new = ops.where(count > 0, self._last(hidden, weight, count), old)
            elif kind == "max":
                highest = self._max(hidden, weight, count)
                new = ops.where(
                    count > 0, ops.where(seen > 0, ops.maximum(old, highest), highest), old
                )
            after.append(new)
            pooled.append(new / ops.maximum(seen + count, 1.0) if kind == "mean" else new)
        streaming.after[self.name] = [seen + count, *after]
        return ops.cast(ops.concatenate(pooled, -1), dtype)

    def compute_output_shape(self, hidden_shape: Any, valid_shape: Any = None) -> Any:
        return (hidden_shape[0], hidden_shape[-1] * len(self.kinds))

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {
            "kinds": self.kinds,
            "bidirectional": self.bidirectional,
        }


@keras.saving.register_keras_serializable(package="unfold")
class TokenDropout(keras.layers.Layer):
    """While training, each valid id becomes the unknown id with probability ``rate``.

    The model learns not to lean on single words, and what to do with an unknown one.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate: in [0, 1), not {rate}")
        self.rate, self.seed = rate, seed
        self._random = keras.random.SeedGenerator(seed)

    def call(self, ids: Any, training: bool = False) -> Any:
        if not training or not self.rate:
            return ids
        dropped = keras.random.uniform(ops.shape(ids), seed=self._random) < self.rate
        return ops.where(ops.logical_and(dropped, ids != PADDING), UNKNOWN, ids)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {"rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable(package="unfold")
class NgramScores(keras.layers.Layer):
    """A linear classifier over the word n-grams of a text, hashed (Joulin et al. 2017)::

        y = 10 / √n · Σ_{k ≤ order} Σ_t w[hash(x_{t-k+1}, …, x_t)]

    n is the number of valid steps. The factor lets a weight that moves by the learning rate at
    each step come as far as it must.

    Args:
        classes: scores to give.
        order: the longest n-gram, in words.
        buckets: rows of w; n-grams that share one share their weights.

    Call: ``ids <int32>[batch, time]``, 0 padding on the right → ``<float>[batch, classes]``.
    """

    scale = 10.0
    _factor = 1_000_003

    def __init__(self, classes: int, order: int, buckets: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes, self.order, self.buckets = classes, order, buckets

    def build(self, ids_shape: Any) -> None:
        self.w = self.add_weight(shape=(self.buckets, self.classes), initializer="zeros", name="w")

    def call(self, ids: Any) -> Any:
        """In pieces, carried are the sums ``<float>[batch, classes]``, n ``<float>[batch, 1]`` and
        the last ids ``<int32>[batch, order]``, which n-grams go on from."""
        valid = ops.cast(ops.not_equal(ids, PADDING), self.compute_dtype)
        total, gram, whole = 0.0, ops.zeros_like(ids), valid
        streaming = current_state()
        earlier = ops.zeros_like(ids[:, :1]) + ops.zeros((1, self.order), dtype=ids.dtype)
        before: Any = (0.0, 0.0, earlier)
        if streaming is not None:
            before = streaming.before.get(self.name, before)
        joined, steps = ops.concatenate([before[2], ids], axis=1), ops.shape(ids)[1]
        for k in range(self.order):
            # The ids k steps back, and whether there is such a step.
            back = joined[:, self.order - k : self.order - k + steps]
            whole = whole * ops.cast(ops.not_equal(back, PADDING), self.compute_dtype)
            # 32-bit arithmetic wraps around alike on every backend.
            gram = gram * self._factor + back
            weights = ops.take(self.w, ops.mod(gram * self._factor + k, self.buckets), axis=0)
            total = total + ops.sum(weights * whole[..., None], axis=1)
        read = ops.sum(valid, axis=1, keepdims=True)
        total, count = before[0] + total, before[1] + read
        if streaming is not None:
            last = ops.cast(read, "int32") + ops.arange(self.order, dtype="int32")
            streaming.after[self.name] = [total, count, ops.take_along_axis(joined, last, axis=1)]
        return self.scale * total / ops.sqrt(ops.maximum(count, 1.0))

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], self.classes)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {
            "classes": self.classes,
            "order": self.order,
            "buckets": self.buckets,
        }


@keras.saving.register_keras_serializable(package="unfold")
class Committee(keras.layers.Layer):
    """The mean of its members' probabilities; while training, one member a row, at random.

    Trained on their mean, members would share the work and each would be worse alone; each
    row teaching one of them, they err differently, and the mean errs less than either.

    Call: logits ``<float>[batch, members, classes]`` → log-probabilities ``[batch, classes]``.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self._random = keras.random.SeedGenerator(seed)

    def call(self, logits: Any, training: bool = False) -> Any:
        scores = ops.log_softmax(logits, axis=-1)
        members = logits.shape[1]
        if not training:
            return ops.logsumexp(scores, axis=1) - math.log(members)
        chosen = keras.random.randint((ops.shape(logits)[0],), 0, members, seed=self._random)
        return ops.sum(scores * ops.one_hot(chosen, members)[..., None], axis=1)

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], shape[2])

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {"seed": self.seed}
