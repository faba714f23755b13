"""The language model: embedding → recurrent layers → V, with its state kept between windows."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from pipelines.engine.data.ragged import PADDING
from pipelines.engine.models.blocks import recurrent_stack, reversible_embedding, state_sizes
from pipelines.generation.config import GenerationModelConfig


def build(config: GenerationModelConfig, *, vocabulary: int, rows: int, seed: int) -> LanguageModel:
    """Build an untrained model.

    Args:
        config: The ``model`` section of the config.
        vocabulary: Number of tokens.
        rows: Number of parallel streams.
        seed: Seed of initial weights and dropout.
    """
    return LanguageModel(network(config, vocabulary=vocabulary, seed=seed), rows)


def network(config: GenerationModelConfig, *, vocabulary: int, seed: int) -> keras.Model:
    """Build the network that maps tokens and states to logits and states.

    Args:
        config: The ``model`` section of the config.
        vocabulary: Number of tokens.
        seed: Seed of initial weights and dropout.

    Returns:
        A model ``[ids <int32>[batch, time], state…]`` →
        ``[logits <float32>[batch, time, vocabulary], state…]`` for any batch size and number of
        steps. Id 0 is padding on the right. The states ``<float>[batch, units]`` are h, and for the
        LSTM c, of each layer; they are zeros at the start of a text.
    """
    # Each layer needs its own seed: equal seeds would draw equal dropout masks.
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
    # Logits are float32 in any precision, because float16 loses small probabilities.
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


def run_network(
    network: keras.Model, ids: Any, states: list[Any], *, training: bool = False
) -> tuple[Any, list[Any]]:
    """Run a `network` and return ``(logits, states)``.

    A network of feedforward cells has no states, and Keras then returns no list.
    """
    logits, *after = keras.tree.flatten(network([ids, *states], training=training))
    return logits, after


@keras.saving.register_keras_serializable(package="unfold")
class LanguageModel(keras.Model):
    """A `network` with state, for training on windows of parallel streams.

    The state after a window is the initial state of the next one. It enters the next window as a
    constant, so that gradients do not flow back beyond the window: truncated backpropagation
    through time (Williams & Peng 1990).

    Args:
        network: A `network`, which holds all trainable weights and no state.
        rows: Number of streams, the batch size of every call.

    Call arguments:
        inputs: ``{"ids": <int32>[rows, window], "fresh": <bool>[rows]}``. A row where ``fresh`` is
            true starts from a state of zeros.

    Output shape:
        Logits ``<float32>[rows, window, vocabulary]``.
    """

    def __init__(self, network: keras.Model, rows: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network, self.rows = network, rows
        self.stream_states = [
            self.add_weight(
                shape=(rows, state.shape[-1]),
                initializer="zeros",
                trainable=False,
                name=f"carried_{i}",
            )
            for i, state in enumerate(network.inputs[1:])
        ]

    def build(self, input_shape: Any = None) -> None:
        self.built = True  # the network is already built

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        continues = ops.logical_not(inputs["fresh"])[:, None]
        initial = [s * ops.cast(continues, s.dtype) for s in self.stream_states]
        logits, final = run_network(self.network, inputs["ids"], initial, training=training)
        for variable, state in zip(self.stream_states, final, strict=True):
            variable.assign(ops.cast(ops.stop_gradient(state), variable.dtype))
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
