"""The config of a tagging experiment."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipelines.engine.config.schema import (
    BaseConfig,
    BucketTrainConfig,
    CoercedStr,
    Experiment,
    RecurrentConfig,
    Score,
    TextRowsDataConfig,
)


class TagsDataConfig(TextRowsDataConfig):
    """Where tagged sentences come from."""

    column_keys: ClassVar[tuple[str, ...]] = ("text", "tags")

    text: CoercedStr = "text"
    """The column with the words, between spaces."""
    tags: CoercedStr = "tags"
    """The column with as many tags, between spaces."""


class TagsTextConfig(BaseConfig):
    """How words become ids."""

    vocabulary: int = Field(10_000, ge=3)
    """Vocabulary size, including the ids for padding and unknown."""
    min_count: int = Field(1, ge=1)
    """Smallest count in the training split; rarer words become unknown."""


class TagsModelConfig(RecurrentConfig):
    """Embedding → recurrent layers → V → softmax at each step."""

    embedding: int = Field(16, ge=1)
    """Size of the word embedding."""


class TagsConfig(Experiment):
    """Words → tags."""

    score: ClassVar[Score] = Score("accuracy", higher_is_better=True)
    variants: ClassVar[dict[str, tuple[str, ...]]] = {
        "forward": ("model.bidirectional=false",),
        "bidirectional": ("model.bidirectional=true",),
    }

    task: Literal["tags"] = "tags"
    data: TagsDataConfig
    text: TagsTextConfig = TagsTextConfig()
    model: TagsModelConfig = TagsModelConfig()
    train: BucketTrainConfig = BucketTrainConfig()


CONFIG = TagsConfig
