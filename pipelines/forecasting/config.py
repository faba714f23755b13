"""The keys of a forecasting experiment."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

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
)

#: How numbers are read: as they are, or what they are above the step before.
ValueTransform = Literal["levels", "differences", "log_returns"]
#: Paths that a server draws for one request, at most.
MAX_PATHS = 2_000


class ForecastingDataConfig(DataConfig):
    """Rows with a date and a number: of one series or of many."""

    #: The column with the date, and how it is written (strptime); null is ISO 8601.
    date: CoercedStr = "date"
    date_format: str | None = None
    #: The column with a series' name; null where there is one series, or one a column.
    series: CoercedStr | None = None
    #: The column that is forecast; several columns are as many series (a wide table).
    target: CoercedStr | Annotated[list[CoercedStr], Field(min_length=1)] = "close"
    values: ValueTransform = "log_returns"
    #: Further columns that are read, each in its way.
    columns: dict[CoercedStr, ValueTransform] = Field({})
    #: log(a / b) of two columns: ``{high: low}`` is the day's range.
    ratios: dict[CoercedStr, CoercedStr] = Field({})
    #: The last share of the time, or the date it begins.
    validation: Fraction | str = 0.1
    test: Fraction | str = 0.1
    #: Only dates from ``start`` on and before ``end``.
    start: str | None = None
    end: str | None = None
    #: A step so many times as long as a series' usual one ends a piece: no window goes over it.
    max_gap: float = Field(10.0, gt=1)
    #: Shorter pieces are left out, and counted.
    min_steps: int = Field(30, ge=3)


class ForecastingModelConfig(CellConfig):
    """History → cells → the distribution of what comes next."""

    #: Steps that are read, and steps that are forecast.
    history: int = Field(60, ge=2)
    horizon: int = Field(5, ge=1)
    #: All steps at once from the last state, or each from the one before, fed back.
    decode: Literal["direct", "autoregressive"] = "direct"
    head: Literal["quantiles", "gaussian", "student_t"] = "student_t"
    #: The quantiles that are served, and those that ``head: quantiles`` learns.
    quantiles: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
    )
    #: In what changes are measured: their deviation while training, or lately (EWMA).
    scale: Literal["training", "ewma"] = "ewma"
    #: Half-lives, in steps, of the volatilities that are read; the first is the ``ewma`` scale.
    half_lives: list[Annotated[float, Field(gt=0)]] = Field([11.0])
    #: Read the level too, standardised by the training split.
    level: bool = False
    #: A linear path from so many last values to the answer, beside the cells: a ridge regression,
    #: fitted before them.
    linear: int | None = Field(None, ge=2)
    #: What is known of a date before it comes.
    calendar: list[Literal["hour", "weekday", "year"]] = Field([])
    #: Size of a series' vector; 0 treats all alike.
    embedding: int = Field(0, ge=0)
    dropout: Fraction = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if sorted(set(self.quantiles)) != self.quantiles or 0.5 not in self.quantiles:
            raise ValueError("quantiles: must rise, and hold 0.5")
        if not {0.1, 0.9} <= set(self.quantiles):
            raise ValueError("quantiles: must hold 0.1 and 0.9, the interval that is scored")
        if self.scale == "ewma" and not self.half_lives:
            raise ValueError("scale: ewma needs a half-life in half_lives")
        if len(set(self.calendar)) < len(self.calendar):
            raise ValueError("calendar: must name each once")
        return self


class WindowTrainConfig(TrainConfig):
    """Training on windows with several forecast origins each (Wen et al. 2017)."""

    #: Forecast origins in one window; the steps before them are read once for all.
    origins: int = Field(32, ge=1)
    #: Steps between two windows; null is as many as there are origins.
    stride: int | None = Field(None, ge=1)
    #: Windows whose series is treated as unknown, so that an unknown one can be forecast.
    unknown: Fraction = 0.1


class SamplePathsConfig(BaseConfig):
    """How sample paths are drawn; ``decode: autoregressive`` only."""

    paths: int = Field(200, ge=2, le=MAX_PATHS)
    seed: int = Field(1, ge=0, lt=2**31)


class BaselinesConfig(BaseConfig):
    """What the baselines need to know."""

    #: Steps of a season: 24 for hours, 5 for trading days.
    season: int = Field(5, ge=1)
    #: Steps of the moving average.
    window: int = Field(20, ge=1)
    #: Values that the linear autoregression reads.
    lags: int = Field(20, ge=2)


class ForecastingConfig(Experiment):
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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.model.decode == "autoregressive" and (self.data.columns or self.data.ratios):
            raise ValueError(
                "model.decode: autoregressive feeds its own output back, and knows of no other "
                "column what comes next; leave out data.columns and data.ratios, or choose direct"
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
