"""The keys of a captioning experiment."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipelines.engine.config.schema import (
    BaseConfig,
    CoercedStr,
    DataConfig,
    DecoderConfig,
    DecodingConfig,
    Experiment,
    Fraction,
    Score,
    TeacherForcedTrainConfig,
    TokenizerConfig,
    TokenLevel,
)


class CaptioningDataConfig(DataConfig):
    """Rows with a picture and what people say about it."""

    #: The column with the picture: a file's name, from the table's folder on; or the file itself.
    image: CoercedStr = "image"
    #: The column with a caption, or a list of them. Rows with the same picture are put together.
    caption: CoercedStr = "caption"
    #: Records on two sides never have the same picture; or never the same captions as well.
    apart: Literal["picture", "caption"] = "picture"
    #: Captions with more characters are left out of every split, and counted.
    max_characters: int = Field(400, ge=1)


class CaptioningTextConfig(TokenizerConfig):
    """How captions become ids."""

    lowercase: bool = True


class ImageEncoderConfig(BaseConfig):
    """What looks at a picture: a grid of features, and how it is handed to the decoder."""

    #: ``efficientnet-lite0``, a name of ``keras.applications``, or the path of a ``.keras`` file.
    name: str = "efficientnet-lite0"
    #: Pictures are squeezed to so many pixels in width and height.
    size: int = Field(224, ge=32, le=1024)
    #: Train the encoder too; else its features are computed once.
    fine_tune: bool = False
    #: Size of what is kept of each place of the grid.
    features: int = Field(256, ge=1)
    #: Probability that a feature is zeroed.
    dropout: Fraction = 0.0


class CaptioningModelConfig(BaseConfig):
    """Encoder → decoder."""

    level: TokenLevel = "word"
    encoder: ImageEncoderConfig = ImageEncoderConfig()
    decoder: DecoderConfig = DecoderConfig()


class CaptioningConfig(Experiment):
    output_files: ClassVar[dict[str, str]] = {"attention": "draw what each word looked at (PNG)"}
    request_keys: ClassVar[tuple[str, ...]] = ("decoding.beam_width", "decoding.max_length")
    binary_inputs: ClassVar[tuple[str, ...]] = ("image",)

    score: ClassVar[Score] = Score("cider_d", higher_is_better=True)
    variants: ClassVar[dict[str, tuple[str, ...]]] = {
        "rnn": ("model.decoder.cell=rnn",),
        "gru": ("model.decoder.cell=gru",),
        "lstm": ("model.decoder.cell=lstm",),
        "no-attention": ("model.decoder.attention=none",),
    }

    task: Literal["captioning"] = "captioning"
    data: CaptioningDataConfig
    text: CaptioningTextConfig = CaptioningTextConfig()
    model: CaptioningModelConfig = CaptioningModelConfig()
    train: TeacherForcedTrainConfig = TeacherForcedTrainConfig()
    decoding: DecodingConfig = DecodingConfig()


CONFIG = CaptioningConfig
