"""Config sections of the pipelines that generate a text about an encoded input."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pipelines.engine.config.schema import BaseConfig, BucketTrainConfig, CellConfig, Fraction


class DecoderConfig(CellConfig):
    """Layers that generate a text from an encoded input."""

    embedding: int = Field(256, ge=1)
    """Size of the token embedding, of the attention keys and of the input of V."""
    attention: Literal["additive", "none"] = "additive"
    """Attend to every encoder step (Bahdanau et al. 2015). With ``none``, the decoder starts from
    the encoder's output and sees nothing else of the input, as the chapter draws it."""
    dropout: Fraction = 0.0
    """Dropout rate for the embedding, between layers and before V."""
    tied: bool = True
    """Use the embedding matrix as V (Press & Wolf 2017)."""

    @model_validator(mode="after")
    def _depends_on_the_input(self) -> Self:
        if self.cell == "feedforward" and self.attention == "none":
            raise ValueError(
                "cell: feedforward has no state and attention: none reads no encoder output, so "
                "the output would not depend on the input; change one of the two"
            )
        return self


#: Limits of an export for one request: the widest beam and the longest text.
MAX_BEAM_WIDTH, MAX_LENGTH = 64, 2_000


class DecodingConfig(BaseConfig):
    """Beam search for the most likely text."""

    beam_width: int = Field(5, ge=1, le=MAX_BEAM_WIDTH)
    """Number of hypotheses; 1 is greedy search."""
    length_penalty: float = Field(1.0, ge=0, le=2)
    """α of the score log p / length^α that ranks hypotheses: 0 prefers short texts, 1 ranks by
    the mean log p of a token."""
    min_length: int = Field(0, ge=0, le=MAX_LENGTH)
    """Smallest number of tokens, without the end token."""
    max_length: int = Field(200, ge=1, le=MAX_LENGTH)
    """Largest number of tokens; longer texts are cut."""

    @model_validator(mode="after")
    def _lengths_rise(self) -> Self:
        if self.min_length > self.max_length:
            raise ValueError(
                f"min_length ({self.min_length}) is above max_length ({self.max_length})"
            )
        return self


class TeacherForcedTrainConfig(BucketTrainConfig):
    """How the decoder is trained to predict the next token of the true text."""

    label_smoothing: Fraction = 0.0
    """Fraction of the target probability spread evenly over all tokens (Szegedy et al. 2016)."""
