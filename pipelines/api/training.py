"""Train models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.api.model import Model, find_by_id
from pipelines.api.process import select_for_training, settings_restored
from pipelines.engine.config import loader
from pipelines.engine.config.catalog import load_experiment
from pipelines.engine.config.schema import Experiment
from pipelines.engine.core.console import Console
from pipelines.engine.core.errors import UserError
from pipelines.engine.data.preview import check_sources
from pipelines.engine.runs.model_names import check_form, require_free


def train(
    config: str | os.PathLike[str] | Mapping[str, Any] | Experiment,
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    progress: bool = True,
    console: Console | None = None,
) -> Model:
    """Train, evaluate, export and track a model, as ``unfold train`` does.

    The random seeds of Python, NumPy and Keras are set to the config's ``seed``.

    Args:
        config: A YAML file, a mapping with the same keys, or a config. A file and a mapping need
            the key ``task``.
        name: The name of the model, in place of the config's ``registered_model``.
        overrides: ``key.subkey=value`` each; of several for one key, the last wins.
        progress: Whether to show the progress on standard error.
        console: Where to show it instead.

    Returns:
        The model of the new run.

    Raises:
        UserError: The config, its data or the device cannot be used.
        TrainingError: The training failed, e.g. because the loss is not finite.
        KeyboardInterrupt: It was interrupted; `resume` continues it.
    """
    console = console or Console(silent=not progress)
    experiment = resolve(config, name, overrides)
    require_free(experiment)
    check_sources(experiment.data)
    selected = select_for_training(experiment, console)
    from pipelines.workflows import train as workflow  # Keras fixes the backend

    with settings_restored():
        return Model(workflow.train(experiment, selected, console))


def resume(run: str, *, progress: bool = True, console: Console | None = None) -> Model:
    """Continue an interrupted training; the result equals that of an uninterrupted one.

    Args:
        run: The id of the run, or a unique part of it.
        progress: Whether to show the progress on standard error.
        console: Where to show it instead.

    Raises:
        UserError: There is no such run, it is finished, or its data has changed.
        TrainingError: The training failed.
        KeyboardInterrupt: It was interrupted again.
    """
    console = console or Console(silent=not progress)
    found = find_by_id(run)
    config = found.config()
    check_sources(config.data)
    selected = select_for_training(config, console)
    from pipelines.workflows import train as workflow  # Keras fixes the backend

    with settings_restored():
        return Model(workflow.resume(found, selected, console))


def resolve(
    config: str | os.PathLike[str] | Mapping[str, Any] | Experiment,
    name: str | None = None,
    overrides: Sequence[str] = (),
) -> Experiment:
    """Return the config of a training; see `train` for the arguments."""
    if isinstance(overrides, str):
        raise UserError(f"overrides: must be a list, e.g. [{overrides!r}]")
    changes = list(overrides)
    if name is not None:
        check_form(name)
        changes.append(f"registered_model='{name}'")  # quoted: a name may be digits
    if isinstance(config, Experiment):
        if not changes:
            return config
        return loader.build(*loader.read(config.model_dump(mode="json")), type(config), changes)
    if isinstance(config, Mapping):
        return load_experiment(config, changes)
    if isinstance(config, str | os.PathLike):
        return load_experiment(Path(config), changes)
    raise UserError(
        "train: the config must be the path of a YAML file, a mapping or an Experiment, not "
        f"{type(config).__name__}"
    )
