"""Config classes shared by the pipelines.

Each class is a section of a YAML file and each field a key. The docstring under a field describes
its key; ``docs/configuration.md`` is generated from these docstrings (``make reference``).
"""

from __future__ import annotations

import codecs
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipelines.engine.config.folds import Fold


def as_text(value: Any) -> str | None:
    """Return a label or a column name as text, or None if it is not a finite scalar.

    YAML and JSON have numbers and booleans too: True becomes ``"true"``, and 1.0 the same class
    as 1.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        if value.is_integer():
            value = int(value)
    return str(value).strip() if isinstance(value, str | int | float) else None


#: A fraction of a whole: 0 ≤ x < 1.
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
#: Text that YAML may have parsed as a number or a boolean, as in ``where: {checked: true}``.
CoercedStr = Annotated[str, BeforeValidator(lambda v: v if isinstance(v, str) else as_text(v) or v)]
#: One source, or several.
Sources = str | Annotated[list[str], Field(min_length=1)]


def as_list(value: str | list[str]) -> list[str]:
    """Return one name or several as a list."""
    return [value] if isinstance(value, str) else value


class BaseConfig(BaseModel):
    """A section of a config.

    Unknown keys are errors; values are not converted between types.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class FormatConfig(BaseConfig):
    """How ``.csv`` and ``.tsv`` files are written. ``auto`` is detected in each file's first
    64 KiB."""

    delimiter: str = "auto"
    """The character between two fields, or ``tab``. ``auto`` is a comma in ``.csv`` and a tab in
    ``.tsv`` files; if the header then lacks a column, a comma, semicolon, tab or bar is tried."""
    quote: str | None = "auto"
    """The character around fields that contain delimiters or line ends. With ``auto``, it is ``"``,
    and quotation marks that cannot be quotes are text. With ``null``, all of them are text."""
    encoding: str = "auto"
    """The encoding. ``auto`` is UTF-8, or UTF-16 or UTF-32 if a byte order mark says so."""
    header: bool | Literal["auto"] = "auto"
    """Whether the first line has the names of the columns. Otherwise they are numbered from 1.
    ``auto`` is ``false`` if all columns of the config are numbers."""
    decimal: Literal["auto", ".", ","] = "auto"
    """The decimal separator of numbers."""
    thousands: Literal["auto", ".", ",", " ", "'"] | None = "auto"
    """The character between groups of three digits; ``null`` if there is none."""

    @field_validator("delimiter", "quote")
    @classmethod
    def _is_one_character(cls, value: str | None) -> str | None:
        if value in ("tab", "\\t"):
            return "\t"
        if value is not None and value != "auto" and (len(value) != 1 or value in "\r\n"):
            raise ValueError("must be one character, or auto")
        return value

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, value: str) -> str:
        try:
            if value != "auto":
                "".encode(value)
                codecs.lookup(value)
        except (LookupError, ValueError):
            raise ValueError(
                f"no such encoding: {value!r}; examples: utf-8, utf-16, cp1252, latin-1"
            ) from None
        return value

    @model_validator(mode="after")
    def _characters_differ(self) -> Self:
        for one, other in (("delimiter", "quote"), ("decimal", "thousands")):
            value = getattr(self, one)
            if value != "auto" and value == getattr(self, other):
                raise ValueError(f"{one} and {other} are both {value!r}; change one of the two")
        return self


class DataConfig(BaseConfig):
    """Where the examples come from. See ``data.md``."""

    source: Sources
    """A file, a folder, a pattern, ``tfds:BUILDER@SPLIT`` or ``package:DIST/PATH``; or a list of
    sources, read one after the other."""
    validation: Fraction | Sources = 0.1
    """The validation split: a fraction of ``source``, or separate sources."""
    test: Fraction | Sources = 0.1
    """The test split: a fraction of ``source``, or separate sources."""
    fold: str | None = None
    """Cross-validation: ``2/5`` divides ``source`` into five parts and tests on the second one,
    instead of on the fraction ``test``. ``compare --folds 5`` trains once for each of them."""
    where: dict[CoercedStr, CoercedStr] = {}
    """Keep only the rows whose columns have these values, e.g. ``{language: en}``."""
    max_bad_rows: Fraction = 0.01
    """The largest fraction of unusable rows. They are skipped and counted; more are an error."""
    format: FormatConfig = FormatConfig()

    #: The keys that name the columns that every row needs.
    column_keys: ClassVar[tuple[str, ...]] = ()

    @field_validator("fold")
    @classmethod
    def _is_a_fold(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            Fold.parse(value)
            if problem := cls.fold_problem(info.data):
                raise ValueError(f"must be null, because {problem}")
        return value

    @classmethod
    def fold_problem(cls, keys: Mapping[str, Any]) -> str | None:
        """Return why data with these keys cannot be divided into folds, or None if it can."""
        for name in ("test", "validation"):
            if isinstance(keys.get(name), str | list):
                return f"data.{name} is a source of its own and no fraction of data.source"
        return None

    def tested_on(self, source: str | list[str]) -> dict[str, Any]:
        """Return the keys that make ``source`` the test split."""
        return {"test": source}

    def sources(self) -> list[str]:
        """Return all sources: those of the source, and those of separate splits."""
        splits = [self.source, self.validation, self.test]
        return [name for split in splits if not isinstance(split, float) for name in as_list(split)]


class TextDataConfig(DataConfig):
    """Where the texts come from. See ``data.md``."""

    keep: Literal["memory", "disk"] = "memory"
    """Where to keep the examples during training; on ``disk`` they may exceed the memory."""


class TextRowsDataConfig(TextDataConfig):
    """Where independent texts, in any order, come from. See ``data.md``."""

    shuffle_buffer: int = Field(65_536, ge=1)
    """Rows to shuffle at a time with ``keep: disk``."""


#: The unit of a token.
TokenLevel = Literal["character", "word", "subword"]


class TokenizerConfig(BaseConfig):
    """How texts become token ids."""

    lowercase: bool = False
    """Convert the text to lower case."""
    vocabulary: int = Field(10_000, ge=4)
    """Vocabulary size, including the ids for padding, unknown and end of text and, at the
    ``subword`` level, the 256 bytes."""
    min_count: int = Field(1, ge=1)
    """Smallest count in the training split. Rarer words and characters become unknown; at the
    ``subword`` level, rarer characters become bytes and rarer sub-words are not learned."""
    punctuation: bool = True
    """Split punctuation marks off as separate words; otherwise split at white space only. Has no
    effect at the ``character`` level."""


class CellConfig(BaseConfig):
    """A stack of layers with one kind of cell."""

    cell: Literal["rnn", "lstm", "gru", "feedforward"] = "lstm"
    """The cell. ``feedforward`` has the same input weights and no memory: h_t = tanh(U x_t + b)."""
    units: list[Annotated[int, Field(ge=1)]] = Field([64], min_length=1)
    """Units of each layer, starting with the layer next to the input."""


class RecurrentConfig(CellConfig):
    """Layers that read a whole sequence."""

    bidirectional: bool = False
    """Read the sequence in both directions."""
    truncate: int | None = Field(None, ge=1)
    """Truncated backpropagation through time: the number of steps that gradients flow back;
    ``null`` is all of them."""
    initial: Literal["zeros", "random", "learned"] = "zeros"
    """The hidden state before the first step."""


_MANY_HOSTS = "; to train on several hosts use: jax"


#: TensorFlow's other strategies, and why they are not available.
_UNSUPPORTED_STRATEGIES = {
    "multiworkermirrored": "under MultiWorkerMirroredStrategy the fit of Keras 3 does not train "
    f"one model (keras issue 20585){_MANY_HOSTS}",
    "parameterserver": f"Keras 3 does not train under ParameterServerStrategy{_MANY_HOSTS}",
    "centralstorage": "Keras 3 does not train under CentralStorageStrategy; for the GPUs of one "
    "host use: mirrored",
}


class TrainConfig(BaseConfig):
    """How the model is trained."""

    epochs: int = Field(10, ge=1)
    """Largest number of epochs; see ``patience``."""
    batch_size: int = Field(64, ge=1)
    """Examples in a batch."""
    optimizer: Literal["sgd", "momentum", "rmsprop", "adam", "adamw"] = "adam"
    """The optimizer; ``sgd`` is the chapter's update rule."""
    learning_rate: float = Field(1e-3, gt=0)
    """Learning rate after warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Learning rate over the run: constant, or decaying to a twentieth."""
    warmup_steps: int = Field(0, ge=0)
    """Steps in which the learning rate rises linearly from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay, relative to the learning rate."""
    clip_norm: float | None = Field(1.0, gt=0)
    """Largest global norm of the gradient; ``null`` turns clipping off."""
    patience: int | None = Field(3, ge=1)
    """Epochs without a better validation score before training stops; ``null`` never stops
    early."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """Keras's dtype policy."""
    health: int = Field(1, ge=0)
    """Epochs between two checks of the cells' gradients, weights and gates
    (``chapter.md#training-diagnostics``); 0 turns them off."""
    distribute: Literal["none", "mirrored", "jax"] = "none"
    """Divide each batch: ``mirrored`` among the GPUs of this host (TensorFlow), ``jax`` among
    processes on one or several hosts (``distributed.md``)."""

    @field_validator("distribute", mode="before")
    @classmethod
    def _strategy_is_supported(cls, value: Any) -> Any:
        name = re.sub("[^a-z]|strategy", "", str(value).lower())
        if reason := _UNSUPPORTED_STRATEGIES.get(name):
            raise ValueError(reason)
        return value


class BucketTrainConfig(TrainConfig):
    """How the model is trained on whole sequences of unequal length."""

    batch_tokens: int | None = Field(None, ge=1)
    """Steps in a batch, padding included: short sequences then come in larger batches. Overrides
    ``batch_size``."""
    buckets: int = Field(12, ge=1)
    """Number of length buckets. A batch holds sequences of similar length, so more buckets mean
    less padding."""


#: The name of a model, which is also that of a folder and a part of URLs.
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


class Score(NamedTuple):
    """The test metric by which the models of a task are compared."""

    name: str
    higher_is_better: bool


class Experiment(BaseConfig):
    """The keys of every pipeline; each pipeline adds sections."""

    score: ClassVar[Score]
    #: What ``compare`` trains: overrides by the name of the variant.
    variants: ClassVar[dict[str, tuple[str, ...]]] = {}
    #: Files that ``predict`` can write: help text by the name of the option.
    output_files: ClassVar[dict[str, str]] = {}
    #: Keys that each request can override; the others are fixed by training.
    request_keys: ClassVar[tuple[str, ...]] = ()
    #: Inputs of the export that are bytes, such as an image file, rather than text.
    binary_inputs: ClassVar[tuple[str, ...]] = ()
    #: Endings of files that are inputs themselves: ``predict --file`` takes a folder of them.
    input_files: ClassVar[tuple[str, ...]] = ()
    #: What the scores, tables and figures of an evaluation mean, by name. A run's report describes
    #: them so, and shows tables and figures in this order, before those that are not named here.
    meanings: ClassVar[dict[str, str]] = {}

    task: str
    """The pipeline."""
    name: str = Field("default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """A part of the run's id: letters, digits, ``.``, ``_`` and ``-``."""
    registered_model: str | None = Field(None, pattern=MODEL_NAME)
    """The name of the model that the run is a version of: letters, digits, ``_`` and ``-``; by
    default that of the pipeline. Each name has a champion and exports of its own
    (``comparing.md#several-models-of-one-task``)."""
    seed: int = Field(1, ge=0, lt=2**31)
    """Seed of the splits, initial weights, shuffling and dropout."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """The device to train on; ``gpu`` is an error if there is none."""
    data: DataConfig
    train: TrainConfig = TrainConfig()

    @classmethod
    def load(cls, file: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Self:
        """Load a YAML file.

        ``Experiment.load`` returns the config of the pipeline that the file's key ``task`` names.

        Args:
            file: The file.
            overrides: ``key.subkey=value`` each; of several for one key, the last wins.

        Raises:
            UserError: One line for each error in the file and in the overrides.
        """
        from pipelines.engine.config import catalog, loader  # they need this module

        if cls is Experiment:
            return catalog.load_experiment(Path(file), overrides)  # type: ignore[return-value]
        return loader.load(Path(file), cls, overrides)

    @property
    def input_columns(self) -> list[str]:
        """The columns of a file of inputs: by default that of the first of ``data.column_keys``."""
        return [getattr(self.data, key) for key in self.data.column_keys[:1]]

    @property
    def model_name(self) -> str:
        """The name of the model: ``registered_model``, or that of the pipeline."""
        return self.registered_model or self.task
