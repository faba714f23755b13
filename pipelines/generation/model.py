"""The language model: embedding → cells → V, and the state that it carries along a text."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from pipelines.engine.data.ragged import PADDING
from pipelines.engine.models.blocks import recurrent_stack, reversible_embedding, state_sizes
from pipelines.generation.config import GenerationModelConfig


def build(config: GenerationModelConfig, *, vocabulary: int, rows: int, seed: int) -> LanguageModel:
    """A model over ``rows`` parallel streams."""
    return LanguageModel(network(config, vocabulary=vocabulary, seed=seed), rows)


def network(config: GenerationModelConfig, *, vocabulary: int, seed: int) -> keras.Model:
    """``[ids <int32>[batch, time], state…]`` → ``[logits [batch, time, vocabulary], state…]``.

    Any batch, any number of steps, 0 being padding on the right. A state is
    ``<float>[batch, units]``: h, and for the LSTM c, of each layer; zeros before a text begins.
    """
    # One seed a layer: equal seeds would draw equal dropout masks.
    seeds = iter(range(seed, seed + 10))
    ids = keras.Input((None,), dtype="int32", name="ids")
    states = [
        keras.Input((units,), name=f"state_{i}") for i, units in enumerate(state_sizes(config))
    ]
    embedding = reversible_embedding(vocabulary, config.embedding, seed=next(seeds))
    x = keras.layers.Dropout(config.dropout, seed=next(seeds), name="input_dropout")(embedding(ids))
    hidden, after = recurrent_stack(
        config,
        x,
        ops.not_equal(ids, PADDING),
        seed=seed + 10,
        dropout=config.dropout,
        states=states,
    )
    hidden = keras.layers.Dropout(config.dropout, seed=next(seeds), name="dropout")(hidden)
    # Scores are float32 whatever the precision: half of it loses small probabilities.
    hidden = ops.cast(hidden, "float32")
    if config.tied:
        if config.units[-1] != config.embedding:
            project = keras.layers.Dense(
                config.embedding, use_bias=False, dtype="float32", name="projection"
            )
            hidden = project(hidden)
        logits = embedding(hidden, reverse=True)
    else:
        logits = keras.layers.Dense(vocabulary, dtype="float32", name="V")(hidden)
    return keras.Model([ids, *states], [logits, *after], name="network")


def read_on(
    network: keras.Model, ids: Any, states: list[Any], *, training: bool = False
) -> tuple[Any, list[Any]]:
    """``(logits, states)`` of a `network`; without memory it has no states, and Keras no list."""
    logits, *after = keras.tree.flatten(network([ids, *states], training=training))
    return logits, after


@keras.saving.register_keras_serializable(package="unfold")
class LanguageModel(keras.Model):
    """Trains a `network` on streams: the state after a window is where the next one starts.

    The state is a value when the next window reads it, so no gradient goes back further than
    the window: backpropagation through time, truncated (Williams & Peng 1990).

    Args:
        network: what `network` returns; it holds every weight, and no state.
        rows: streams, the batch size of every call.

    Call: ``{"ids": <int32>[rows, window], "fresh": <bool>[rows]}`` → logits. Where ``fresh`` a
    row starts from zeros.
    """

    def __init__(self, network: keras.Model, rows: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network, self.rows = network, rows
        self.carried = [
            self.add_weight(
                shape=(rows, state.shape[-1]),
                initializer="zeros",
                trainable=False,
                name=f"carried_{i}",
            )
            for i, state in enumerate(network.inputs[1:])
        ]

    def build(self, input_shape: Any = None) -> None:
        self.built = True  # the network is

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        goes_on = ops.logical_not(inputs["fresh"])[:, None]
        before = [s * ops.cast(goes_on, s.dtype) for s in self.carried]
        logits, after = read_on(self.network, inputs["ids"], before, training=training)
        for carried, state in zip(self.carried, after, strict=True):
            carried.assign(ops.cast(ops.stop_gradient(state), carried.dtype))
        return logits

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "network": keras.saving.serialize_keras_object(self.network),
            "rows": self.rows,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> LanguageModel:
        network = keras.saving.deserialize_keras_object(
            config["network"], custom_objects=custom_objects
        )
        return cls(**config | {"network": network})
