"""The keys of a generation experiment."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipelines.engine.config.schema import (
    BaseConfig,
    CellConfig,
    CoercedStr,
    Experiment,
    Fraction,
    Score,
    TextDataConfig,
    TokenizerConfig,
    TokenLevel,
    TrainConfig,
)

#: Above this every token is as likely as every other; and what a server writes for one request.
MAX_TEMPERATURE, MAX_LENGTH = 100.0, 100_000


class GenerationDataConfig(TextDataConfig):
    """Texts, each of them a document: a tune, a play, an article."""

    text: CoercedStr = "text"


class GenerationTextConfig(TokenizerConfig):
    #: ``abc``: folk tunes in ABC notation. Their headers are reduced to what a player needs, and
    #: generated tunes are judged as music.
    format: Literal["plain", "abc"] = "plain"


class GenerationModelConfig(CellConfig):
    """Embedding → recurrent layers → V → softmax over what comes next."""

    level: TokenLevel = "character"
    embedding: int = Field(64, ge=1)
    #: Probability that a feature is zeroed: of the embedding, between layers, and before V.
    dropout: Fraction = 0.0
    #: V is the embedding's own matrix (Press & Wolf 2017).
    tied: bool = False


class StreamTrainConfig(TrainConfig):
    """Training on text that goes on from batch to batch; ``batch_size`` counts its streams."""

    #: Truncated backpropagation through time: steps between two updates. The state is carried
    #: from window to window, the gradient is not.
    window: int = Field(64, ge=1)


class SamplingConfig(BaseConfig):
    """How a text is continued, and what is sampled to see how a model writes."""

    #: 0 always takes the likeliest; 1 draws from the model's own probabilities.
    temperature: float = Field(0.8, ge=0, le=MAX_TEMPERATURE)
    #: Draw from so many likeliest only; null for all.
    top_k: int | None = Field(None, ge=1)
    #: Draw from the likeliest that hold this much probability (nucleus); 1 for all.
    top_p: float = Field(1.0, gt=0, le=1)
    #: Tokens (characters, words or sub-words), at most.
    max_length: int = Field(600, ge=0, le=MAX_LENGTH)
    seed: int = Field(1, ge=0, lt=2**31)
    #: Continued after every epoch, always with the same seed.
    prompts: list[str] = Field([""], min_length=1)
    #: How many texts are sampled from nothing, and judged, when a run is scored.
    count: int = Field(20, ge=1)


class GenerationConfig(Experiment):
    output_files: ClassVar[dict[str, str]] = {
        "midi": "write the tune as a MIDI file",
        "score": "draw the score of the tune (SVG)",
    }

    request_keys: ClassVar[tuple[str, ...]] = (
        "sampling.temperature",
        "sampling.max_length",
        "sampling.seed",
    )

    score: ClassVar[Score] = Score("cross_entropy", higher_is_better=False)
    variants: ClassVar[dict[str, tuple[str, ...]]] = {
        "feedforward": ("model.cell=feedforward",),
        "rnn": ("model.cell=rnn",),
        "gru": ("model.cell=gru",),
        "lstm": ("model.cell=lstm",),
    }

    task: Literal["generation"] = "generation"
    data: GenerationDataConfig
    text: GenerationTextConfig = GenerationTextConfig()
    model: GenerationModelConfig = GenerationModelConfig()
    train: StreamTrainConfig = StreamTrainConfig()
    sampling: SamplingConfig = SamplingConfig()

    @model_validator(mode="after")
    def _tunes_are_spelled(self) -> Self:
        if self.text.format == "abc" and (self.text.lowercase or self.model.level != "character"):
            raise ValueError(
                "text.format: abc needs model.level: character and text.lowercase: false: "
                "in ABC notation each letter is a note, and its case the octave"
            )
        return self


CONFIG = GenerationConfig
