"""The decoder: a text written token by token about what an encoder has read."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from layers import AdditiveAttention
from pipelines.engine.config.schema import DecoderConfig
from pipelines.engine.data.ragged import PADDING
from pipelines.engine.models.blocks import recurrent_stack, reversible_embedding, state_sizes


def decoder_network(
    config: DecoderConfig, *, vocabulary: int, memory: int, seed: int
) -> keras.Model:
    """What is written next, for any number of steps at once: by teacher forcing all of a text,
    while it is written one token at a time::

        s_t = f(y_{t-1}, s_{t-1})                    the first layer
        c_t = attention(s_t, h_1 … h_n)              what it looks at, see `AdditiveAttention`
        s'_t = f'([s_t ; c_t], s'_{t-1})             further layers, if any
        y_t ~ softmax(V tanh(R [s'_t ; c_t]))

    The context goes upwards and on with the states of the further layers, not back into the
    first (as in Wu et al. 2016, and other than in Bahdanau et al. 2015): so each layer is
    unfolded over the whole text at once. Without attention there is no c_t.

    Args:
        memory: size of the encoder's hidden states h_j.

    Inputs: ``ids <int32>[batch, time]``, 0 being padding on the right; the states
    ``<float>[batch, units]``; with attention also keys ``<float>[batch, steps, embedding]`` of
    the memory, itself ``<float>[batch, steps, memory]``, and ``valid <bool>[batch, steps]``.

    Outputs: ``logits <float32>[batch, time, vocabulary]``, the states; with attention also its
    weights ``<float>[batch, time, steps]``.
    """
    # One seed a layer: equal seeds would draw equal dropout masks.
    seeds = iter(range(seed, seed + 10))
    attends = config.attention == "additive"
    ids = keras.Input((None,), dtype="int32", name="ids")
    states = [
        keras.Input((units,), name=f"state_{i}") for i, units in enumerate(state_sizes(config))
    ]
    embedding = reversible_embedding(vocabulary, config.embedding, seed=next(seeds))
    x = keras.layers.Dropout(config.dropout, seed=next(seeds), name="input_dropout")(embedding(ids))
    mask = ops.not_equal(ids, PADDING)

    below = config if not attends else config.model_copy(update={"units": config.units[:1]})
    first = len(state_sizes(below))
    hidden, after = recurrent_stack(
        below, x, mask, seed=seed + 10, dropout=config.dropout, states=states[:first],
        name="decoder",
    )  # fmt: skip
    looked_at, alignment = [], []
    if attends:
        looked_at = [
            keras.Input((None, config.embedding), name="keys"),
            keras.Input((None, memory), name="memory"),
            keras.Input((None,), dtype="bool", name="valid"),
        ]
        attention = AdditiveAttention(config.embedding, seed=next(seeds), name="attention")
        context, weights = attention(hidden, *looked_at)
        alignment = [weights]
        hidden = ops.concatenate([hidden, context], axis=-1)
        if above := config.units[1:]:
            hidden, more = recurrent_stack(
                config.model_copy(update={"units": above}),
                keras.layers.Dropout(config.dropout, seed=next(seeds), name="context_dropout")(
                    hidden
                ),
                mask,
                seed=seed + 20,
                dropout=config.dropout,
                states=states[first:],
                below=1,
                name="decoder",
            )
            after += more
            hidden = ops.concatenate([hidden, context], axis=-1)
    read = keras.layers.Dense(config.embedding, activation="tanh", name="R")(hidden)
    read = keras.layers.Dropout(config.dropout, seed=next(seeds), name="dropout")(read)
    # Scores are float32 whatever the precision: half of it loses small probabilities.
    read = ops.cast(read, "float32")
    if config.tied:
        logits = embedding(read, reverse=True)
    else:
        logits = keras.layers.Dense(vocabulary, dtype="float32", name="V")(read)
    return keras.Model(
        [ids, *states, *looked_at],
        [logits, *after, *alignment],
        name="decoder",
    )


def attends(decoder: keras.Model) -> bool:
    """Whether a `network` looks at what was read."""
    return bool(decoder.inputs[-1].name == "valid")


def keys(config: DecoderConfig, memory: Any) -> Any:
    """The U h_j of additive attention, made once for each memory."""
    return keras.layers.Dense(config.embedding, name="U")(memory)


def first_states(config: DecoderConfig, last: list[Any], *, as_is: bool) -> list[Any]:
    """Where the decoder starts from: the encoder's last states ``<float>[batch, units]``, handed
    over as the chapter draws it, or if they do not fit s_0 = tanh(B [all of them])."""
    if as_is:
        return last
    whole = ops.concatenate(last, axis=-1)
    return [
        keras.layers.Dense(units, activation="tanh", name=f"bridge_{i}")(whole)
        for i, units in enumerate(state_sizes(config))
    ]


def step(
    decoder: keras.Model, ids: Any, states: list[Any], looked_at: list[Any], *, training: bool
) -> tuple[Any, list[Any], Any]:
    """``(logits, states, alignment)`` of a `network`; None for what it has not."""
    count = len(states)
    logits, *rest = keras.tree.flatten(decoder([ids, *states, *looked_at], training=training))
    return logits, rest[:count], rest[count] if looked_at else None


class Seq2Seq(keras.Model):
    """Says something about what it reads: what translation and captioning have in common.

    Args:
        reader: what is read → the decoder's first states and, with attention, what a `network`
            looks at.
        decoder: a `network`.
    """

    #: The arguments of the class that are models, in the order in which they are built.
    parts: ClassVar[tuple[str, ...]] = ("reader", "decoder")

    def __init__(self, **kwargs: Any) -> None:
        models = {name: kwargs.pop(name) for name in self.parts}
        super().__init__(**kwargs)
        for name, model in models.items():
            setattr(self, name, model)
        self.built = True  # they are

    def read(self, given: Any, *, training: bool = False) -> tuple[list[Any], list[Any]]:
        """The decoder's first states, and what it can look at: nothing without attention."""
        found = keras.tree.flatten(self.reader(given, training=training))
        return (found[:-3], found[-3:]) if attends(self.decoder) else (found, [])

    def write(
        self, ids: Any, states: list[Any], looked_at: list[Any], *, training: bool = False
    ) -> tuple[Any, list[Any], Any]:
        """``(logits, states, alignment)``, see `step`."""
        return step(self.decoder, ids, states, looked_at, training=training)

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
