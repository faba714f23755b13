"""The settings that a `Forecaster` saves with its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from pipelines.forecasting.config import ForecastingConfig


@dataclass(frozen=True)
class ForecasterSettings:
    """Keys of the config that determine how a `Forecaster` computes.

    Attributes:
        history, horizon, decode, head, quantiles, scale, half_lives, level, linear, calendar: See
            `ForecastingModelConfig`.
        values: Transformation of the target, see `ForecastingDataConfig`.
        columns: Transformation of each further column.
        ratios: Number of ratios of two columns.
        series: Number of series, the unknown one (0) included.
    """

    history: int
    horizon: int
    decode: str
    head: str
    quantiles: list[float]
    scale: str
    half_lives: list[float]
    level: bool
    linear: int | None
    calendar: list[str]
    values: str
    columns: list[str]
    ratios: int
    series: int

    @classmethod
    def from_config(cls, config: ForecastingConfig, *, series: int) -> ForecasterSettings:
        """Return the settings of a config for ``series`` series, the unknown one included."""
        model = config.model.model_dump(mode="json")
        data: dict[str, Any] = {
            "values": config.data.values,
            "columns": list(config.data.columns.values()),
            "ratios": len(config.data.ratios),
            "series": series,
        }
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in model.items() if name in names}, **data)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary that can be written as JSON."""
        return asdict(self)

    @property
    def covariates(self) -> int:
        """Number of covariates: further columns and ratios."""
        return len(self.columns) + self.ratios

    @property
    def columns_read(self) -> int:
        """Number of raw columns: the target, further columns, and two for each ratio."""
        return 1 + len(self.columns) + 2 * self.ratios

    @property
    def features(self) -> int:
        """Number of features of each step."""
        own = 2 + len(self.half_lives) + int(self.level)
        return own + self.covariates + 2 * len(self.calendar)

    @property
    def output_steps(self) -> int:
        """Number of steps that the head forecasts at once."""
        return 1 if self.decode == "autoregressive" else self.horizon

    @property
    def decays(self) -> list[float]:
        """λ = ½^(1 / half-life) of each exponentially weighted volatility."""
        return [0.5 ** (1 / half_life) for half_life in self.half_lives]
