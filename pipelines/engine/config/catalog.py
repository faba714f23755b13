"""Find the pipelines by name, through the entry points of installed distributions.

A distribution registers a pipeline in the group `GROUP`::

    [project.entry-points."unfold.tasks"]
    tags = "my_package.tags"

The value is a package with two modules: ``config``, which defines ``CONFIG`` and must not import
Keras, and ``task``, which defines ``TASK``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.engine.config import loader
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.errors import UserError

#: The group of entry points, from the name of a task to its package.
GROUP = "unfold.tasks"
#: The pipelines of this project, in the order in which they are listed. They are found without an
#: entry point too, so that a checkout works whose installation is out of date.
BUILT_IN = ("sentiment", "captioning", "translation", "forecasting", "generation")


def task_names() -> tuple[str, ...]:
    """Return the names of all pipelines: ours first, then the others by name.

    Raises:
        UserError: Two distributions register a pipeline under one name.
    """
    return tuple(_packages())


def get_config(name: str) -> type[Experiment]:
    """Return the config class of a pipeline, without importing Keras.

    Raises:
        UserError: No pipeline has this name, or its package cannot be used.
    """
    config = attribute(name, "config", "CONFIG")
    if not (isinstance(config, type) and issubclass(config, Experiment)):
        raise unusable(name, "config.CONFIG is not a subclass of Experiment")
    if config.model_fields["task"].default != name:
        raise unusable(name, f"the key task of config.CONFIG must default to {name!r}")
    return config


def find_config(name: str, file: str | None) -> Path:
    """Return the path of ``file``, or of the pipeline's default config if None.

    The default config is ``configs/TASK/default.yaml`` or, if that does not exist, ``default.yaml``
    in the package of the pipeline.
    """
    default = loader.find_file(Path("configs") / name / "default.yaml", file)
    if file is not None or default.exists():
        return default
    spec = importlib.util.find_spec(_package(name))
    folders = (spec.submodule_search_locations if spec else None) or []
    packaged = (Path(folder) / "default.yaml" for folder in folders)
    return next((path for path in packaged if path.exists()), default)


def load_experiment(source: Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Experiment:
    """Read the config of any pipeline; its key ``task`` says of which.

    Args:
        source: A YAML file, or the keys and their values.
        overrides: See `loader.load`.

    Raises:
        UserError: The key is missing or names no pipeline, or the config has errors.
    """
    data, locations = loader.read(source)
    if "task" not in data:
        raise UserError(f"{locations.source}: task: this key is required: {_alternatives()}")
    task = data["task"]
    if not isinstance(task, str) or task not in _packages():
        place = locations.find(("task",))
        raise UserError(f"{place}: task: must be {_alternatives()}, not {task!r}")
    return loader.build(data, locations, get_config(task), overrides)


def _alternatives() -> str:
    *others, last = task_names()
    return f"{', '.join(others)} or {last}"


def attribute(name: str, module: str, attribute: str) -> Any:
    """Return ``PACKAGE.module.attribute`` of a pipeline."""
    package = _package(name)
    try:
        return getattr(importlib.import_module(f"{package}.{module}"), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        if name in BUILT_IN:
            raise  # not another distribution's error
        raise unusable(name, f"{type(error).__name__}: {error}") from error


def unusable(name: str, problem: str) -> UserError:
    """Return the error of a registered pipeline that cannot be used."""
    return UserError(
        f"task {name!r}: its package {_package(name)} cannot be used ({problem}); correct or "
        f"uninstall the distribution that registers it in the entry-point group {GROUP}"
    )


def _package(name: str) -> str:
    """Return the package of a pipeline."""
    packages = _packages()
    if name not in packages:
        raise UserError(f"no task {name!r}; there are: {', '.join(packages)}")
    return packages[name]


def _packages() -> dict[str, str]:
    """Return the package of each pipeline by name."""
    found = {name: f"pipelines.{name}" for name in BUILT_IN}
    for name, package, distribution in sorted(_registered()):
        if found.setdefault(name, package) != package:
            raise UserError(
                f"task {name!r} is registered twice, as {found[name]} and as {package} (by "
                f"{distribution}); uninstall one of the distributions"
            )
    return found


def _registered() -> Sequence[tuple[str, str, str]]:
    """Return name, package and distribution of each entry point."""
    return _registered_on(tuple(sys.path))


@functools.cache
def _registered_on(path: tuple[str, ...]) -> Sequence[tuple[str, str, str]]:
    """Read the entry points on a search path, once: there may be hundreds of distributions."""
    return [
        (point.name, point.value, point.dist.name if point.dist else "an unknown distribution")
        for point in metadata.entry_points(group=GROUP)
    ]
