"""Turn pydantic's validation errors into one line per key.

Each line reads ``file:line:column: key: message (did you mean …?)``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipelines.engine.config.yaml12 import KeyPath, Locations

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
#: pydantic's names for the members of a union, which it adds to an error's location.
_UNION_MEMBERS = {
    "int", "float", "str", "bool", "none", "constrained-float", "constrained-int", "list[str]",
}  # fmt: skip


def explain(error: ValidationError, model: type[BaseModel], locations: Locations) -> str:
    """Describe all errors, one line per key.

    Args:
        error: what validating the config as ``model`` raised.
        model: the config class, for the names of the allowed keys.
        locations: where each key was written.
    """
    by_key: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors():
        by_key.setdefault(_key(details["loc"], locations), []).append(details)
    # In a union, an error deeper inside the value shows which member was meant: with
    # `source: [1]`, "source.0 must be text" makes "source must be text" superfluous.
    parents = {key[:i] for key in by_key for i in range(len(key))}
    return "\n".join(
        _line(key, errors, model, locations) for key, errors in by_key.items() if key not in parents
    )


def _line(
    key: KeyPath, errors: list[ErrorDetails], model: type[BaseModel], locations: Locations
) -> str:
    """Describe the errors of one key; a union gives one for each of its members."""
    location, name = locations.find(key), ".".join(map(str, key))
    # If the value has the type of one member, only that member's error helps.
    errors = [e for e in errors if not e["type"].endswith("_type")] or errors
    first = errors[0]
    if first["type"] == "extra_forbidden":
        return f"{location}: {name}: unknown key ({_suggest_key(key, model)})"
    *others, last = map(_message, errors)
    message = f"{', '.join(others)} or {last}" if others else last
    message = re.sub(r"(, | or )must be ", r"\1", message)
    if first["type"] == "literal_error":
        allowed = re.findall(r"'([^']+)'", first["ctx"]["expected"])
        message += _did_you_mean(str(first["input"]), allowed, " ({})")
    if first["type"] not in {"missing", "model_type"}:
        message += f", not {_shorten(repr(first['input']))}"
    return f"{location}: {name}: {message}" if name else f"{location}: {message}"


def _message(error: ErrorDetails) -> str:
    message = _MESSAGES.get(error["type"])
    if message is not None:
        return message.format(**error.get("ctx", {}))
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _key(location: Sequence[str | int], locations: Locations) -> KeyPath:
    """Return pydantic's location of an error without the names of union members."""
    key: KeyPath = ()
    for part in location:
        if (*key, part) in locations or not _is_union_member(part):
            key = (*key, part)
    return key


def _is_union_member(part: str | int) -> bool:
    return part in _UNION_MEMBERS or str(part).startswith(("dict[", "literal["))


def _suggest_key(key: KeyPath, model: type[BaseModel]) -> str:
    allowed = _fields(model, key[:-1])
    return _did_you_mean(str(key[-1]), allowed) or f"allowed: {', '.join(allowed)}"


def _did_you_mean(written: str, allowed: Sequence[str], template: str = "{}") -> str:
    near = difflib.get_close_matches(written, allowed, n=1, cutoff=0.5)
    return template.format(f"did you mean {near[0]}?") if near else ""


def _fields(model: type[BaseModel], key: KeyPath) -> list[str]:
    """Return the names of the keys allowed below ``key``."""
    for part in key:
        if str(part) not in model.model_fields:
            continue  # a name in a mapping from names to sections
        annotation = model.model_fields[str(part)].annotation
        options = [annotation, *get_args(annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return sorted(model.model_fields)


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
