"""The keys of a translation experiment."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipelines.engine.config.schema import (
    BaseConfig,
    CoercedStr,
    DecoderConfig,
    DecodingConfig,
    Experiment,
    Fraction,
    RecurrentConfig,
    Score,
    TeacherForcedTrainConfig,
    TextRowsDataConfig,
    TokenizerConfig,
    TokenLevel,
)


class TranslationDataConfig(TextRowsDataConfig):
    """Rows with a text and its translation: or a question and its answer, a long text and a
    short one."""

    #: The columns.
    input: CoercedStr = "input"
    output: CoercedStr = "output"
    #: Pairs with more characters on either side are left out of every split, and counted.
    max_characters: int = Field(400, ge=1)


class TranslationTextConfig(TokenizerConfig):
    """How texts become ids, on both sides alike."""

    #: One vocabulary, learned from both sides together; else one for each.
    shared: bool = False
    #: How sacreBLEU divides texts into words when they are scored.
    scored: Literal["13a", "intl", "zh", "char"] = "13a"


class TextEncoderConfig(RecurrentConfig):
    """Embedding → recurrent layers: what is read."""

    embedding: int = Field(256, ge=1)
    #: Probability that a feature is zeroed: of the embedding, and between layers.
    dropout: Fraction = 0.0


class TranslationModelConfig(BaseConfig):
    """Encoder → decoder."""

    level: TokenLevel = "subword"
    encoder: TextEncoderConfig = TextEncoderConfig()
    decoder: DecoderConfig = DecoderConfig()

    @model_validator(mode="after")
    def _encoder_remembers(self) -> Self:
        if self.encoder.cell == "feedforward":
            raise ValueError(
                "encoder.cell: feedforward has no state to hand over; allowed: rnn, lstm, gru"
            )
        return self


class TranslationConfig(Experiment):
    output_files: ClassVar[dict[str, str]] = {"attention": "draw what each word looked at (PNG)"}

    request_keys: ClassVar[tuple[str, ...]] = ("decoding.beam_width", "decoding.max_length")

    score: ClassVar[Score] = Score("bleu", higher_is_better=True)
    variants: ClassVar[dict[str, tuple[str, ...]]] = {
        **{
            cell: (
                f"model.encoder.cell={cell}",
                f"model.decoder.cell={cell}",
                "model.encoder.bidirectional=false",
            )
            for cell in ("rnn", "gru", "lstm")
        },
        "bidirectional": ("model.encoder.bidirectional=true",),
        "no-attention": ("model.decoder.attention=none",),
    }

    task: Literal["translation"] = "translation"
    data: TranslationDataConfig
    text: TranslationTextConfig = TranslationTextConfig()
    model: TranslationModelConfig = TranslationModelConfig()
    train: TeacherForcedTrainConfig = TeacherForcedTrainConfig()
    decoding: DecodingConfig = DecodingConfig()


CONFIG = TranslationConfig
