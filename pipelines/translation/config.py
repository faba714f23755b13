"""The config of a translation experiment."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipelines.engine.config.decoding import (
    DecoderConfig,
    DecodingConfig,
    TeacherForcedTrainConfig,
)
from pipelines.engine.config.schema import (
    BaseConfig,
    CoercedStr,
    Experiment,
    Fraction,
    RecurrentConfig,
    Score,
    TextRowsDataConfig,
    TokenizerConfig,
    TokenLevel,
)


class TranslationDataConfig(TextRowsDataConfig):
    """Where pairs of texts come from: a text and its translation, a question and its answer, a
    text and its summary. See ``data.md``."""

    column_keys: ClassVar[tuple[str, ...]] = ("input", "output")

    input: CoercedStr = "input"
    """The column with the source text."""
    output: CoercedStr = "output"
    """The column with the target text."""
    max_characters: int = Field(400, ge=1)
    """Longest text; pairs with a longer one are left out of every split, and counted."""


class TranslationTextConfig(TokenizerConfig):
    """How source and target texts become token ids."""

    shared: bool = False
    """Learn one vocabulary from both languages together instead of one for each."""
    scored: Literal["13a", "intl", "zh", "char"] = "13a"
    """sacreBLEU's tokenizer for the scores. References keep their case, so ``lowercase: true``
    costs the points that capital letters are worth."""


class TextEncoderConfig(RecurrentConfig):
    """Embedding → recurrent layers over the source text."""

    embedding: int = Field(256, ge=1)
    """Size of the token embedding."""
    dropout: Fraction = 0.0
    """Dropout rate for the embedding, between layers and for the output that is attended to."""


class TranslationModelConfig(BaseConfig):
    """Text encoder → text decoder."""

    level: TokenLevel = "subword"
    """The unit of a token; for ``character``, raise ``decoding.max_length``."""
    encoder: TextEncoderConfig = TextEncoderConfig()
    decoder: DecoderConfig = DecoderConfig()

    @model_validator(mode="after")
    def _encoder_has_a_state(self) -> Self:
        if self.encoder.cell == "feedforward":
            raise ValueError(
                "encoder.cell: feedforward has no state for the decoder; allowed: rnn, lstm, gru"
            )
        return self


class TranslationConfig(Experiment):
    """Texts → texts."""

    output_files: ClassVar[dict[str, str]] = {
        "attention": "draw the attention weights of each word (PNG)"
    }

    request_keys: ClassVar[tuple[str, ...]] = ("decoding.beam_width", "decoding.max_length")

    score: ClassVar[Score] = Score("bleu", higher_is_better=True)
    meanings: ClassVar[dict[str, str]] = {
        "bleu": "Share of runs of one to four words that the reference has too, from 0 to 100.",
        "chrf2": "The same of runs of characters, F-score, from 0 to 100.",
        "greedy_bleu": "BLEU without beam search.",
        "cross_entropy": "Mean −log of the probability of each token of the references, in nats.",
        "perplexity": "Its exponential: as uncertain as a choice among so many tokens.",
        "best_and_worst": "Translations by their likeness to the reference, chrF, the best first.",
        "bleu_by_length": "BLEU by the number of words of the input.",
        "translations": "Test texts, with the output and the reference.",
        "signatures": "How exactly the scores were computed.",
        "attention": "Which words of the input each word of the output looked at.",
    }
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
