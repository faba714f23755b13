"""What a search varies: a YAML file that names keys of a config, and what each may be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import optuna
from pydantic import Field, model_validator

from pipelines.engine.config import loader as configs
from pipelines.engine.config.schema import BaseConfig, Experiment
from pipelines.engine.core.errors import UserError


class Axis(BaseConfig):
    """What one key may be: one of ``choices``, or a number from ``low`` to ``high``."""

    choices: Annotated[list[Any], Field(min_length=1)] | None = None
    low: float | None = None
    high: float | None = None
    #: Evenly in the logarithm.
    log: bool = False
    #: Only whole numbers.
    integer: bool = False
    #: From ``low`` on in steps of so much.
    step: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if self.choices is not None:
            if len(self.model_fields_set) > 1:
                raise ValueError("choices stand alone: leave out low, high, log, integer and step")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs choices, or low and high")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be less than high ({self.high:g})")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log: true needs a low above 0, and no step")
        if self.integer and any(v != int(v) for v in (self.low, self.high, self.step or 1)):
            raise ValueError("integer: true needs whole numbers")
        return self

    def suggest(self, trial: optuna.Trial, key: str) -> None:
        """Let Optuna choose; what is chosen is in ``trial.params``, as `_override` reads it."""
        if self.choices is not None:
            trial.suggest_categorical(key, [json.dumps(choice) for choice in self.choices])
            return
        assert self.low is not None
        assert self.high is not None
        if self.integer:
            step = int(self.step or 1)
            trial.suggest_int(key, int(self.low), int(self.high), step=step, log=self.log)
        else:
            trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)

    @property
    def ends(self) -> list[Any]:
        """What has to be allowed, for all of it to be."""
        if self.choices is not None:
            return [json.dumps(choice) for choice in self.choices]
        return [int(v) if self.integer else v for v in (self.low, self.high) if v is not None]


class Pruning(BaseConfig):
    """When a trial is ended: where its best score is worse than the median of others' then."""

    #: Trials that come to their end before any is pruned.
    startup: int = Field(4, ge=0)
    #: Epochs that every trial has.
    warmup: int = Field(1, ge=0)


class Space(BaseConfig):
    """What is searched, and how."""

    keys: dict[str, Axis] = Field(min_length=1)
    trials: int = Field(20, ge=1)
    #: Of the proposals; that of the trainings is the config's.
    seed: int = Field(1, ge=0)
    #: Trials that are drawn at random before any is proposed.
    random: int = Field(8, ge=1)
    #: Null lets every trial come to its end.
    pruning: Pruning | None = Pruning()


def find_space(file: Path, wanted: str | None) -> Path:
    """Return the requested search space, or the default one of a config."""
    if wanted is not None:
        return Path(wanted)
    path = file.parent / "sweeps" / file.name
    if not path.exists():
        raise UserError(f"{path}: no such search space; name one: --space FILE")
    return path


def check(
    space: Space, space_file: Path, file: Path, kind: type[Experiment], overrides: Sequence[str]
) -> None:
    """Everything that may be chosen is allowed, as far as that is known of each key by itself."""
    for key, axis in space.keys.items():
        for value in axis.ends:
            try:
                configs.load(file, kind, [*overrides, f"{key}={value}"])
            except UserError as error:
                raise UserError(f"{space_file}: keys.{key}: {error}") from None


def overrides_of(params: dict[str, Any]) -> list[str]:
    """What Optuna chose, as overrides of a config."""
    return [f"{key}={json.dumps(value_of(value))}" for key, value in params.items()]


def value_of(chosen: Any) -> Any:
    """Optuna keeps a choice as JSON, because a list would be none of its kinds."""
    return json.loads(chosen) if isinstance(chosen, str) and chosen else chosen


def format_value(chosen: Any) -> str:
    value = value_of(chosen)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
