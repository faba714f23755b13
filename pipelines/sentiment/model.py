"""The sentiment model: embedding → cells → pooled state → V."""

from __future__ import annotations

import keras

from pipelines.engine.data.ragged import PADDING
from pipelines.engine.models.blocks import (
    Committee,
    NgramScores,
    TokenDropout,
    ValidPool,
    recurrent_stack,
)
from pipelines.sentiment.config import SentimentModelConfig


def build(config: SentimentModelConfig, *, vocabulary: int, classes: int, seed: int) -> keras.Model:
    """``ids <int32>[batch, time]`` (0 is padding, on the right) → ``logits [batch, classes]``.

    `calibration.calibrated` adds a last layer after training.
    """
    # One seed a layer: equal seeds would draw equal dropout masks.
    seeds = iter(range(seed, seed + 10))
    ids = keras.Input((None,), dtype="int32", name="ids")
    if config.ngrams:
        counted = NgramScores(
            classes, config.ngrams.order, config.ngrams.buckets, dtype="float32", name="ngrams"
        )(ids)
        if config.ngrams.alone:
            return keras.Model(ids, counted, name="sentiment")
    valid = keras.ops.not_equal(ids, PADDING)
    words = TokenDropout(config.token_dropout, seed=next(seeds), name="token_dropout")(ids)
    x = keras.layers.Embedding(
        vocabulary,
        config.embedding,
        embeddings_initializer=keras.initializers.RandomUniform(-0.05, 0.05, seed=next(seeds)),
        name="embedding",
    )(words)
    x = keras.layers.SpatialDropout1D(
        config.embedding_dropout, seed=next(seeds), name="input_dropout"
    )(x)
    hidden, _ = recurrent_stack(config, x, valid, seed=seed + 10)
    pooled = ValidPool(config.pool, config.bidirectional, name="pool")(hidden, valid)
    pooled = keras.layers.Dropout(config.dropout, seed=next(seeds), name="dropout")(pooled)
    # Scores are float32 whatever the precision: a softmax in half precision loses small classes.
    logits = keras.layers.Dense(
        classes,
        kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
        dtype="float32",
        name="V",
    )(pooled)
    if config.ngrams:
        members = keras.ops.stack([logits, counted], axis=1)
        logits = Committee(seed=next(seeds), dtype="float32", name="committee")(members)
    return keras.Model(ids, logits, name="sentiment")
