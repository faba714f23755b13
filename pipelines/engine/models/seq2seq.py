"""The decoder of encoder-decoder models, with or without attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import keras
from keras import ops

from layers import AdditiveAttention
from pipelines.engine.config.decoding import DecoderConfig
from pipelines.engine.data.ragged import PADDING
from pipelines.engine.models.blocks import recurrent_stack, reversible_embedding, state_sizes


def decoder_network(
    config: DecoderConfig, *, vocabulary: int, memory: int, seed: int
) -> keras.Model:
    """Build a decoder: the scores of the next token, for any number of steps at once.

    In training it reads a whole text (teacher forcing), in decoding one token at a time::

        s_t = f(y_{t-1}, s_{t-1})                    the first layer
        c_t = attention(s_t, h_1 … h_n)              the context, see `AdditiveAttention`
        s'_t = f'([s_t ; c_t], s'_{t-1})             further layers, if any
        y_t ~ softmax(V tanh(R [s'_t ; c_t]))

    The context goes upwards, not back into the first layer (as in Wu et al. 2016, unlike Bahdanau
    et al. 2015), so that each layer is unfolded over the whole text at once.

    Args:
        config: Its cells, sizes and dropout.
        vocabulary: The number of ids.
        memory: The size of the encoder's hidden states h_j.
        seed: Of the initial weights and of dropout.

    Returns:
        A model. Its inputs are ``ids <int32>[batch, time]``, padded with 0 on the right; the
        states ``<float>[batch, units]``; with attention also the keys
        ``<float>[batch, steps, embedding]``, the memory ``<float>[batch, steps, memory]`` and
        ``valid <bool>[batch, steps]``. Its outputs are
        ``logits <float32>[batch, time, vocabulary]``, the states, and with attention its weights
        ``<float>[batch, time, steps]``.
    """
    # One seed a layer: equal seeds would draw equal dropout masks.
    seeds = iter(range(seed, seed + 10))
    with_attention = config.attention == "additive"
    ids = keras.Input((None,), dtype="int32", name="ids")
    states = [
        keras.Input((units,), name=f"state_{i}") for i, units in enumerate(state_sizes(config))
    ]
    embedding = reversible_embedding(vocabulary, config.embedding, seed=next(seeds))
    x = keras.layers.Dropout(config.dropout, seed=next(seeds), name="input_dropout")(embedding(ids))
    mask = ops.not_equal(ids, PADDING)

    bottom = config.model_copy(update={"units": config.units[:1]}) if with_attention else config
    count = len(state_sizes(bottom))
    hidden, new_states = recurrent_stack(
        bottom, x, mask, seed=seed + 10, dropout=config.dropout, states=states[:count],
        name="decoder",
    )  # fmt: skip
    attended, alignment = [], []
    if with_attention:
        attended = [
            keras.Input((None, config.embedding), name="keys"),
            keras.Input((None, memory), name="memory"),
            keras.Input((None,), dtype="bool", name="valid"),
        ]
        hidden, more, weights = _attend(
            config, hidden, mask, attended, states[count:], seeds, seed=seed + 20
        )
        new_states += more
        alignment = [weights]
    logits = _logits(config, hidden, embedding, vocabulary, seeds)
    return keras.Model([ids, *states, *attended], [logits, *new_states, *alignment], name="decoder")


def _attend(
    config: DecoderConfig,
    hidden: Any,
    mask: Any,
    attended: list[Any],
    states: list[Any],
    seeds: Iterator[int],
    *,
    seed: int,
) -> tuple[Any, list[Any], Any]:
    """Attention and the layers above it: [s'_t ; c_t], their states, and the weights."""
    attention = AdditiveAttention(config.embedding, seed=next(seeds), name="attention")
    context, weights = attention(hidden, *attended)
    hidden = ops.concatenate([hidden, context], axis=-1)
    new_states: list[Any] = []
    if above := config.units[1:]:
        dropout = keras.layers.Dropout(config.dropout, seed=next(seeds), name="context_dropout")
        hidden, new_states = recurrent_stack(
            config.model_copy(update={"units": above}),
            dropout(hidden),
            mask,
            seed=seed,
            dropout=config.dropout,
            states=states,
            below=1,
            name="decoder",
        )
        hidden = ops.concatenate([hidden, context], axis=-1)
    return hidden, new_states, weights


def _logits(
    config: DecoderConfig, hidden: Any, embedding: Any, vocabulary: int, seeds: Iterator[int]
) -> Any:
    """V tanh(R …); with ``tied``, V is the transposed embedding."""
    readout = keras.layers.Dense(config.embedding, activation="tanh", name="R")(hidden)
    readout = keras.layers.Dropout(config.dropout, seed=next(seeds), name="dropout")(readout)
    # Scores are float32 whatever the precision: half of it loses small probabilities.
    readout = ops.cast(readout, "float32")
    if config.tied:
        return embedding(readout, reverse=True)
    return keras.layers.Dense(vocabulary, dtype="float32", name="V")(readout)


def has_attention(decoder: keras.Model) -> bool:
    """Return whether a decoder has attention."""
    return bool(decoder.inputs[-1].name == "valid")


def attention_keys(config: DecoderConfig, memory: Any) -> Any:
    """Compute the keys U h_j of additive attention, once for each memory."""
    return keras.layers.Dense(config.embedding, name="U")(memory)


def initial_states(config: DecoderConfig, last: list[Any], *, same_shape: bool) -> list[Any]:
    """Compute the decoder's initial states from the encoder's last ones.

    Args:
        config: The decoder's.
        last: ``<float>[batch, units]`` each.
        same_shape: They fit, and are passed on as the chapter draws it; otherwise
            s_0 = tanh(B [all of them]).
    """
    if same_shape:
        return last
    joined = ops.concatenate(last, axis=-1)
    return [
        keras.layers.Dense(units, activation="tanh", name=f"bridge_{i}")(joined)
        for i, units in enumerate(state_sizes(config))
    ]


def decoder_step(
    decoder: keras.Model, ids: Any, states: list[Any], attended: list[Any], *, training: bool
) -> tuple[Any, list[Any], Any]:
    """Call a decoder.

    Returns:
        Logits, states and the attention weights (None without attention).
    """
    count = len(states)
    logits, *rest = keras.tree.flatten(decoder([ids, *states, *attended], training=training))
    return logits, rest[:count], rest[count] if attended else None


class Seq2Seq(keras.Model):
    """An encoder-decoder model: what translation and captioning share.

    Args:
        reader: Maps the input to the decoder's initial states and, with attention, to what the
            decoder attends to.
        decoder: See `decoder_network`.
    """

    #: The arguments that are models, in the order in which they are built.
    parts: ClassVar[tuple[str, ...]] = ("reader", "decoder")

    def __init__(self, **kwargs: Any) -> None:
        models = {name: kwargs.pop(name) for name in self.parts}
        super().__init__(**kwargs)
        for name, model in models.items():
            setattr(self, name, model)
        self.built = True  # its parts are

    def encode(self, inputs: Any, *, training: bool = False) -> tuple[list[Any], list[Any]]:
        """Return the decoder's initial states, and what it attends to, if anything."""
        outputs = keras.tree.flatten(self.reader(inputs, training=training))
        if has_attention(self.decoder):
            return outputs[:-3], outputs[-3:]
        return outputs, []

    def decode(
        self, ids: Any, states: list[Any], attended: list[Any], *, training: bool = False
    ) -> tuple[Any, list[Any], Any]:
        """Return logits, states and attention weights; see `decoder_step`."""
        return decoder_step(self.decoder, ids, states, attended, training=training)

    def get_config(self) -> dict[str, Any]:
        models = {n: keras.saving.serialize_keras_object(getattr(self, n)) for n in self.parts}
        return {"name": self.name} | models

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Seq2Seq:
        models = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
            for name in cls.parts
        }
        return cls(**config | models)
