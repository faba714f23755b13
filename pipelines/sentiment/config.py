"""The keys of a sentiment experiment."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipelines.engine.config.schema import (
    BaseConfig,
    BucketTrainConfig,
    CoercedStr,
    Experiment,
    Fraction,
    RecurrentConfig,
    Score,
    TextRowsDataConfig,
)


class SentimentDataConfig(TextRowsDataConfig):
    """Rows with a text and a label."""

    text: CoercedStr = "text"
    label: CoercedStr = "label"
    #: Names for the labels as they stand in the data, e.g. ``{0: negative, 1: positive}``.
    #: Rows with any other label are unusable. Null takes the labels as they are.
    labels: dict[CoercedStr, CoercedStr] | None = Field(None, min_length=2)


class SentimentTextConfig(BaseConfig):
    """How text becomes ids."""

    lowercase: bool = True
    #: Ids in all, padding and unknown included.
    vocabulary: int = Field(20_000, ge=3)
    #: Words seen less often in the training split are unknown.
    min_count: int = Field(2, ge=1)
    #: Longer texts are cut; null reads them whole.
    max_tokens: int | None = Field(400, ge=1)
    keep: Literal["head", "tail", "ends"] = "ends"


class NgramConfig(BaseConfig):
    """A linear model over the words and word n-grams of a text, beside the recurrent one."""

    #: The longest n-gram, in words.
    order: int = Field(2, ge=1, le=5)
    #: Rows of the table that n-grams are hashed to.
    buckets: int = Field(2**20, ge=2, le=2**24)
    #: Leave the recurrent model out.
    alone: bool = False


class SentimentModelConfig(RecurrentConfig):
    """Embedding → recurrent layers → pooled state → V → softmax."""

    embedding: int = Field(100, ge=1)
    #: The chapter reads off the last state; max and mean go over all valid steps.
    pool: list[Literal["last", "mean", "max"]] = Field(["last"], min_length=1)
    #: Probability that a training token is replaced by the unknown id.
    token_dropout: Fraction = 0.0
    #: Probability that an embedding dimension is zeroed, for all steps of a sequence alike.
    embedding_dropout: Fraction = 0.0
    #: Probability that a feature is zeroed before V.
    dropout: Fraction = 0.0
    #: Null for none. The answer is then the mean of the two models' probabilities.
    ngrams: NgramConfig | None = None


class SentimentConfig(Experiment):
    score: ClassVar[Score] = Score("accuracy", higher_is_better=True)
    variants: ClassVar[dict[str, tuple[str, ...]]] = {
        "n-grams": ("model.ngrams.alone=true",),
        "feedforward": ("model.cell=feedforward", "model.bidirectional=false"),
        "rnn": ("model.cell=rnn", "model.bidirectional=false"),
        "gru": ("model.cell=gru", "model.bidirectional=false"),
        "lstm": ("model.cell=lstm", "model.bidirectional=false"),
        "bidirectional": ("model.bidirectional=true",),
    }

    task: Literal["sentiment"] = "sentiment"
    data: SentimentDataConfig
    text: SentimentTextConfig = SentimentTextConfig()
    model: SentimentModelConfig = SentimentModelConfig()
    train: BucketTrainConfig = BucketTrainConfig()


CONFIG = SentimentConfig
