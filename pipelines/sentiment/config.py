"""The config of a sentiment experiment."""

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
    """Where labelled texts come from. See ``data.md``."""

    column_keys: ClassVar[tuple[str, ...]] = ("text", "label")

    text: CoercedStr = "text"
    """The column with the text."""
    label: CoercedStr = "label"
    """The column with the class."""
    labels: dict[CoercedStr, CoercedStr] | None = Field(None, min_length=2)
    """Names of the classes by their label in the data, e.g. ``{0: negative, 1: positive}``; rows
    with other labels are unusable. ``null`` uses the labels as names."""


class SentimentTextConfig(BaseConfig):
    """How texts become word ids."""

    lowercase: bool = True
    """Convert the text to lower case."""
    vocabulary: int = Field(20_000, ge=3)
    """Vocabulary size, including the ids for padding and unknown."""
    min_count: int = Field(2, ge=1)
    """Smallest count in the training split; rarer words become unknown."""
    max_tokens: int | None = Field(400, ge=1)
    """Length to which longer texts are cut; ``null`` keeps them whole."""
    keep: Literal["head", "tail", "ends"] = "ends"
    """What remains of a cut text: its head, its tail, or half of each."""


class NgramConfig(BaseConfig):
    """A linear model over hashed word n-grams. Each row of the training data trains it or the
    recurrent model; the prediction is the mean of their probabilities."""

    order: int = Field(2, ge=1, le=5)
    """Longest n-gram, in words."""
    buckets: int = Field(2**20, ge=2, le=2**24)
    """Rows of the table that n-grams are hashed to."""
    alone: bool = False
    """Leave out the recurrent model."""


class SentimentModelConfig(RecurrentConfig):
    """Embedding → recurrent layers → pooled state → V → softmax."""

    embedding: int = Field(100, ge=1)
    """Size of the word embedding."""
    pool: list[Literal["last", "mean", "max"]] = Field(["last"], min_length=1)
    """How the states become one vector: the last state, as in the chapter, or the mean or maximum
    over all valid steps; several are concatenated."""
    token_dropout: Fraction = 0.0
    """Probability that a training token is replaced by unknown."""
    embedding_dropout: Fraction = 0.0
    """Dropout rate for embedding dimensions, the same ones at all steps of a text."""
    dropout: Fraction = 0.0
    """Dropout rate before V."""
    ngrams: NgramConfig | None = None
    """A linear n-gram model beside the recurrent one, or ``null``."""


class SentimentConfig(Experiment):
    """Texts → classes."""

    score: ClassVar[Score] = Score("accuracy", higher_is_better=True)
    meanings: ClassVar[dict[str, str]] = {
        "accuracy": "Share of texts that get the right class.",
        "macro_f1": "Mean over classes of F1, in which rare classes count as much as others.",
        "loss": "Mean −log of the probability of the right class, in nats.",
        "calibration_error": "Mean difference between confidence and share correct.",
        "roc_auc": "Probability that a text of a class has a higher score for it than another.",
        "worst_mistakes": "Texts whose right class got the smallest probability.",
        "confusion_matrix": "How many texts of each class were given each class.",
        "reliability": "Share of right answers by confidence. On the dashed line, the confidence "
        "is what it says.",
    }
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
