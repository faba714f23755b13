"""The config of a forecasting experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipelines.engine.config.schema import (
    BaseConfig,
    CellConfig,
    CoercedStr,
    DataConfig,
    Experiment,
    Fraction,
    Score,
    TrainConfig,
    as_list,
)

#: Transformation of a column: none, x_t − x_(t−1), or log(x_t / x_(t−1)).
ValueTransform = Literal["levels", "differences", "log_returns"]
#: The limit of an export for one request: sample paths.
MAX_PATHS = 2_000


class ForecastingDataConfig(DataConfig):
    """Where one or several time series come from. See ``data.md``."""

    column_keys: ClassVar[tuple[str, ...]] = ("date", "series", "target")

    def sources(self) -> list[str]:
        # The splits are shares or dates.
        return as_list(self.source)

    @classmethod
    def fold_problem(cls, keys: Mapping[str, Any]) -> str | None:
        return (
            "series are split by time, and each test is a backtest; choose its time with data.test "
            "and data.end"
        )

    def tested_on(self, source: str | list[str]) -> dict[str, Any]:
        # The test split is the end of the series.
        return {"source": source}

    date: CoercedStr = "date"
    """The column with the date."""
    date_format: str | None = None
    """The format of the date, as for ``strptime``; ``null`` is ISO 8601."""
    series: CoercedStr | None = None
    """The column with the name of the series; ``null`` for one series, or one per column."""
    target: CoercedStr | Annotated[list[CoercedStr], Field(min_length=1)] = "close"
    """The column to forecast; several columns are one series each (a wide table)."""
    values: ValueTransform = "log_returns"
    """How the target is transformed."""
    columns: dict[CoercedStr, ValueTransform] = Field({})
    """Further input columns and their transformations, e.g. ``{volume: log_returns}``."""
    ratios: dict[CoercedStr, CoercedStr] = Field({})
    """Further inputs log(a / b) from two columns, e.g. ``{high: low}`` for the day's range."""
    validation: Fraction | str = 0.1
    """The validation split: a fraction of the time before the test split, or the date on which it
    begins."""
    test: Fraction | str = 0.1
    """The test split: the last fraction of the time, or the date on which it begins."""
    start: str | None = None
    """First date to use; ``null`` is the first one."""
    end: str | None = None
    """Use only dates before this one; ``null`` uses all."""
    max_gap: float = Field(10.0, gt=1)
    """Longest step, in multiples of the series' usual one. A longer one splits the series, and no
    window crosses it."""
    min_steps: int = Field(30, ge=3)
    """Shortest series or part of one; shorter ones are left out, and counted."""

    @property
    def columns_read(self) -> list[str]:
        """The columns of a source that are read."""
        series = [] if self.series is None else [self.series]
        further = [*self.columns, *(name for pair in self.ratios.items() for name in pair)]
        return list(dict.fromkeys([self.date, *series, *as_list(self.target), *further]))


class ForecastingModelConfig(CellConfig):
    """History → recurrent layers → distribution of the next steps."""

    history: int = Field(60, ge=2)
    """Number of input steps."""
    horizon: int = Field(5, ge=1)
    """Number of steps to forecast."""
    decode: Literal["direct", "autoregressive"] = "direct"
    """Forecast all steps at once from the last state, or one after the other along sample paths,
    feeding each output back as the next input."""
    head: Literal["quantiles", "gaussian", "student_t"] = "student_t"
    """The predicted distribution; ``quantiles`` are trained with the pinball loss and never
    cross."""
    quantiles: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
    )
    """Quantiles of the forecast, rising, with 0.1, 0.5 and 0.9 among them; ``head: quantiles``
    learns exactly these."""
    scale: Literal["training", "ewma"] = "ewma"
    """The unit of changes: their standard deviation in the training split, or a recent one (an
    exponentially weighted moving average)."""
    half_lives: list[Annotated[float, Field(gt=0)]] = Field([11.0])
    """Half-lives, in steps, of the volatilities among the inputs; the first one is the ``ewma``
    scale (11 steps is RiskMetrics' λ = 0.94)."""
    level: bool = False
    """Add the level to the inputs, standardised by the training split."""
    linear: int | None = Field(None, ge=2)
    """Number of last values in a ridge regression that is fitted first; the recurrent layers learn
    its residual. ``null`` is without."""
    calendar: list[Literal["hour", "weekday", "year"]] = Field([])
    """Inputs computed from the date of each step."""
    embedding: int = Field(0, ge=0)
    """Size of the embedding of the series; 0 treats all series alike."""
    dropout: Fraction = 0.0
    """Dropout rate between layers and before V."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if sorted(set(self.quantiles)) != self.quantiles or 0.5 not in self.quantiles:
            raise ValueError("quantiles: must rise and include 0.5")
        if not {0.1, 0.9} <= set(self.quantiles):
            raise ValueError("quantiles: must include 0.1 and 0.9, the interval that is scored")
        if self.scale == "ewma" and not self.half_lives:
            raise ValueError("scale: ewma needs a half-life in half_lives")
        if len(set(self.calendar)) < len(self.calendar):
            raise ValueError("calendar: must not name an input twice")
        return self


class WindowTrainConfig(TrainConfig):
    """How the model is trained on windows with several forecast origins each (Wen et al. 2017)."""

    origins: int = Field(32, ge=1)
    """Forecast origins in one window, which share its input steps."""
    stride: int | None = Field(None, ge=1)
    """Steps between two windows; ``null`` is the number of ``origins``."""
    unknown: Fraction = 0.1
    """Fraction of windows whose series is marked as unknown, so that the model can forecast series
    that it was not trained on."""


class SamplePathsConfig(BaseConfig):
    """How sample paths are drawn with ``model.decode: autoregressive``."""

    paths: int = Field(200, ge=2, le=MAX_PATHS)
    """Number of sample paths."""
    seed: int = Field(1, ge=0, lt=2**31)
    """Seed of the sample paths."""


class BaselinesConfig(BaseConfig):
    """The baselines that a forecast is compared with."""

    season: int = Field(5, ge=1)
    """Steps in a season, for the seasonal naive forecast and MASE: 24 for hours, 5 for trading
    days."""
    window: int = Field(20, ge=1)
    """Steps in the moving average."""
    lags: int = Field(20, ge=2)
    """Order of the linear autoregression."""


class ForecastingConfig(Experiment):
    """Time series → distributions of the next steps."""

    output_files: ClassVar[dict[str, str]] = {"chart": "draw history and forecast (PNG)"}

    request_keys: ClassVar[tuple[str, ...]] = (
        "forecast.paths",
        "forecast.seed",
        "data.date",
        "data.date_format",
        "data.series",
        "data.target",
    )

    score: ClassVar[Score] = Score("crps_next", higher_is_better=False)
    meanings: ClassVar[dict[str, str]] = {
        "crps_next": "CRPS of the next step: the mean distance between the forecast distribution "
        "of the change and the change that came.",
        "crps_next_to_ewma": "CRPS of the next step, divided by that of EWMA volatility.",
        "crps_next_to_garch": "CRPS of the next step, divided by that of GARCH.",
        "crps": "CRPS over all steps.",
        "pinball": "Pinball loss over all steps and quantiles.",
        "coverage_80_next": "Share of next values inside the 80 % interval; 0.8 is right.",
        "coverage_80": "The same over all steps.",
        "width_80_next": "Mean width of that interval, in the unit of the series.",
        "relative_mae": "Absolute error of the next step, divided by that of the last value.",
        "relative_mae_all_steps": "The same over all steps.",
        "mae": "Mean absolute error of the median, in the unit of the series.",
        "rmse": "Root of the mean squared error, in the unit of the series.",
        "mase": "Absolute error, divided by the mean seasonal change in training.",
        "standard_mse": "Squared error in standard deviations of the training split.",
        "linear_standard_mse": "The same of the linear baseline.",
        "last_value_standard_mse": "The same of the last value.",
        "direction": "Share of next steps whose sign is right.",
        "direction_low": "Lower end of its 95 % interval.",
        "direction_high": "Upper end of its 95 % interval.",
        "rises": "Share of next steps that were rises.",
        "by_horizon": "Scores by how many steps ahead the forecast is.",
        "by_series": "Scores of each series.",
        "baselines": "The model and each baseline at the same origins.",
        "diebold_mariano": "Tests of the difference between the model and each baseline.",
        "fan": "The last forecasts of the test split: intervals, median and what came.",
        "coverage": "Share of values inside each interval; on the line, an interval holds what it "
        "promises.",
        "walk_forward": "The next change at each origin, with its intervals.",
        "pit": "Where the values fell in their forecast distributions; flat is right.",
    }
    variants: ClassVar[dict[str, tuple[str, ...]]] = {
        "feedforward": ("model.cell=feedforward",),
        "rnn": ("model.cell=rnn",),
        "gru": ("model.cell=gru",),
        "lstm": ("model.cell=lstm",),
    }

    task: Literal["forecasting"] = "forecasting"
    data: ForecastingDataConfig
    model: ForecastingModelConfig = ForecastingModelConfig()
    train: WindowTrainConfig = WindowTrainConfig()
    forecast: SamplePathsConfig = SamplePathsConfig()
    evaluation: BaselinesConfig = BaselinesConfig()

    @property
    def input_columns(self) -> list[str]:
        return self.data.columns_read

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.model.decode == "autoregressive" and (self.data.columns or self.data.ratios):
            raise ValueError(
                "model.decode: autoregressive feeds its own output back and has no future values "
                "of other columns; leave out data.columns and data.ratios, or choose direct"
            )
        if self.model.decode == "autoregressive" and self.data.values == "levels":
            raise ValueError(
                "model.decode: autoregressive adds up changes; data.values must be differences or "
                "log_returns, not levels"
            )
        if self.model.linear and self.data.values == "levels":
            raise ValueError(
                "model.linear predicts changes; data.values must be differences or log_returns, "
                "not levels"
            )
        return self


CONFIG = ForecastingConfig
