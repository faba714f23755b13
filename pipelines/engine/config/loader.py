"""YAML in, a validated experiment out.

Every error is reported at once, each as ``file:line:column: key: message (did you mean …?)``.
``--set key=value`` overrides any key; its errors carry ``--set key=value`` as their place.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)

from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.errors import UserError

Key = tuple[str | int, ...]


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


def find_config(task: str, file: str | None) -> Path:
    """The config file asked for, or the default one of the task."""
    return find_file(Path("configs") / task / "default.yaml", file)


def find_file(usual: Path, file: str | None) -> Path:
    """The config file asked for, or the ``usual`` one: here, else beside this package."""
    if file is not None:
        return Path(file)
    return usual if usual.exists() else Path(__file__).parents[3] / usual


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


def flatten(config: Experiment) -> dict[str, str]:
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
