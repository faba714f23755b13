"""Config sections shared by the pipelines, as pydantic models."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)


def as_text(value: Any) -> str | None:
    """A label or a mark as text; None for what is neither text, a number nor a truth value.

    JSON has numbers and booleans too: true is ``true``, and 1.0 is no other class than 1.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int | float) else None


Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


#: Text that YAML may have read as a number or a truth value, as in ``where: {checked: true}``.
CoercedStr = Annotated[str, BeforeValidator(lambda v: v if isinstance(v, str) else as_text(v) or v)]


#: One source, or several.
Sources = str | Annotated[list[str], Field(min_length=1)]


def as_list(sources: str | list[str]) -> list[str]:
    """One source or several as a list."""
    return [sources] if isinstance(sources, str) else sources


class BaseConfig(BaseModel):
    """A block of a config. Unknown keys are refused; values are not coerced between kinds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(BaseConfig):
    """Where records come from.

    A source is named in one way everywhere: ``tfds:BUILDER@SPLIT``, ``package:DIST/PATH`` (inside
    an installed package) or the path of a file or a folder: see ``docs/data.md``. Several
    sources are read one after the other.
    """

    source: Sources
    #: A share of ``source`` held out, or sources of its own.
    validation: Fraction | Sources = 0.1
    test: Fraction | Sources = 0.1
    #: Keep only the rows whose column has this value.
    where: dict[CoercedStr, CoercedStr] = {}
    #: Rows that cannot be used are skipped and counted, up to this share of all rows.
    max_bad_rows: Fraction = 0.01


class TextDataConfig(DataConfig):
    """Where texts come from."""

    #: Where records are between being read and being a batch. What is kept on ``disk`` may
    #: outgrow the memory.
    keep: Literal["memory", "disk"] = "memory"


class TextRowsDataConfig(TextDataConfig):
    """Texts that are read each on its own, in any order."""

    #: Rows that are kept on disk are shuffled so many at a time, and read from there in pieces.
    shuffle_buffer: int = Field(65_536, ge=1)


#: What documents are divided into: characters, words, or parts of words.
TokenLevel = Literal["character", "word", "subword"]


class TokenizerConfig(BaseConfig):
    """How documents become ids."""

    lowercase: bool = False
    #: Ids in all, those for padding, unknown, the end of a document and bytes included.
    vocabulary: int = Field(10_000, ge=4)
    #: Characters or words seen less often in the training split are unknown; at level subword
    #: such characters are bytes, and no piece is learned from what is seen less often.
    min_count: int = Field(1, ge=1)
    #: Punctuation marks are words of their own; else only white space divides. A sub-word lies in
    #: one word; characters are not concerned.
    punctuation: bool = True


class CellConfig(BaseConfig):
    """One or more layers of one cell."""

    #: ``feedforward`` has the same input weights and no memory: h_t = tanh(U x_t + b).
    cell: Literal["rnn", "lstm", "gru", "feedforward"] = "lstm"
    #: Units of each layer, the first one nearest the input.
    units: list[Annotated[int, Field(ge=1)]] = Field([64], min_length=1)


class RecurrentConfig(CellConfig):
    """Layers that read a whole sequence."""

    bidirectional: bool = False
    #: Gradients flow back at most this many steps; null is full backpropagation through time.
    truncate: int | None = Field(None, ge=1)
    #: The hidden state before the first step.
    initial: Literal["zeros", "random", "learned"] = "zeros"


class DecoderConfig(CellConfig):
    """Layers that write a text about something that was read or seen before."""

    #: Size of a token's vector, and of what V reads.
    embedding: int = Field(256, ge=1)
    #: Look back at each step of what was read, or only start from its last state.
    attention: Literal["additive", "none"] = "additive"
    #: Probability that a feature is zeroed: of the embedding, between layers, and before V.
    dropout: Fraction = 0.0
    #: V is the embedding's own matrix (Press & Wolf 2017).
    tied: bool = True

    @model_validator(mode="after")
    def _knows_of_it(self) -> Self:
        if self.cell == "feedforward" and self.attention == "none":
            raise ValueError(
                "cell: feedforward takes no state over, and attention: none looks at nothing; "
                "one of the two must differ"
            )
        return self


#: The widest beam that a server searches for one request, and the longest text it writes.
MAX_BEAM_WIDTH, MAX_LENGTH = 64, 2_000


class DecodingConfig(BaseConfig):
    """How a text is found: the likeliest that a search meets."""

    #: Hypotheses kept side by side; 1 is greedy.
    beam_width: int = Field(5, ge=1, le=MAX_BEAM_WIDTH)
    #: Hypotheses are ranked by log p / length^α: 0 prefers short ones, 1 is the mean log p of a
    #: token.
    length_penalty: float = Field(1.0, ge=0, le=2)
    #: Tokens at least and at most, the end not counted.
    min_length: int = Field(0, ge=0, le=MAX_LENGTH)
    max_length: int = Field(200, ge=1, le=MAX_LENGTH)

    @model_validator(mode="after")
    def _lengths_rise(self) -> Self:
        if self.min_length > self.max_length:
            raise ValueError(
                f"min_length ({self.min_length}) is above max_length ({self.max_length})"
            )
        return self


_MANY_HOSTS = "; several hosts train with: jax"


#: Strategies of TensorFlow that one might ask for, and why they are not had.
_REFUSED = {
    "multiworkermirrored": "under MultiWorkerMirroredStrategy the fit of Keras 3 does not train "
    f"one model (keras issue 20585){_MANY_HOSTS}",
    "parameterserver": f"Keras 3 does not train under ParameterServerStrategy{_MANY_HOSTS}",
    "centralstorage": "Keras 3 does not train under CentralStorageStrategy; the GPUs of one host "
    "train with: mirrored",
}


class TrainConfig(BaseConfig):
    """How any model is trained."""

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=1)
    optimizer: Literal["sgd", "momentum", "rmsprop", "adam", "adamw"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    #: Factor on the learning rate over the run: constant, or falling to a twentieth.
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    #: Largest global norm of the gradient; null leaves it as it is.
    clip_norm: float | None = Field(1.0, gt=0)
    #: Epochs without a better validation score before training stops; null never stops early.
    patience: int | None = Field(3, ge=1)
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    #: Epochs from one look at the gradients, weights and gates of the cells to the next; 0: none.
    health: int = Field(1, ge=0)
    #: Divide each batch among the GPUs of this host (TensorFlow), or among processes (JAX).
    distribute: Literal["none", "mirrored", "jax"] = "none"

    @field_validator("distribute", mode="before")
    @classmethod
    def _works(cls, value: Any) -> Any:
        asked = re.sub("[^a-z]|strategy", "", str(value).lower())
        if reason := _REFUSED.get(asked):
            raise ValueError(reason)
        return value


class BucketTrainConfig(TrainConfig):
    """Training on sequences of unequal length, each of them whole."""

    #: If given, wins over ``batch_size``: as many rows as fit into so many steps with padding.
    batch_tokens: int | None = Field(None, ge=1)
    #: Length buckets: batches hold sequences of like length, so that little is padding.
    buckets: int = Field(12, ge=1)


class TeacherForcedTrainConfig(BucketTrainConfig):
    """Training by teacher forcing: the decoder reads the true text, and writes its next token."""

    #: This share of the probability is asked for evenly over all tokens (Szegedy et al. 2016).
    label_smoothing: Fraction = 0.0


class Score(NamedTuple):
    """The test score by which models of a task are told apart."""

    name: str
    higher_is_better: bool


class Experiment(BaseConfig):
    """The keys every task has. A task adds its own sections."""

    score: ClassVar[Score]
    #: What is worth comparing: by name, the keys in which it differs from a config.
    variants: ClassVar[dict[str, tuple[str, ...]]] = {}

    #: Files that `predict` can write for this task: option and what it says in the help.
    output_files: ClassVar[dict[str, str]] = {}
    #: Keys that `predict` can choose anew; all others are part of what was trained.
    request_keys: ClassVar[tuple[str, ...]] = ()
    #: Inputs of the export that are bytes, such as a picture's file, and not text.
    binary_inputs: ClassVar[tuple[str, ...]] = ()

    task: str
    name: str = Field("default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(1, ge=0, lt=2**31)
    device: Literal["auto", "cpu", "gpu"] = "auto"
    data: DataConfig
    train: TrainConfig = TrainConfig()
