"""Encoder and decoder: one sequence of any length to another of any length."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from pipelines.engine.config.decoding import DecoderConfig
from pipelines.engine.data.ragged import PADDING
from pipelines.engine.models import seq2seq
from pipelines.engine.models.blocks import recurrent_stack, state_sizes
from pipelines.translation.config import TextEncoderConfig, TranslationModelConfig


def build(config: TranslationModelConfig, *, inputs: int, outputs: int, seed: int) -> Translator:
    """
    Args:
        inputs, outputs: sizes of the two vocabularies.
    """
    encoder = encoder_network(config.encoder, config.decoder, vocabulary=inputs, seed=seed)
    decoder = seq2seq.decoder_network(
        config.decoder, vocabulary=outputs, memory=memory_size(config.encoder), seed=seed + 100
    )
    return Translator(reader=encoder, decoder=decoder)


def memory_size(config: TextEncoderConfig) -> int:
    return config.units[-1] * (2 if config.bidirectional else 1)


def encoder_network(
    config: TextEncoderConfig, decoder: DecoderConfig, *, vocabulary: int, seed: int
) -> keras.Model:
    """``ids <int32>[batch, steps]`` → the decoder's first states ``<float>[batch, units]``; with
    attention also what a `decoders.network` looks at: keys, memory and valid.
    """
    ids = keras.Input((None,), dtype="int32", name="ids")
    valid = ops.not_equal(ids, PADDING)
    embedding = keras.layers.Embedding(
        vocabulary,
        config.embedding,
        embeddings_initializer=keras.initializers.RandomUniform(-0.1, 0.1, seed=seed),
        name="embedding",
    )
    x = keras.layers.Dropout(config.dropout, seed=seed + 1, name="input_dropout")(embedding(ids))
    hidden, last = recurrent_stack(
        config, x, valid, seed=seed + 10, dropout=config.dropout, name="encoder"
    )
    same = not config.bidirectional and state_sizes(config) == state_sizes(decoder)
    states = seq2seq.initial_states(decoder, last, same_shape=same)
    attended = []
    if decoder.attention == "additive":
        memory = keras.layers.Dropout(config.dropout, seed=seed + 2, name="dropout")(hidden)
        memory = memory * ops.cast(valid, memory.dtype)[:, :, None]
        attended = [seq2seq.attention_keys(decoder, memory), memory, valid]
    return keras.Model(ids, [*states, *attended], name="encoder")


@keras.saving.register_keras_serializable(package="unfold")
class Translator(seq2seq.Seq2Seq):
    """Trains encoder and decoder together.

    Args:
        reader: the encoder, see `encoder_network`.
        decoder: what `decoders.network` returns.

    Call: ``{"read": <int32>[batch, steps], "written": <int32>[batch, time]}`` → logits
    ``<float32>[batch, time, vocabulary]`` of what is written next, given the true text so far.
    """

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        states, attended = self.encode(inputs["read"], training=training)
        return self.decode(inputs["written"], states, attended, training=training)[0]
