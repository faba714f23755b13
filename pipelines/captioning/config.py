"""The config of a captioning experiment."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipelines.engine.config.decoding import (
    DecoderConfig,
    DecodingConfig,
    TeacherForcedTrainConfig,
)
from pipelines.engine.config.schema import (
    BaseConfig,
    CoercedStr,
    DataConfig,
    Experiment,
    Fraction,
    Score,
    TokenizerConfig,
    TokenLevel,
)


class CaptioningDataConfig(DataConfig):
    """Where images and their captions come from. See ``data.md``."""

    column_keys: ClassVar[tuple[str, ...]] = ("image", "caption")

    image: CoercedStr = "image"
    """The column with the image: a file name relative to the table's folder, or the file's
    bytes."""
    caption: CoercedStr = "caption"
    """The column with a caption or a list of captions. Rows with the same image are grouped."""
    apart: Literal["picture", "caption"] = "picture"
    """What two splits never share: an image; or, with ``caption``, an image or a caption."""
    max_characters: int = Field(400, ge=1)
    """Longest caption; longer ones are left out of every split, and counted."""


class CaptioningTextConfig(TokenizerConfig):
    """How captions become token ids."""

    lowercase: bool = True
    """Convert the text to lower case."""


class ImageEncoderConfig(BaseConfig):
    """A convolutional network whose grid of features the decoder attends to."""

    name: str = "efficientnet-lite0"
    """``efficientnet-lite0``, whose weights are installed; a name in ``keras.applications`` such
    as ``ResNet50``, whose weights Keras downloads (into ``KERAS_HOME``, if set); or the path of a
    ``.keras`` file that maps images ``[batch, size, size, 3]``, RGB from 0 to 255, to a grid
    ``[batch, height, width, channels]``."""
    size: int = Field(224, ge=32, le=1024)
    """Width and height in pixels to which images are resized."""
    fine_tune: bool = False
    """Train the encoder too, except for its batch-normalisation statistics. Otherwise its features
    are computed once and cached on disk."""
    features: int = Field(256, ge=1)
    """Size to which the features of each grid cell are projected."""
    dropout: Fraction = 0.0
    """Dropout rate for the projected features."""


class CaptioningModelConfig(BaseConfig):
    """Image encoder → text decoder."""

    level: TokenLevel = "word"
    """The unit of a token."""
    encoder: ImageEncoderConfig = ImageEncoderConfig()
    decoder: DecoderConfig = DecoderConfig()


class CaptioningConfig(Experiment):
    """Images → captions."""

    output_files: ClassVar[dict[str, str]] = {
        "attention": "draw the attention weights of each word (PNG)"
    }
    request_keys: ClassVar[tuple[str, ...]] = ("decoding.beam_width", "decoding.max_length")
    binary_inputs: ClassVar[tuple[str, ...]] = ("image",)
    input_files: ClassVar[tuple[str, ...]] = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")

    score: ClassVar[Score] = Score("cider_d", higher_is_better=True)
    meanings: ClassVar[dict[str, str]] = {
        "cider_d": "Likeness to the references, rare words counting more, from 0 to 10.",
        "bleu_1": "Share of words that a reference has too, from 0 to 100.",
        "bleu_2": "The same of runs of up to two words.",
        "bleu_3": "The same of runs of up to three words.",
        "bleu_4": "The same of runs of up to four words.",
        "rouge_l": "Longest sequence of words shared with a reference, F-score, from 0 to 1.",
        "novel": "Share of captions that no training image has.",
        "distinct": "Share of captions that are different.",
        "distinct_1": "Share of different words among all words written.",
        "distinct_2": "Share of different pairs of words among all pairs written.",
        "greedy_bleu_4": "BLEU-4 without beam search.",
        "greedy_cider_d": "CIDEr-D without beam search.",
        "cross_entropy": "Mean −log of the probability of each token of the references, in nats.",
        "perplexity": "Its exponential: as uncertain as a choice among so many tokens.",
        "captions": "Test images, with the output and the references.",
        "contact_sheet": "Test images with the model's caption in blue and a reference below.",
        "attention": "Where in the image each word looked.",
    }
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
