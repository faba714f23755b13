"""YAML in, a validated experiment out.

Every error is reported at once, each as ``file:line:column: key: message (did you mean …?)``.
``--set key=value`` overrides any key; its errors carry ``--set key=value`` as their place.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar, get_args

import numpy as np
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pipelines.errors import UserError


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


Share = Annotated[float, Field(ge=0.0, lt=1.0)]
#: Text that YAML may have read as a number or a truth value, as in ``where: {checked: true}``.
Name = Annotated[str, BeforeValidator(lambda v: v if isinstance(v, str) else as_text(v) or v)]
#: One source, or several.
Sources = str | Annotated[list[str], Field(min_length=1)]
Key = tuple[str | int, ...]


def listed(sources: str | list[str]) -> list[str]:
    """One source or several as a list."""
    return [sources] if isinstance(sources, str) else sources


class Section(BaseModel):
    """A block of a config. Unknown keys are refused; values are not coerced between kinds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """Where records come from.

    A source is named in one way everywhere: ``tfds:BUILDER@SPLIT``, ``package:DIST/PATH`` (inside
    an installed package) or the path of a file or a folder: see ``pipelines.data``. Several
    sources are read one after the other.
    """

    source: Sources
    #: A share of ``source`` held out, or sources of its own.
    validation: Share | Sources = 0.1
    test: Share | Sources = 0.1
    #: Keep only the rows whose column has this value.
    where: dict[Name, Name] = {}
    #: Rows that cannot be used are skipped and counted, up to this share of all rows.
    max_bad_rows: Share = 0.01


class TextDataConfig(DataConfig):
    """Where texts come from."""

    #: Where records are between being read and being a batch. What is kept on ``disk`` may
    #: outgrow the memory.
    keep: Literal["memory", "disk"] = "memory"


class TextRowsConfig(TextDataConfig):
    """Texts that are read each on its own, in any order."""

    #: Rows that are kept on disk are shuffled so many at a time, and read from there in pieces.
    shuffle_buffer: int = Field(65_536, ge=1)


#: What documents are divided into: characters, words, or parts of words.
Level = Literal["character", "word", "subword"]


class DocumentTextConfig(Section):
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


class CellConfig(Section):
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
    dropout: Share = 0.0
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
WIDEST, LONGEST = 64, 2_000


class DecodingConfig(Section):
    """How a text is found: the likeliest that a search meets."""

    #: Hypotheses kept side by side; 1 is greedy.
    beam_width: int = Field(5, ge=1, le=WIDEST)
    #: Hypotheses are ranked by log p / length^α: 0 prefers short ones, 1 is the mean log p of a
    #: token.
    length_penalty: float = Field(1.0, ge=0, le=2)
    #: Tokens at least and at most, the end not counted.
    min_length: int = Field(0, ge=0, le=LONGEST)
    max_length: int = Field(200, ge=1, le=LONGEST)

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


class TrainConfig(Section):
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
    label_smoothing: Share = 0.0


class Score(NamedTuple):
    """The test score by which models of a task are told apart."""

    name: str
    higher_is_better: bool


class Experiment(Section):
    """The keys every task has. A task adds its own sections."""

    score: ClassVar[Score]
    #: What is worth comparing: by name, the keys in which it differs from a config.
    variants: ClassVar[dict[str, tuple[str, ...]]] = {}

    #: Files that `predict` can write for this task: option and what it says in the help.
    writes: ClassVar[dict[str, str]] = {}
    #: Keys that `predict` can choose anew; all others are part of what was trained.
    at_request: ClassVar[tuple[str, ...]] = ()
    #: Inputs of the export that are bytes, such as a picture's file, and not text.
    binary: ClassVar[tuple[str, ...]] = ()

    task: str
    name: str = Field("default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(1, ge=0, lt=2**31)
    device: Literal["auto", "cpu", "gpu"] = "auto"
    data: DataConfig
    train: TrainConfig = TrainConfig()


E = TypeVar("E", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """The plain scalars of YAML 1.2: ``1e-3`` is a number; ``no`` and ``2020-01-31`` are text.

    A key is always the text it is written as, so that ``{0: negative}`` needs no quotes.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what ``_Loader`` would not read back as the same text."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # Between double quotes, characters that YAML takes for the end of a line are escaped.
        style = '"' if text.splitlines() not in ([], [text]) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)

_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(0|[1-9][0-9_]*)", list("-+0123456789")),
    "float": (
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),
}
for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {}
    for _tag, (_pattern, _first) in _SCALARS.items():
        _kind.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first
        )


class _Places:
    """Where each key of the merged config was written."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.of: dict[Key, str] = {}

    def read(self, node: yaml.Node, key: Key = ()) -> None:
        self.of.setdefault(key, self._at(node))
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for name_node, value in node.value:
                name = str(name_node.value)
                if name in seen:
                    raise UserError(f"{self._at(name_node)}: {name}: this key stands here twice")
                seen.add(name)
                self.of[(*key, name)] = self._at(name_node)
                self.read(value, (*key, name))
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                self.read(value, (*key, i))

    def _at(self, node: yaml.Node) -> str:
        return f"{self.file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def find(self, key: Key) -> str:
        while key and key not in self.of:
            key = key[:-1]
        return self.of.get(key, self.file)


def find(task: str, file: str | None) -> Path:
    """The config file asked for, or the default one of the task."""
    return found(Path("configs") / task / "default.yaml", file)


def found(usual: Path, file: str | None) -> Path:
    """The config file asked for, or the ``usual`` one: here, else beside this package."""
    if file is not None:
        return Path(file)
    return usual if usual.exists() else Path(__file__).parents[1] / usual


def load(file: Path, model: type[E], overrides: Sequence[str] = ()) -> E:
    """Read ``file``, apply ``overrides`` (``key.sub=value``) and validate as ``model``.

    Raises:
        UserError: one line for each mistake in the file and in the overrides.
    """
    data, places = _read(file)
    for text in overrides:
        _override(data, places, text)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        wrong: dict[Key, list[Any]] = {}
        for one in error.errors():
            wrong.setdefault(_key(one["loc"], places), []).append(one)
        # Of a union, the branch that got further is the kind that the value has.
        begun = {key[:i] for key in wrong for i in range(len(key))}
        lines = [
            _explain(key, tried, model, places) for key, tried in wrong.items() if key not in begun
        ]
        raise UserError("\n".join(lines)) from None


def dump(config: Experiment) -> str:
    """The resolved config as YAML; ``load`` gives back the same config."""
    values = config.model_dump(mode="json")
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def flat(config: Experiment) -> dict[str, str]:
    """The resolved config as ``a.b`` → value, for a table of parameters."""
    out: dict[str, str] = {}

    def walk(value: Any, prefix: str) -> None:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                walk(inner, f"{prefix}.{name}" if prefix else str(name))
        else:
            out[prefix] = "null" if value is None else str(value)

    walk(config.model_dump(mode="json"), "")
    return out


def _read(file: Path) -> tuple[dict[str, Any], _Places]:
    places = _Places(str(file))
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{file}: no such config file{_like_files(file)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            raise UserError(f"{file}: the config is empty")
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"{file}: a config is a mapping of keys to values")
        places.read(node)
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
        raise UserError(f"{at}: not YAML: {getattr(error, 'problem', None) or error}") from None
    return data, places


def _like_files(file: Path) -> str:
    near = sorted(str(p) for p in file.parent.glob("*.yaml")) if file.parent.is_dir() else []
    return f"; there are: {', '.join(near)}" if near else ""


def _override(data: dict[str, Any], places: _Places, text: str) -> None:
    name, equals, value = text.partition("=")
    key = tuple(name.split("."))
    if not equals or not all(key):
        raise UserError(f"--set {text}: write it as key=value, e.g. train.epochs=3")
    try:
        parsed = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        parsed = value
    target: Any = data
    replaced = key
    for i, part in enumerate(key[:-1], 1):
        inner = target.get(part)
        if not isinstance(inner, dict):
            inner = target[part] = {}
            replaced = min(replaced, key[:i], key=len)
        target = inner
    target[key[-1]] = parsed
    for known in [k for k in places.of if k[: len(replaced)] == replaced]:
        del places.of[known]
    for i in range(len(replaced), len(key) + 1):
        places.of[key[:i]] = f"--set {text}"


_MESSAGES = {
    "missing": "this key is required",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping of keys",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have {min_length} entries or more",
}
#: What pydantic calls the branches of a union.
_BRANCHES = {
    "int", "float", "str", "bool", "none", "constrained-float", "constrained-int", "list[str]",
}  # fmt: skip


def _explain(key: Key, tried: list[Any], model: type[BaseModel], places: _Places) -> str:
    """One line for what is wrong with one key.

    Args:
        tried: its errors; several where it may be of several kinds and fits none of them.
    """
    at, name = places.find(key), ".".join(map(str, key))
    # The kind that the value has says what is wrong with it; the other kinds are beside the point.
    tried = [e for e in tried if not e["type"].endswith("_type")] or tried
    kind = tried[0]["type"]
    if kind == "extra_forbidden":
        fields = _fields(model, key[:-1])
        near = difflib.get_close_matches(str(key[-1]), fields, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(fields)}"
        return f"{at}: {name}: unknown key ({hint})"
    *others, last = [_message(e) for e in tried]
    message = f"{', '.join(others)} or {last}" if others else last
    message = re.sub(r"(, | or )must be ", r"\1", message)
    if kind == "literal_error":
        near = difflib.get_close_matches(
            str(tried[0]["input"]),
            re.findall(r"'([^']+)'", tried[0]["ctx"]["expected"]),
            n=1,
            cutoff=0.5,
        )
        message += f" (did you mean {near[0]}?)" if near else ""
    found = "" if kind in {"missing", "model_type"} else f", not {_shown(tried[0]['input'])}"
    return f"{at}: {name}: {message}{found}" if name else f"{at}: {message}{found}"


def _message(error: Any) -> str:
    message = _MESSAGES.get(error["type"])
    if message is not None:
        return message.format(**error.get("ctx", {}))
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _key(location: tuple[str | int, ...], places: _Places) -> Key:
    """pydantic puts the tried branch of ``float | str`` into the location; it is no key."""
    key: Key = ()
    for part in location:
        if (*key, part) in places.of or part not in _BRANCHES:
            key = (*key, part)
    return key


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _fields(model: type[BaseModel], key: Key) -> list[str]:
    for part in key:
        if str(part) not in model.model_fields:
            continue  # a name in a mapping of sections
        annotation = model.model_fields[str(part)].annotation
        options = [annotation, *get_args(annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return sorted(model.model_fields)
