"""Write the tables of the documentation from the config classes.

A page keeps its hand-written text; whatever stands between two markers is generated:

    <!-- keys: sentiment -->
    …
    <!-- end of keys -->
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipelines.engine.config.schema import Experiment

_MARKED = re.compile(r"(<!-- keys: (\S+) -->\n).*?(<!-- end of keys -->)", re.DOTALL)
_TYPES = {int: "integer", float: "number", str: "text", bool: "`true`, `false`"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True)
class Key:
    """One key of a config, as a row of a table."""

    name: str
    type: str
    default: str
    meaning: str

    def row(self) -> str:
        return f"| `{self.name}` | {self.type} | {self.default} | {self.meaning} |"


@dataclass(frozen=True)
class Section:
    """A config class under the key that holds it; empty for the config itself."""

    name: str
    summary: str
    keys: list[Key]


def update(page: str, configs: Mapping[str, type[BaseModel]]) -> str:
    """Generate the tables of a page again.

    Args:
        page: Markdown with markers.
        configs: Config classes by the names in the markers. For a pipeline's config, keys that
            are the same in every pipeline are left out.

    Returns:
        The page with current tables.

    Raises:
        KeyError: a marker names no config.
    """
    return _MARKED.sub(lambda m: m[1] + render(configs[m[2]]) + m[3], page)


def render(config: type[BaseModel]) -> str:
    """Return the tables of a config class as Markdown, one per section."""
    found = list(sections(config))
    if not issubclass(config, Experiment):
        return "\n" + _table([key for section in found for key in section.keys])
    known: set[Key] = set()
    if config is not Experiment:
        known = {key for section in sections(Experiment) for key in section.keys}
    parts = ["\n"]
    for section in found:
        keys = [key for key in section.keys if key not in known]
        if keys:
            title = f"### `{section.name}`\n\n{section.summary}\n\n" if section.name else ""
            parts.append(title + _table(keys))
    if config.request_keys:
        names = ", ".join(f"`{name}`" for name in config.request_keys)
        parts.append(f"Each request can override: {names}.\n\n")
    return "".join(parts)


def sections(config: type[BaseModel], name: str = "") -> Iterator[Section]:
    """Yield a config class and the classes of its sections, outermost first."""
    inner: list[tuple[str, type[BaseModel]]] = []
    keys = []
    for field, info in config.model_fields.items():
        if (name, field) == ("", "task"):
            continue  # the command names the task
        dotted = f"{name}.{field}" if name else field
        kinds = [k for k in (info.annotation, *get_args(info.annotation)) if _is_config(k)]
        inner += [(dotted, kind) for kind in kinds]
        if info.annotation not in kinds:
            keys.append(_key(dotted, info, kinds))
    yield Section(name, _markdown(_paragraph(config)), keys)
    for dotted, kind in inner:
        yield from sections(kind, dotted)


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _key(name: str, info: FieldInfo, kinds: list[type[BaseModel]]) -> Key:
    if not info.description:
        raise ValueError(f"{name}: the field has no docstring")
    if info.is_required():
        default = "required"
    else:
        value = info.get_default(call_default_factory=True)
        assert value is not PydanticUndefined
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        default = f"`{text.replace('|', chr(92) + '|')}`"  # or it would end the cell
    shown = "section or `null`" if kinds else _type(info.annotation, info.metadata)
    return Key(name, shown, default, _markdown(info.description))


def _type(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """Describe a type and its bounds, e.g. “integer ≥ 1 or null”."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):  # Annotated[type, metadata, …]
        return _type(arguments[0], (*annotation.__metadata__, *metadata))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        *others, last = (
            "`null`" if member is types.NoneType else _type(member, metadata)
            for member in arguments
        )
        return f"{', '.join(others)} or {last}"
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    return _TYPES[annotation] + _bounds(annotation, metadata)


def _bounds(annotation: Any, metadata: list[Any] | tuple[Any, ...]) -> str:
    if annotation not in (int, float):
        return ""
    # What Annotated holds is a Field, whose metadata are the constraints.
    constraints = [c for item in metadata for c in getattr(item, "metadata", [item])]
    bounds = [
        f"{sign} {getattr(constraint, name):,}"
        for constraint in constraints
        for name, sign in _BOUNDS.items()
        if getattr(constraint, name, None) is not None
    ]
    return f" {' and '.join(bounds)}" if bounds else ""


def _paragraph(config: type[BaseModel]) -> str:
    return (config.__doc__ or "").strip().partition("\n\n")[0]


def _markdown(text: str) -> str:
    """Turn a docstring into one line of Markdown, with links to other pages."""
    text = " ".join(text.split()).replace("``", "`").replace("|", "\\|")
    return re.sub(r"`([\w-]+\.md)(#[\w-]+)?`", r"[\1](\1\2)", text)


def _table(keys: list[Key]) -> str:
    head = "| Key | Type | Default | Meaning |\n|---|---|---|---|\n"
    return head + "".join(f"{key.row()}\n" for key in keys) + "\n"
