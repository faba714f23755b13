"""The config of a sentiment experiment."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

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
    """The column with the class; with ``multi_label``, with a list of labels."""
    multi_label: bool = False
    """Whether a text may have any number of labels
    (`classifying.md#texts-with-several-labels`)."""
    separator: str = Field("|", min_length=1)
    """What stands between two labels where the list is text; with ``multi_label`` only."""
    labels: dict[CoercedStr, CoercedStr] | None = Field(None, min_length=2)
    """Names of the classes by their label in the data, e.g. ``{0: negative, 1: positive}``; rows
    with other labels are unusable. ``null`` uses the labels as names."""


class SentimentTrainConfig(BucketTrainConfig):
    """How the model is trained on whole texts of unequal length."""

    class_weights: Literal["balanced"] | dict[CoercedStr, Annotated[float, Field(gt=0)]] | None = (
        None
    )
    """How much a text of each class counts, e.g. ``{spam: 5}``; 1 for classes that are left out.
    ``balanced`` is n / (k · n_c) for n_c of n texts in k classes, so that all classes count alike
    (`classifying.md#classes-that-are-not-alike`)."""

    @field_validator("class_weights", mode="before")
    @classmethod
    def _is_balanced_or_a_mapping(cls, value: Any) -> Any:
        if value is None or value == "balanced" or isinstance(value, dict):
            return value
        raise ValueError("must be balanced, a weight for each class as in {spam: 5}, or null")


class DecisionConfig(BaseConfig):
    """When a text gets no label, because the model is too unsure."""

    threshold: float | None = Field(None, ge=0, le=1)
    """Smallest probability with which a label is given; below it the answer is “don't know”
    (`classifying.md#dont-know`). ``null`` always gives one."""
    accuracy: float | None = Field(None, gt=0, le=1)
    """Accuracy that the given labels should have: chooses the smallest threshold that reaches it
    on the validation split. Has no effect together with ``threshold``."""


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
    """Embedding → recurrent layers → pooled state → V → softmax, or a sigmoid for each label."""

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
    request_keys: ClassVar[tuple[str, ...]] = ("decision.threshold",)
    meanings: ClassVar[dict[str, str]] = {
        "accuracy": "Share of texts that get the right class.",
        "macro_f1": "Mean over classes of F1, in which rare classes count as much as others.",
        "loss": "Mean −log of the probability of the right class, in nats.",
        "calibration_error": "Mean difference between confidence and share correct.",
        "roc_auc": "Probability that a text of a class has a higher score for it than another.",
        "temperature": "What the logits are divided by, learned on the validation split.",
        "calibration_error_before": "The calibration error without the temperature.",
        "precision": "Share of the texts that were given the class which have it.",
        "recall": "Share of the texts of the class that were given it.",
        "f1": "Harmonic mean of precision and recall.",
        "support": "Test texts of the class.",
        "threshold": "Smallest probability with which a label is given.",
        "coverage": "Share of texts that get a label.",
        "answered_accuracy": "Share of these labels that are right.",
        "micro_f1": "F1 over all decisions on labels.",
        "hamming_loss": "Share of decisions on labels that are wrong.",
        "classes": "Precision, recall and F1 of each class.",
        "thresholds": "Share of texts with at least this probability, and of these, share correct.",
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
    train: SentimentTrainConfig = SentimentTrainConfig()
    calibration: Literal["temperature", "none"] = "temperature"
    """``temperature`` divides the logits by a number learned on the validation split, if that makes
    the probabilities better (`classifying.md#probabilities-one-can-use`)."""
    decision: DecisionConfig = DecisionConfig()

    @model_validator(mode="after")
    def _fits_the_labels(self) -> Self:
        if not self.data.multi_label:
            return self
        if self.train.class_weights is not None:
            raise ValueError(
                "train.class_weights: with data.multi_label each label has a threshold of its own, "
                "learned on the validation split, and no weight; leave it out"
            )
        if self.decision != DecisionConfig():
            raise ValueError(
                "decision: with data.multi_label each label has a threshold of its own, learned on "
                "the validation split; leave it out"
            )
        if self.model.ngrams is not None and not self.model.ngrams.alone:
            raise ValueError(
                "model.ngrams: with data.multi_label n-grams are a model of their own; add "
                "alone: true, or leave them out"
            )
        return self


CONFIG = SentimentConfig
