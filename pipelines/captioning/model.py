"""A picture to a text: one to many, as the chapter draws it, or with a look at each word."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from pipelines.captioning.config import CaptioningModelConfig, ImageEncoderConfig
from pipelines.engine.config.decoding import DecoderConfig
from pipelines.engine.models import seq2seq


def build(
    config: CaptioningModelConfig, encoder: keras.Model, *, vocabulary: int, seed: int
) -> Captioner:
    """
    Args:
        encoder: pictures to a grid of features, see `encoders.load`.
        vocabulary: ids in all.
    """
    reader = reading_network(
        config.encoder, config.decoder, channels=encoder.output_shape[-1], seed=seed
    )
    decoder = seq2seq.decoder_network(
        config.decoder, vocabulary=vocabulary, memory=config.encoder.features, seed=seed + 100
    )
    return Captioner(
        encoder=encoder, reader=reader, decoder=decoder, fine_tune=config.encoder.fine_tune
    )


def reading_network(
    config: ImageEncoderConfig, decoder: DecoderConfig, *, channels: int, seed: int
) -> keras.Model:
    """What the decoder is told of a grid of features g_1 … g_n::

        h_j = max(P g_j + b, 0)                what is kept of place j
        s_0 = tanh(B [mean of the h_j])        where the decoder starts from

    Input: ``<float>[batch, places, channels]``. Outputs: the decoder's first states
    ``<float>[batch, units]``; with attention also what a `decoders.network` looks at: keys, the
    memory h and which of it is valid, all.
    """
    grid = keras.Input((None, channels), name="grid")
    init = keras.initializers.GlorotUniform(seed + 1)
    memory = keras.layers.Dense(
        config.features, activation="relu", kernel_initializer=init, name="P"
    )(grid)
    memory = keras.layers.Dropout(config.dropout, seed=seed, name="dropout")(memory)
    states = seq2seq.initial_states(decoder, [ops.mean(memory, axis=1)], same_shape=False)
    attended = []
    if decoder.attention == "additive":
        valid = ops.ones_like(memory[:, :, 0], dtype="bool")
        attended = [seq2seq.attention_keys(decoder, memory), memory, valid]
    return keras.Model(grid, [*states, *attended], name="reader")


@keras.saving.register_keras_serializable(package="unfold")
class Captioner(seq2seq.Seq2Seq):
    """Trains the decoder and, if it is to be fine-tuned, the encoder.

    Args:
        encoder: see `encoders.load`.
        reader: see `reading_network`.
        decoder: what `decoders.network` returns.
        fine_tune: whether the encoder is trained.

    Call: ``{"picture": <float>[batch, places, channels], "written": <int32>[batch, time]}`` →
    logits ``<float32>[batch, time, vocabulary]`` of what is written next, given the true text so
    far. The picture is the encoder's grid, or of one that is fine-tuned the pixels
    ``<float>[batch, size · size, 3]``.
    """

    parts = ("encoder", "reader", "decoder")

    def __init__(self, *, fine_tune: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fine_tune = fine_tune
        self.encoder.trainable = fine_tune

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        picture = inputs["picture"]
        if self.fine_tune:
            picture = self.see(ops.reshape(picture, (-1, *self.encoder.input_shape[1:])))
        states, attended = self.encode(picture, training=training)
        return self.decode(inputs["written"], states, attended, training=training)[0]

    def see(self, pictures: Any) -> Any:
        """``<float>[batch, size, size, 3]``, RGB from 0 to 255, to the grid ``<float>[batch,
        places, channels]``. Batch normalisation is always by the statistics that it came with.
        """
        grid = self.encoder(pictures, training=False)
        _, height, width, channels = self.encoder.output_shape
        return ops.reshape(grid, (-1, height * width, channels))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"fine_tune": self.fine_tune}
