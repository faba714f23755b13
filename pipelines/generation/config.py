"""The config of a generation experiment."""

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

#: Limits of an export for one request: the temperature, above which the distribution is uniform
#: anyway, and the longest text.
MAX_TEMPERATURE, MAX_LENGTH = 100.0, 100_000


class GenerationDataConfig(TextDataConfig):
    """Where documents come from: tunes, plays, articles. See ``data.md``."""

    column_keys: ClassVar[tuple[str, ...]] = ("text",)

    text: CoercedStr = "text"
    """The column with the text; the text of a file is in the column ``text``."""


class GenerationTextConfig(TokenizerConfig):
    """How documents become token ids."""

    format: Literal["plain", "abc"] = "plain"
    """``abc`` is for folk tunes in ABC notation: headers that no player needs are removed, and
    generated tunes are also scored as music."""


class GenerationModelConfig(CellConfig):
    """Embedding → recurrent layers → V → softmax over the next token."""

    level: TokenLevel = "character"
    """The unit of a token. ``subword`` learns byte-pair encoding and falls back to bytes, so that
    no text has unknown tokens."""
    embedding: int = Field(64, ge=1)
    """Size of the token embedding."""
    dropout: Fraction = 0.0
    """Dropout rate for the embedding, between layers and before V."""
    tied: bool = False
    """Use the embedding matrix as V (Press & Wolf 2017)."""


class StreamTrainConfig(TrainConfig):
    """How the model is trained on continuous streams of text; ``batch_size`` is the number of
    parallel streams."""

    window: int = Field(64, ge=1)
    """Truncated backpropagation through time: steps between two updates. The state passes from
    one window to the next, the gradient does not."""


class SamplingConfig(BaseConfig):
    """How texts are generated."""

    temperature: float = Field(0.8, ge=0, le=MAX_TEMPERATURE)
    """Divides the logits: 0 always takes the most likely token, 1 samples from the model's
    probabilities."""
    top_k: int | None = Field(None, ge=1)
    """Sample from this many most likely tokens; ``null`` is all of them."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the most likely tokens that together have this probability (nucleus sampling);
    1 is all of them."""
    max_length: int = Field(600, ge=0, le=MAX_LENGTH)
    """Largest number of tokens (characters, words or sub-words)."""
    seed: int = Field(1, ge=0, lt=2**31)
    """Seed of the sampling."""
    prompts: list[str] = Field([""], min_length=1)
    """Texts that are continued after every epoch, always with the same seed."""
    count: int = Field(20, ge=1)
    """Number of texts that ``evaluate`` generates without a prompt and scores."""


class GenerationConfig(Experiment):
    """Texts → continuations."""

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
    meanings: ClassVar[dict[str, str]] = {
        "cross_entropy": "Mean −log of the probability of each token of the test texts, in nats.",
        "perplexity": "Its exponential: as uncertain as a choice among so many tokens.",
        "bits_per_character": "The same in bits.",
        "unknown_share": "Share of test tokens that are unknown; these are easy to predict.",
        "parse_rate": "Share of the model's tunes that are valid ABC.",
        "bars_add_up_rate": "Share that are valid and have only complete bars.",
        "good_bar_rate": "Share of complete bars in the valid ones.",
        "copied": "Share of its runs of eight notes that a training tune has too.",
        "held_out_parse_rate": "The same of the test tunes, for comparison.",
        "held_out_bars_add_up_rate": "The same of the test tunes, for comparison.",
        "held_out_good_bar_rate": "The same of the test tunes, for comparison.",
        "held_out_copied": "The same of the test tunes, for comparison.",
        "written": "Texts that the model wrote without a prompt.",
        "surprise_by_place": "The loss by position in the text.",
        "lengths": "Lengths of the texts that the model wrote, beside those of the test.",
        "tune": "The first tune that it wrote whose bars are all complete.",
    }
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

    @property
    def input_columns(self) -> list[str]:
        return ["prompt"]

    @model_validator(mode="after")
    def _tunes_are_spelled(self) -> Self:
        if self.text.format == "abc" and (self.text.lowercase or self.model.level != "character"):
            raise ValueError(
                "text.format: abc needs model.level: character and text.lowercase: false: "
                "in ABC notation each letter is a note, and its case the octave"
            )
        return self


CONFIG = GenerationConfig
