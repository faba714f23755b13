"""YAML 1.2 as plain Python values, with the location of each key.

Plain scalars follow the core schema of YAML 1.2, restricted to decimal numbers: ``1e-3`` is a
number, while ``no``, ``2020-01-31`` and ``010`` are text. A key is always text, spelled as in the
file, so that ``{0: negative}`` needs no quotes.
"""

from __future__ import annotations

import io
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.tag import Tag

from pipelines.engine.core.errors import UserError

#: The keys that lead to a value, from the outermost on; the entries of a list by number.
KeyPath = tuple[str | int, ...]

_PREFIX = "tag:yaml.org,2002:"
_PLAIN = {
    "null": r"(~|null|Null|NULL)?",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9_]*)",
    "float": r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "merge": r"<<",
}


class _Resolver(VersionedResolver):
    """Give plain scalars their type; reading and writing share it, so that text stays text."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is ScalarNode and implicit[0]:
            matching = (name for name, pattern in _PLAIN.items() if re.fullmatch(pattern, value))
            return Tag(suffix=_PREFIX + next(matching, "str"))
        return super().resolve(kind, value, implicit)


class _Representer(SafeRepresenter):
    """Escape every character that some reader takes for the end of a line."""

    def represent_str(self, text: str) -> ScalarNode:
        style = '"' if text.splitlines() not in ([], [text]) else None
        return self.represent_scalar(f"{_PREFIX}str", text, style=style)


_Representer.add_representer(str, _Representer.represent_str)


class Locations:
    """Where the value of each key was written: ``file:line:column``, or an override."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._of: dict[KeyPath, str] = {}

    def __contains__(self, key: KeyPath) -> bool:
        return key in self._of

    def __setitem__(self, key: KeyPath, location: str) -> None:
        self._of[key] = location

    def discard(self, key: KeyPath) -> None:
        """Forget ``key`` and everything below it."""
        self._of = {k: v for k, v in self._of.items() if k[: len(key)] != key}

    def find(self, key: KeyPath) -> str:
        """Return the location of ``key``, or of the nearest mapping or list that holds it."""
        while key and key not in self._of:
            key = key[:-1]
        return self._of.get(key, self.source)


def parse(text: str, source: str) -> tuple[Any, Locations]:
    """Parse one YAML document.

    Args:
        text: the document.
        source: the name of its file, for messages.

    Returns:
        Its value (None for an empty document) and the location of each key.

    Raises:
        UserError: the text is not YAML, or holds a duplicate key, an unknown tag or an alias
            inside the value that it stands for.
    """
    locations = Locations(source)
    try:
        node = _yaml().compose(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = _location(source, mark) if mark else source
        raise UserError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from None
    return (None if node is None else _Reader(locations).read(node, ())), locations


def dump(value: Any) -> str:
    """Write plain values as YAML that `parse` reads back unchanged."""
    stream = io.StringIO()
    _yaml().dump(value, stream)
    return stream.getvalue()


class _Reader:
    """Turns nodes into plain values and records their locations."""

    def __init__(self, locations: Locations) -> None:
        self._locations = locations
        self._parents: list[Node] = []

    def read(self, node: Node, key: KeyPath) -> Any:
        """Return the value of ``node``, which is that of ``key``."""
        if key not in self._locations:
            self._locations[key] = self._at(node)
        if node in self._parents:
            raise UserError(f"{self._at(node)}: not YAML: an alias inside its own value")
        self._parents.append(node)
        try:
            kind = str(node.tag).removeprefix(_PREFIX)
            if isinstance(node, ScalarNode):
                return self._scalar(node, kind)
            if isinstance(node, SequenceNode) and kind == "seq":
                return [self.read(inner, (*key, i)) for i, inner in enumerate(node.value)]
            if isinstance(node, MappingNode) and kind == "map":
                return self._mapping(node, key)
        finally:
            self._parents.pop()
        raise UserError(f"{self._at(node)}: not YAML: unknown tag {node.tag}")

    def _scalar(self, node: ScalarNode, kind: str) -> Any:
        text = node.value
        try:
            match kind:
                case "null":
                    return None
                case "bool":
                    return {"true": True, "false": False}[text.lower()]
                case "int":
                    return int(text.replace("_", ""))
                case "float":
                    return float(re.sub(r"\.(?=[in])", "", text.replace("_", "").lower()))
                case "str" | "merge":
                    return text
        except (KeyError, ValueError):
            raise UserError(f"{self._at(node)}: not YAML: {text!r} is no {kind}") from None
        raise UserError(f"{self._at(node)}: not YAML: unknown tag {node.tag}")

    def _mapping(self, node: MappingNode, key: KeyPath) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, ScalarNode] = {}
        entries: list[tuple[ScalarNode, Node]] = []
        for name, value in node.value:
            if not isinstance(name, ScalarNode):
                raise UserError(f"{self._at(name)}: not YAML: a key must be text")
            if str(name.tag) == f"{_PREFIX}merge":
                merged = self._merge(value, key) | merged
            elif name.value in own:
                first = own[name.value].start_mark.line + 1
                dotted = ".".join(map(str, (*key, name.value)))
                raise UserError(
                    f"{self._at(name)}: {dotted}: duplicate key (first on line {first})"
                )
            else:
                own[name.value] = name
                entries.append((name, value))
        result = merged
        for name, value in entries:
            self._locations[(*key, name.value)] = self._at(name)
            result[name.value] = self.read(value, (*key, name.value))
        return result

    def _merge(self, node: Node, key: KeyPath) -> dict[str, Any]:
        """Return the entries that ``<<`` adds; of several mappings, earlier ones win."""
        result: dict[str, Any] = {}
        for inner in node.value if isinstance(node, SequenceNode) else [node]:
            if not isinstance(inner, MappingNode):
                raise UserError(f"{self._at(inner)}: not YAML: << merges mappings only")
            result = self.read(inner, key) | result
        return result

    def _at(self, node: Node) -> str:
        return _location(self._locations.source, node.start_mark)


def _location(source: str, mark: Any) -> str:
    return f"{source}:{mark.line + 1}:{mark.column + 1}"


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver, yaml.Representer = _Resolver, _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    return yaml
