"""Load a YAML file as a validated config.

All errors are reported together, each as ``file:line:column: key: message (did you mean …?)``.
``--set key=value`` overrides any key; the location in its errors is ``--set key=value``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipelines.engine.config import yaml12
from pipelines.engine.config.schema import Experiment
from pipelines.engine.config.validation import explain
from pipelines.engine.config.yaml12 import Locations
from pipelines.engine.core.errors import UserError

Model = TypeVar("Model", bound=BaseModel)

_ROOT = Path(__file__).parents[3]


def find_file(default: Path, file: str | None) -> Path:
    """Return the path of ``file``, or ``default`` if None.

    Args:
        default: relative path, looked up in the working directory first and then beside the
            package.
        file: the path that the user gave.
    """
    if file is not None:
        return Path(file)
    return default if default.exists() else _ROOT / default


def load(file: Path, model: type[Model], overrides: Sequence[str] = ()) -> Model:
    """Read ``file``, apply ``overrides`` and validate the result as ``model``.

    Args:
        file: a YAML file.
        model: the config class.
        overrides: ``key.subkey=value`` each; of several for one key, the last wins.

    Raises:
        UserError: one line for each error in the file and in the overrides.
    """
    data, locations = read(file)
    return build(data, locations, model, overrides)


def build(
    data: dict[str, Any], locations: Locations, model: type[Model], overrides: Sequence[str] = ()
) -> Model:
    """Apply ``overrides`` to what `read` returned and validate it; see `load`."""
    for override in overrides:
        _apply(override, data, locations)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(explain(error, model, locations)) from None


def dump(config: Experiment) -> str:
    """Write the resolved config as YAML; `load` gives back an equal config."""
    return yaml12.dump(config.model_dump(mode="json"))


def flatten(config: Experiment) -> dict[str, str]:
    """Return the resolved config as ``section.key`` → value, both text, as MLflow logs it."""
    flat: dict[str, str] = {}

    def visit(value: Any, prefix: str) -> None:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                visit(inner, f"{prefix}.{name}" if prefix else str(name))
        else:
            flat[prefix] = "null" if value is None else str(value)

    visit(config.model_dump(mode="json"), "")
    return flat


def read(source: Path | Mapping[str, Any]) -> tuple[dict[str, Any], Locations]:
    """Return the keys of a config, not validated, and where they were written.

    Args:
        source: A YAML file, or the keys and their values, which are copied.

    Raises:
        UserError: The file cannot be read.
    """
    if isinstance(source, Mapping):
        return copy.deepcopy(dict(source)), Locations("config")
    file = source
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{file}: no such config file{_siblings(file)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    data, locations = yaml12.parse(text, str(file))
    if data is None:
        raise UserError(f"{file}: the config is empty")
    if not isinstance(data, dict):
        raise UserError(f"{file}: a config is a mapping of keys to values")
    return data, locations


def _siblings(file: Path) -> str:
    near = sorted(map(str, file.parent.glob("*.yaml"))) if file.parent.is_dir() else []
    return f"; available: {', '.join(near)}" if near else ""


def _apply(override: str, data: dict[str, Any], locations: Locations) -> None:
    """Set one key of ``data``; mappings on the way to it are created where needed."""
    location = f"--set {override}"
    name, equals, text = override.partition("=")
    key = tuple(name.split("."))
    if not equals or not all(key):
        raise UserError(f"{location}: write it as key=value, e.g. train.epochs=3")
    try:
        value, _ = yaml12.parse(text, location)
    except UserError:
        value = text  # e.g. a path with ": " in it
    target = data
    replaced = len(key)  # the first so many parts of the key lead to the replaced value
    for depth, part in enumerate(key[:-1], 1):
        inner = target.get(part)
        if not isinstance(inner, dict):
            inner = target[part] = {}
            replaced = min(replaced, depth)
        target = inner
    target[key[-1]] = value
    locations.discard(key[:replaced])
    for depth in range(replaced, len(key) + 1):
        locations[key[:depth]] = location
