"""Forecasting's parts, against NumPy, SciPy, `arch` and statsmodels."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from pipelines.engine.config.loader import load as load_config
from pipelines.engine.core.errors import UserError
from pipelines.forecasting import (
    backtest,
    baselines,
    dates,
    distributions,
    evaluation,
    metrics,
    records,
    task,
)
from pipelines.forecasting import model as models
from pipelines.forecasting.config import ForecastingConfig
from pipelines.forecasting.losses import ForecastLoss
from pipelines.forecasting.paths import sample_paths
from pipelines.forecasting.predictive import Empirical, Parametric, pinball
from pipelines.forecasting.processor import Scales, fit_ridge, levels_of
from pipelines.forecasting.series import Series, SeriesSlice
from pipelines.forecasting.serving import ForecastServing
from pipelines.forecasting.windows import WindowFeed, Windows

LEVELS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
HEADS = ["quantiles", "gaussian", "student_t"]
DAY = 86_400


def config(source: str = "prices.csv", data: dict | None = None, **sections) -> ForecastingConfig:
    return ForecastingConfig.model_validate(
        {"data": {"source": source, **(data or {})}, **sections}
    )


def series(values, name: str = "A", start: int = 0) -> Series:
    values = np.asarray(values, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    return Series(name, (start + np.arange(len(values))) * DAY, values, f"{name}:1")


def parts(one: Series, *edges: int) -> list[list[SeriesSlice]]:
    ends = (0, *edges, len(one))
    return [[SeriesSlice(one, a, b)] for a, b in pairwise(ends)]


def prices(steps: int, seed: int = 0, scale: float = 0.01) -> np.ndarray:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).standard_normal(steps) * scale))


def write(folder: Path, text: str, name: str = "prices.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def daily(values, start: str = "2020-01-01") -> list[str]:
    dates = np.datetime64(start) + np.arange(len(values))
    return [f"{d},{v}" for d, v in zip(dates, values, strict=True)]


# --- records ---------------------------------------------------------------------------------


def read(source: str, **data):
    report: dict = {}
    found = records.read_series(config(source, {"min_steps": 3, **data}).data, source, report)
    return found, report


def test_rows_are_put_in_order_and_counted_once(tmp_path):
    rows = daily([1, 2, 3, 4])
    source = write(tmp_path, "\n".join(["date,close", rows[2], *rows, rows[0], ""]))
    (one,), report = read(source)
    np.testing.assert_array_equal(one.values[:, 0], [1, 2, 3, 4])
    assert np.all(np.diff(one.seconds) == DAY)
    assert report[source]["repeated"] == 2
    assert report["steps"]["out_of_order"] == 2


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("2020-01-05,n.a.", "'close' is not a number"),
        ("2020-01-05,", "'close' is missing"),
        ("2020-01-05,0", "'close' is zero or less and has no logarithm"),
        ("2020-01-05,-3", "'close' is zero or less and has no logarithm"),
        ("5.1.2020,3", "'date' is not a date as YYYY-MM-DD (data.date_format)"),
        ("2020-01-04,77", "another row has the same date but other numbers"),
        ("2020-01-05,inf", "'close' is not a number"),
    ],
)
def test_what_cannot_be_used_is_counted_with_its_line(tmp_path, cell, reason):
    source = write(tmp_path, "\n".join(["date,close", *daily([1, 2, 3, 4]), cell]))
    (one,), report = read(source, max_bad_rows=0.5)
    assert report[source]["unusable"] == {reason: 1}
    assert report[source]["first_unusable"] == [f"prices.csv:6: {reason}"]
    assert len(one) == 4
    with pytest.raises(UserError, match=r"prices\.csv:6: "):
        read(source)


def test_many_series_gaps_and_short_ones(tmp_path):
    long = [f"{row},A" for row in daily(range(101, 141))]
    after = [f"{row},A" for row in daily(range(150, 190), "2021-01-01")]
    short = [f"{row},B" for row in daily([5, 6])]
    source = write(tmp_path, "\n".join(["date,close,ticker", *after, *short, *long]))
    found, report = read(source, series="ticker")
    assert [(s.name, len(s)) for s in found] == [("A", 40), ("A", 40)]
    assert found[0].times[-1] < found[1].times[0]
    assert report["steps"]["gaps"] == 1
    assert report["steps"]["too_short"] == 1
    assert "prices.csv:42: B has 2 steps" in report["notes"][0]


def test_a_wide_table_has_a_series_a_column(tmp_path):
    rows = [f"2020-01-0{i},{i},{'' if i == 2 else 10 * i}" for i in range(1, 7)]
    source = write(tmp_path, "\n".join(["day,X,Y", *rows]))
    found, report = read(source, date="day", target=["X", "Y"])
    assert [(s.name, s.values[:, 0].tolist()) for s in found] == [
        ("X", [1, 2, 3, 4, 5, 6]),
        ("Y", [10, 30, 40, 50, 60]),
    ]
    assert report["steps"]["missing"] == 1


def test_parquet_holds_the_same(tmp_path):
    values = [3.0, 2.5, 4.0, 4.5]
    path = tmp_path / "prices.parquet"
    dates = pd.date_range("2020-01-01", periods=4)
    pd.DataFrame({"date": dates, "close": values}).to_parquet(path)
    (one,), _ = read(str(path))
    (same,), _ = read(write(tmp_path, "\n".join(["date,close", *daily(values)])))
    np.testing.assert_array_equal(one.values, same.values)
    np.testing.assert_array_equal(one.times, same.times)
    with pytest.raises(UserError, match=r"no column 'open'; there are: date, close"):
        read(str(path), target="open")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and nothing")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read(str(broken))


def test_further_columns_are_filled_forward_from_the_past_only(tmp_path):
    rows = ["2020-01-01,1,", "2020-01-02,2,7", "2020-01-03,3,", "2020-01-04,4,0", "2020-01-05,5,9"]
    source = write(tmp_path, "\n".join(["date,close,volume", *rows]))
    (one,), report = read(source, columns={"volume": "log_returns"})
    np.testing.assert_array_equal(one.values, [[2, 7], [3, 7], [4, 7], [5, 9]])
    assert report["steps"]["filled_forward"] == 2
    assert report["steps"]["before_the_first_number"] == 1


def test_a_split_of_a_stock_is_pointed_at(tmp_path):
    source = write(tmp_path, "\n".join(["date,close", *daily([100, 101, 50.4, 51])]))
    _, report = read(source)
    assert "101 to 50.4 on 2020-01-03" in report["notes"][0]
    assert "adjusted" in report["notes"][0]


def test_dates_may_be_written_otherwise(tmp_path):
    source = write(tmp_path, "date,close\n1/4/1999,1\n1/5/1999,2\n12/31/1999,3\n")
    (one,), _ = read(source, date_format="%m/%d/%Y", max_gap=1000)
    assert dates.isoformat(one.times, one.zone) == [
        "1999-01-04T00:00:00", "1999-01-05T00:00:00", "1999-12-31T00:00:00",
    ]  # fmt: skip


def test_splits_are_by_time_for_all_series_alike(tmp_path):
    rows = [f"{row},A" for row in daily(range(1, 101))]
    rows += [f"{row},B" for row in daily(range(1, 61), "2020-02-10")]
    source = write(tmp_path, "\n".join(["date,close,ticker", *rows]))
    settings = {"series": "ticker", "min_steps": 5, "validation": 0.2, "test": 0.1}
    splits = records.load(config(source, settings))
    for before, after in (("train", "validation"), ("validation", "test")):
        last = max(p.series.times[p.stop - 1] for p in getattr(splits, before))
        first = min(p.series.times[p.start] for p in getattr(splits, after))
        assert last < first
    assert splits.report["records"] == {"train": 100 - 30 + 30, "validation": 40, "test": 20}
    by_date = records.load(
        config(source, settings | {"validation": "2020-03-01", "test": "2020-04-01"})
    )
    assert by_date.report["begins"]["test"] == "2020-04-01T00:00:00"
    with pytest.raises(UserError, match="neither a fraction nor a date"):
        records.load(config(source, settings | {"test": "soon"}))
    with pytest.raises(UserError, match=r"data\.validation must begin before data\.test"):
        records.load(config(source, settings | {"validation": "2020-05-01", "test": "2020-03-01"}))


def test_one_row_is_refused_in_a_line(tmp_path):
    source = write(tmp_path, "date,close\n2020-01-01,3\n")
    with pytest.raises(UserError, match=r"no series has data\.min_steps \(30\) steps or more"):
        records.load(config(source))


# --- what is learned before the model --------------------------------------------------------


def small(**sections) -> ForecastingConfig:
    model = {"history": 20, "horizon": 3, "units": [4], **sections.pop("model", {})}
    return config(model=model, **sections)


def test_scales_know_the_training_split_only(tmp_path):
    values = prices(200)
    train, validation, _ = parts(series(values), 120, 160)
    scales = Scales.fit(small(), train, validation)
    changes = np.diff(np.log(values[:120]))
    assert scales.change[1] == pytest.approx(changes.std(), rel=1e-5)
    values[120:] = np.nan
    again = Scales.fit(small(), *parts(series(values), 120, 160)[:2])
    for name, array in scales.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])
    scales.save(tmp_path)
    back = Scales.load(tmp_path)
    assert back.names == ["A"]
    assert back.number("unheard of") == 0
    np.testing.assert_array_equal(back.numbers(tf.constant(["A", "?"])).numpy(), [1, 0])
    for name, array in scales.arrays.items():
        np.testing.assert_array_equal(array, back.arrays[name])


def test_dates_turn_with_the_day_and_the_week():
    scales = Scales.fit(
        small(model={"calendar": ["hour", "weekday", "year"]}), *parts(series(prices(60)), 40)
    )
    times = np.array([0, 6 * 3600, DAY, 7 * DAY], np.int64)
    found = scales.dates(times).numpy()
    np.testing.assert_allclose(found[:, 0], [0, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found[0, :4], found[3, :4], atol=1e-6)
    assert not np.allclose(found[0, 2:4], found[2, 2:4])


def test_the_ridge_recovers_an_autoregression():
    """AR(1): y_{t+1} − y_t = (φ − 1) y_t; over k steps φ^k − 1."""
    rng, phi = np.random.default_rng(1), 0.8
    values = np.zeros(6000)
    for t in range(1, len(values)):
        values[t] = phi * values[t - 1] + rng.standard_normal()
    settings = small(data={"values": "differences"})
    train, validation, _ = parts(series(values), 5000, 5900)
    w = fit_ridge(train, validation, settings, 40)
    # Only y_t matters; in differences from it, it is what they have in common.
    origins = np.arange(5900, 5996)
    ours = baselines.linear(w)(values, 5000, origins, 3).location
    ideal = (phi ** np.arange(1, 4) - 1) * values[origins][:, None]
    assert np.corrcoef(ours.ravel(), ideal.ravel())[0, 1] > 0.95


# --- windows ---------------------------------------------------------------------------------


@given(st.integers(30, 120), st.integers(1, 40), st.integers(1, 25), st.integers(1, 5))
def test_windows_ask_each_origin_and_target_once(steps, origins, history, horizon):
    settings = small(model={"history": max(history, 2), "horizon": horizon})
    values = prices(steps)
    train, validation = parts(series(values), steps - horizon - 5)
    scales = Scales.fit(settings, train, validation)
    windows = Windows.from_slices(
        train, settings, scales, origins=origins, stride=origins, horizon=horizon
    )
    stop, levels, asked = train[0].stop, np.log(values), []
    for i in range(len(windows)):
        inputs, targets = windows.batch(np.array([i]), scales)
        start, count = windows.starts[i], windows.origin_counts[i]
        for j in range(count):
            t = int(start + inputs["origins"][0, j])
            asked.append(t)
            for k in range(1, horizon + 1):
                if t + k < stop:
                    expected = levels[t + k] - levels[t]
                    assert targets[0, j, k - 1] == pytest.approx(expected, abs=1e-6)
                else:
                    assert np.isnan(targets[0, j, k - 1])
        assert np.isnan(targets[0, count:]).all()
    assert asked == sorted(set(asked))
    assert asked[-1] == stop - 2


def test_an_epoch_is_the_same_again():
    settings = small(train={"origins": 4, "batch_size": 3, "unknown": 0.5})
    train, validation = parts(series(prices(100)), 80)
    scales = Scales.fit(settings, train, validation)
    feed = WindowFeed(settings, scales, train, validation)
    first, again, other = ([x["series"].numpy() for x, _ in feed.train(e)] for e in (0, 0, 1))
    assert len(first) == feed.steps
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


# --- distributions ---------------------------------------------------------------------------


def test_log_gamma_is_that_of_scipy():
    from scipy.special import gammaln

    x = np.linspace(1, 40, 200, dtype=np.float32)
    np.testing.assert_allclose(distributions.log_gamma(x), gammaln(x), atol=2e-5)


@pytest.mark.parametrize(("head", "law"), [("gaussian", stats.norm), ("student_t", stats.t)])
def test_losses_are_minus_log_p(head, law):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((5, 4)).astype(np.float32)
    raw = rng.standard_normal((5, 4, distributions.parameter_count(head, LEVELS))).astype(
        np.float32
    )
    p = np.asarray(distributions.to_parameters(raw, head, LEVELS))
    shapes = [p[..., 2]] if head == "student_t" else []
    expected = -law.logpdf(z, *shapes, loc=p[..., 0], scale=p[..., 1])
    np.testing.assert_allclose(distributions.losses(z, p, head, LEVELS), expected, rtol=2e-4)


def test_the_pinball_loss_is_least_at_the_quantiles():
    z = np.sort(stats.norm.ppf(np.arange(0.5, 1000) / 1000))[:, None].astype(np.float32)
    true = stats.norm.ppf(LEVELS).astype(np.float32)

    def loss(quantiles):
        rows = np.tile(quantiles, (len(z), 1, 1)).astype(np.float32)
        return float(np.mean(distributions.losses(z, rows, "quantiles", LEVELS)))

    assert all(loss(true) < loss(true + d * np.eye(7)[i]) for i in range(7) for d in (-0.1, 0.1))
    with_sklearn = [
        np.mean(np.maximum(q * (z - x), (q - 1) * (z - x)))
        for q, x in zip(LEVELS, true, strict=True)
    ]
    assert loss(true) == pytest.approx(2 * np.mean(with_sklearn), rel=1e-5)


@given(st.lists(st.floats(-30, 30, width=32), min_size=7, max_size=7))
def test_quantiles_never_cross(raw):
    for head in HEADS:
        n = distributions.parameter_count(head, LEVELS)
        p = distributions.to_parameters(np.array([raw[:n]], np.float32), head, LEVELS)
        q = np.asarray(distributions.quantiles_of(p, head, LEVELS))[0]
        assert np.all(np.diff(q) >= 0)
        assert np.isfinite(q).all()


@pytest.mark.parametrize("freedom", [2.1, 3.0, 7.5, 30.0, 60.0])
def test_quantiles_of_student_t(freedom):
    p = np.array([[0.5, 2.0, freedom]], np.float32)
    found = np.asarray(distributions.quantiles_of(p, "student_t", LEVELS))[0]
    np.testing.assert_allclose(found, stats.t.ppf(LEVELS, freedom, 0.5, 2.0), atol=5e-3)


@pytest.mark.parametrize("head", HEADS)
def test_draws_have_the_distribution(head):
    u = np.random.default_rng(0).random((200_000, 2)).astype(np.float32)
    raw = np.tile(distributions.initial_output(head, LEVELS), (len(u), 1))
    p = distributions.to_parameters(raw, head, LEVELS)
    drawn = np.asarray(distributions.sample(u, p, head, LEVELS))
    expected = np.asarray(distributions.quantiles_of(p, head, LEVELS))[0]
    np.testing.assert_allclose(np.quantile(drawn, LEVELS), expected, atol=0.02)


def test_before_it_has_learned_a_head_knows_the_scale():
    for head in HEADS:
        raw = distributions.initial_output(head, LEVELS)[None]
        q = np.asarray(
            distributions.quantiles_of(distributions.to_parameters(raw, head, LEVELS), head, LEVELS)
        )[0]
        np.testing.assert_allclose(q[[1, 5]], [-1.28, 1.28], atol=0.12)


# --- scores ----------------------------------------------------------------------------------


@given(st.floats(-3, 3), st.floats(0.1, 5), st.floats(2.5, 50), st.floats(-6, 6))
def test_crps_is_the_integral(location, scale, freedom, truth):
    for law, one in (
        (stats.norm(location, scale), Parametric(*np.array([[[location]], [[scale]]]))),
        (
            stats.t(freedom, location, scale),
            Parametric(*np.array([[[location]], [[scale]], [[freedom]]])),
        ),
    ):
        below = integrate.quad(lambda x, f=law.cdf: f(x) ** 2, -np.inf, truth)[0]
        above = integrate.quad(lambda x, f=law.sf: f(x) ** 2, truth, np.inf)[0]
        found = one.crps(np.array([[truth]]))[0, 0]
        assert found == pytest.approx(below + above, rel=1e-3, abs=1e-5)
        assert one.cdf(np.array([[truth]]))[0, 0] == pytest.approx(law.cdf(truth), abs=1e-7)


def test_infinite_freedom_is_gaussian():
    z = np.array([[-2.0, 0.1, 3.0]])
    one, other = (
        Parametric(0 * z, 1 + 0 * z),
        Parametric(0 * z, 1 + 0 * z, np.full(z.shape, np.inf)),
    )
    np.testing.assert_array_equal(one.crps(z), other.crps(z))
    np.testing.assert_array_equal(one.cdf(z), other.cdf(z))
    np.testing.assert_array_equal(one.quantiles(LEVELS), other.quantiles(LEVELS))


def test_crps_of_quantiles_nears_the_integral():
    exact = Parametric(np.zeros((3, 1)), np.ones((3, 1)))
    levels = np.arange(1, 100) / 100
    dense = Empirical(levels, exact.quantiles(levels))
    truth = np.array([[-1.0], [0.1], [2.0]])
    np.testing.assert_allclose(dense.crps(truth), exact.crps(truth), rtol=0.01)
    np.testing.assert_allclose(dense.cdf(truth), exact.cdf(truth), atol=0.011)
    sample = np.random.default_rng(0).standard_normal((3, 4000, 1))
    np.testing.assert_allclose(
        Empirical.from_paths(sample).crps(truth), exact.crps(truth), rtol=0.06
    )
    assert pinball(truth, exact.quantiles([0.5]), [0.5]) == pytest.approx(np.abs(truth) / 2)


def test_diebold_mariano_is_a_regression_on_a_constant():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(300), rng.random(300) + 0.05
    found = metrics.diebold_mariano(ours, theirs, np.arange(300), 1)
    fit = sm.OLS(ours - theirs, np.ones(300)).fit(
        cov_type="HAC", cov_kwds={"maxlags": math.floor(4 * 3 ** (2 / 9))}
    )
    assert found.value == pytest.approx(fit.params[0])
    factor = math.sqrt(300 / 299)
    assert found.error == pytest.approx(fit.bse[0] * factor, rel=1e-6)
    # Windows of one moment move together: a copy of each is no more evidence.
    both = (np.tile(array, 2) for array in (ours, theirs, np.arange(300)))
    twice = metrics.diebold_mariano(*both, 1)
    assert twice.error == pytest.approx(found.error)


def test_a_mean_has_its_interval_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        low, high = metrics.mean_over_time(rng.standard_normal(150), np.arange(150)).interval()
        hits += low <= 0 <= high
    assert 0.91 < hits / 400 < 0.98


# --- baselines -------------------------------------------------------------------------------


def simulated_garch(steps: int, omega=0.05, alpha=0.1, beta=0.85, seed=0):
    rng = np.random.default_rng(seed)
    variance, returns = omega / (1 - alpha - beta), np.zeros(steps)
    variances = np.zeros(steps + 1)
    for t in range(steps):
        variances[t] = variance
        returns[t] = math.sqrt(variance) * rng.standard_normal()
        variance = omega + alpha * returns[t] ** 2 + beta * variance
    variances[steps] = variance
    return 0.01 * returns, 1e-4 * variances


def test_garch_recovers_the_variance_it_was_made_from():
    returns, variances = simulated_garch(5000)
    levels = np.concatenate([[0.0], np.cumsum(returns)])
    origins = np.arange(4000, 5000)
    scale = baselines.garch("normal")(levels, 4000, origins, 5).scale
    true = np.sqrt(variances[origins])  # of the change after the origin
    assert np.mean(np.abs(scale[:, 0] / true - 1)) < 0.05
    ewma = baselines.ewma_volatility(levels, 4000, origins, 5).scale
    assert np.mean(np.abs(ewma[:, 0] / true - 1)) > np.mean(np.abs(scale[:, 0] / true - 1))


@pytest.mark.parametrize("law", ["normal", "t"])
def test_garch_filters_as_arch_does(law):
    from arch import arch_model

    returns, _ = simulated_garch(800)
    returns *= np.random.default_rng(1).choice([0.7, 1.6], 800)  # heavier tails
    levels = np.concatenate([[0.0], np.cumsum(returns)])
    found = baselines.garch(law)(levels, len(levels), np.array([len(levels) - 1]), 3)
    unit = returns.std()
    fitted = arch_model(returns / unit, dist=law, rescale=False).fit(disp="off")
    variance = np.cumsum(fitted.forecast(horizon=3).variance.to_numpy()[-1])
    if law == "t":
        assert found.freedom == pytest.approx(fitted.params["nu"], rel=1e-3)
        variance *= 1 - 2 / found.freedom
    np.testing.assert_allclose(found.scale[0], unit * np.sqrt(variance), rtol=1e-3)


def test_the_plain_rules():
    levels = np.array([1.0, 4.0, 2.0, 5.0, 3.0, 7.0])
    at = np.array([4])
    np.testing.assert_allclose(baselines.drift(levels, 5, at, 2)[0], [[0.5, 1.0]])
    np.testing.assert_allclose(baselines.seasonal(2)(levels, 5, at, 3)[0], [[2.0, 0.0, 2.0]])
    np.testing.assert_allclose(baselines.moving_average(2)(levels, 5, at, 2)[0], [[1.0, 1.0]])
    np.testing.assert_allclose(baselines.last_value(levels, 5, at, 2)[0], [[0.0, 0.0]])


@pytest.mark.parametrize("values", ["constant", "trend", "few"])
def test_baselines_bear_odd_series(values):
    made = {
        "constant": np.full(120, 7.0), "trend": 10 + np.arange(120.0), "few": prices(40)
    }[values]  # fmt: skip
    settings = small(data={"values": "differences"}, evaluation={"lags": 5})
    train, validation, test = parts(series(made), len(made) - 20, len(made) - 10)
    for name, found in baselines.forecasts(settings, train, validation, test).items():
        assert np.isfinite(found.location).all(), name
        assert (found.scale > 0).all(), name
        if values == "trend" and name in ("drift", "linear"):
            np.testing.assert_allclose(found.location, [[1, 2, 3]] * 8, rtol=0.02)


def test_no_baseline_sees_the_future():
    settings = small(evaluation={"lags": 5})
    values = prices(400)
    for poison in (np.nan, 1e6):
        spoiled = values.copy()
        spoiled[380:] = poison if math.isnan(poison) else poison * np.arange(1, 21)
        one, other = (
            baselines.forecasts(settings, *parts(series(v), 300, 350)) for v in (values, spoiled)
        )
        known = 380 - 350 + 1  # origins 349 … 379
        for name in one:
            for kind in ("location", "scale"):
                a, b = (getattr(found[name], kind)[:known] for found in (one, other))
                np.testing.assert_array_equal(a, b, err_msg=name)


# --- the model -------------------------------------------------------------------------------


def built(settings: ForecastingConfig, values=None, edges=(300, 350)):
    made = prices(400) if values is None else values
    train, validation, test = parts(series(made), *edges)
    scales = Scales.fit(settings, train, validation)
    return models.build(settings, scales.arrays, seed=1), scales, (train, validation, test)


def asked(settings, scales, some, **more):
    windows = Windows.from_slices(
        some, settings, scales, origins=1, stride=1, horizon=settings.model.horizon, whole=True
    )
    return windows, *windows.batch(np.arange(len(windows)), scales)


def test_untrained_it_is_the_ewma_volatility():
    half_life = math.log(0.5) / math.log(0.94)
    settings = small(model={"head": "gaussian", "half_lives": [half_life], "history": 200})
    model, scales, (train, validation, test) = built(settings)
    _, inputs, _ = asked(settings, scales, test)
    found = backtest.to_predictive(model(inputs), settings)
    rule = baselines.forecasts(settings, train, validation, test)["ewma_volatility"]
    np.testing.assert_allclose(found.location, 0, atol=1e-9)
    # The filters begin elsewhere; 200 steps later it does not matter.
    np.testing.assert_allclose(found.scale[:, 0], rule.scale[:, 0], rtol=1e-3)


def test_untrained_the_linear_path_is_the_ridge():
    settings = small(
        model={"linear": 15, "history": 16, "head": "gaussian"},
        data={"values": "differences"}, evaluation={"lags": 15},
    )  # fmt: skip
    model, scales, (train, validation, test) = built(settings)
    _, inputs, _ = asked(settings, scales, test)
    found = backtest.to_predictive(model(inputs), settings)
    rule = baselines.forecasts(settings, train, validation, test)["linear"]
    np.testing.assert_allclose(found.location, rule.location, rtol=1e-3, atol=1e-4)


def test_untrained_levels_are_those_of_training():
    settings = small(data={"values": "levels"}, model={"head": "gaussian"})
    values = prices(400)
    model, scales, (_, _, test) = built(settings, values)
    windows, inputs, _ = asked(settings, scales, test)
    found = backtest.to_predictive(model(inputs), settings)
    last = inputs["history"][:, -1, 0]
    mean = np.full((len(windows), 3), values[:300].mean())
    np.testing.assert_allclose(found.location + last[:, None], mean, rtol=1e-4)
    np.testing.assert_allclose(found.scale, values[:300].std(), rtol=1e-4)


def test_an_unknown_series_is_measured_by_the_mean_of_all():
    settings = small(model={"scale": "training", "head": "gaussian"})
    model, scales, (_, _, test) = built(settings)
    _, inputs, _ = asked(settings, scales, test)
    unknown = {**inputs, "series": np.zeros_like(inputs["series"])}
    np.testing.assert_allclose(model(unknown)[..., 1], model(inputs)[..., 1], rtol=1e-5)


@pytest.mark.parametrize("decode", ["direct", "autoregressive"])
@pytest.mark.parametrize("head", HEADS)
def test_the_loss_at_the_start_is_that_of_knowing_the_scale(decode, head):
    settings = small(model={"decode": decode, "head": head})
    model, scales, (train, validation, _) = built(settings)
    feed = WindowFeed(settings, scales, train, validation)
    inputs, targets = next(iter(feed.train(0)))
    loss = float(ForecastLoss(head, settings.model.quantiles)(targets, model(inputs)))
    # The entropy of a Gaussian of variance one, or its CRPS.
    expected = 2 * 0.234 if head == "quantiles" else 0.5 * math.log(2 * math.pi * math.e)
    assert loss == pytest.approx(expected, rel=0.15)


def test_targets_that_are_not_there_count_for_nothing():
    rng = np.random.default_rng(0)
    outputs = rng.random((2, 4, 3, 4)).astype(np.float32) + 0.5
    targets = rng.random((2, 4, 3)).astype(np.float32)
    loss = ForecastLoss("gaussian", LEVELS)
    cut = targets.copy()
    cut[:, 2:] = np.nan
    assert float(loss(cut, outputs)) == pytest.approx(float(loss(targets[:, :2], outputs[:, :2])))
    assert float(loss(np.full_like(targets, np.nan), outputs)) == 0


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru", "feedforward"])
def test_padding_and_company_change_nothing(cell):
    settings = small(model={"cell": cell, "embedding": 2, "linear": 5, "level": True})
    model, scales, (_, _, test) = built(settings)
    for w in model.trainable_weights:
        w.assign(w + 0.1 * np.random.default_rng(0).standard_normal(w.shape))
    _, inputs, _ = asked(settings, scales, test)
    whole = np.asarray(model(inputs))
    padded = {**inputs, "history": np.pad(inputs["history"], [(0, 0), (0, 7), (0, 0)], "edge")}
    np.testing.assert_allclose(model(padded), whole, rtol=1e-4, atol=1e-6)
    one = {name: value[3:4] for name, value in inputs.items()}
    np.testing.assert_allclose(np.asarray(model(one))[0], whole[3], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decode", ["direct", "autoregressive"])
@pytest.mark.parametrize("poison", [math.nan, 1e6])
def test_no_forecast_sees_the_future(decode, poison):
    """Neither in training windows, with many origins, nor walking forward."""
    settings = small(
        model={"decode": decode, "linear": 5, "calendar": ["weekday"], "level": True},
        train={"origins": 10},
    )
    values = prices(400)
    model, scales, _ = built(settings, values)
    for w in model.trainable_weights:
        w.assign(w + 0.1 * np.random.default_rng(0).standard_normal(w.shape))
    spoiled = values.copy()
    spoiled[370:] = poison if math.isnan(poison) else poison * np.arange(1, 31)
    steps = 3 if decode == "direct" else 1
    # Steps behind an origin of many have no weight, which nothing but a number can have.
    for origins in (1,) if math.isnan(poison) else (1, 10):
        answers = []
        for made in (values, spoiled):
            test = parts(series(made), 300, 350)[2]
            windows = Windows.from_slices(
                test, settings, scales, origins=origins, stride=origins, horizon=steps
            )
            inputs, _ = windows.batch(np.arange(len(windows)), scales)
            at = windows.starts[:, None] + inputs["origins"]
            answers.append(np.asarray(model(inputs))[at < 370])
        assert np.isfinite(answers[0]).all()
        np.testing.assert_array_equal(answers[0], answers[1])


def test_scaling_round_trips():
    """Raw numbers in, raw numbers out: prices in cents are forecast as prices in dollars are."""
    settings = small(model={"linear": 5})
    values = prices(400)
    for factor in (1.0, 100.0):
        model, scales, (_, _, test) = built(settings, factor * values)
        server = ForecastServing(settings, scales, model)
        windows, inputs, _ = asked(settings, scales, test)
        given = {name: inputs[name] for name in ("history", "lengths")}
        given["series"] = tf.constant(["A"] * len(windows))
        answer = server.forecast(given)["quantiles"].numpy()
        if factor == 1.0:
            first = answer
    np.testing.assert_allclose(answer, 100 * first, rtol=2e-4)
    assert (np.diff(first, axis=-1) > 0).all()


def test_a_path_is_fed_back():
    """With no noise each next value is what the model, asked again, gives."""
    model = {"decode": "autoregressive", "head": "gaussian", "linear": 5}
    settings = small(model=model | {"history": 25, "horizon": 4})
    model, scales, (_, _, test) = built(settings)
    for w in model.trainable_weights:
        w.assign(w + 0.2 * np.random.default_rng(0).standard_normal(w.shape))
    windows, inputs, _ = asked(settings, scales, test)
    # cos(2π/4) = 0: the draw is the median.
    still = np.full((len(windows), 2, 4, 2), 0.25, np.float32)
    _, changes = sample_paths(model, inputs, still)
    first = np.asarray(model(inputs))[:, 0, 0]
    step = first[:, 0] + first[:, 1] * first[:, 2]
    np.testing.assert_allclose(np.asarray(changes)[:, 0, 0], step, rtol=1e-4, atol=1e-6)
    last = inputs["history"][:, -1, 0]
    longer = np.concatenate([inputs["history"], (last * np.exp(step))[:, None, None]], axis=1)
    more = {name: inputs[name] + 1 for name in ("lengths", "origins")}
    more |= {"history": longer.astype(np.float32), "series": inputs["series"]}
    second = np.asarray(model(more))[:, 0, 0]
    expected = step + second[:, 0] + second[:, 1] * second[:, 2]
    np.testing.assert_allclose(np.asarray(changes)[:, 0, 1], expected, rtol=2e-3, atol=2e-5)


def test_a_saved_model_answers_the_same(tmp_path):
    settings = small(model={"calendar": ["hour"], "linear": 5, "embedding": 2})
    model, scales, (_, _, test) = built(settings)
    _, inputs, _ = asked(settings, scales, test)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(model(inputs), again(inputs))


def trained(settings: ForecastingConfig, values, edges, folder, epochs: int = 12):
    from pipelines.engine.core.console import Console
    from pipelines.engine.training import loop

    model, scales, (train, validation, test) = built(settings, values, edges)
    loop.fit(
        model,
        WindowFeed(settings, scales, train, validation),
        task.TASK.objective(settings),
        settings.train.model_copy(update={"epochs": epochs}),
        folder=folder,
        console=Console(),
    )
    _, inputs, targets = asked(settings, scales, test)
    return backtest.to_predictive(model.predict_on_batch(inputs), settings), targets[:, 0]


def test_it_recovers_an_autoregression(tmp_path):
    """y_t = φ y_{t−1} + ε: the mean moves back by φ − 1, and the deviation is that of ε."""
    rng, phi = np.random.default_rng(0), 0.6
    values = np.zeros(3000)
    for t in range(1, len(values)):
        values[t] = phi * values[t - 1] + rng.standard_normal()
    settings = small(
        data={"values": "differences"},
        model={"head": "gaussian", "scale": "training", "level": True, "units": [8], "horizon": 1},
        train={"learning_rate": 0.01, "batch_size": 8, "patience": None},
    )
    found, truth = trained(settings, values, (2200, 2400), tmp_path)
    before = values[np.arange(2399, 2999)]
    slope = np.polyfit(before, found.location[:, 0], 1)[0]
    assert slope == pytest.approx(phi - 1, abs=0.1)
    assert found.scale.mean() == pytest.approx(1.0, abs=0.08)
    inside = np.abs(truth - found.location) < 1.2816 * found.scale
    assert inside.mean() == pytest.approx(0.8, abs=0.05)


def test_it_recovers_a_volatility(tmp_path):
    """Of a GARCH it says how volatile the next step is, better than a constant does."""
    returns, variances = simulated_garch(4000, alpha=0.2, beta=0.75)
    values = 100 * np.exp(np.cumsum(returns))
    settings = small(
        model={"head": "gaussian", "units": [8], "horizon": 1, "history": 40},
        train={"learning_rate": 0.01, "batch_size": 8, "patience": None},
    )
    found, truth = trained(settings, values, (3000, 3400), tmp_path)
    true = np.sqrt(variances[np.arange(3400, 4000)])
    assert np.mean(np.abs(found.scale[:, 0] / true - 1)) < 0.12
    inside = np.abs(truth - found.location) < 1.2816 * found.scale
    assert inside.mean() == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(
    ("head", "values"), [("quantiles", np.full(120, 5.0)), ("student_t", 5.0 + np.arange(120))]
)
def test_a_constant_series_and_a_line_stay_what_they_are(tmp_path, head, values):
    settings = small(
        data={"values": "differences"}, model={"head": head, "linear": 5, "scale": "training"}
    )
    found, truth = trained(settings, values, (80, 100), tmp_path, epochs=1)
    assert np.isfinite(found.median()).all()
    np.testing.assert_allclose(found.median(), truth, atol=0.15)


# --- the rest --------------------------------------------------------------------------------


def test_the_verdict_says_who_won():
    rng = np.random.default_rng(0)
    n = 400
    deviation = np.where(np.arange(n) % 2, 1.0, 3.0)
    changes = (rng.standard_normal(n) * deviation)[:, None]
    truth = backtest.Truth(
        changes, np.full(n, 10.0), np.arange(n), np.zeros(n, int), ["A"], np.ones(n), np.ones(n),
        logs=False,
    )  # fmt: skip
    zero = np.zeros_like(changes)
    naive = Parametric(zero, np.full_like(changes, 2.0))
    right = Parametric(zero, deviation[:, None])
    names = ["last_value", "drift", "seasonal_naive", "moving_average", "linear", "ewma_volatility"]

    def judged(model, others):
        everyone = dict.fromkeys([*names, "garch"], others)
        return evaluation.evaluate(small(model={"horizon": 1}), truth, model, everyone)

    found = judged(right, naive)
    assert "beats garch" in found.verdict[0]
    assert found.scores["crps_next_to_ewma"] < 1
    assert found.scores["relative_mae"] == 1
    assert found.scores["coverage_80"] == pytest.approx(0.8, abs=0.05)
    assert found.scores["crps_next"] == pytest.approx(np.mean(right.crps(changes)))
    assert "loses to garch" in judged(naive, right).verdict[0]
    assert "cannot be told from garch" in judged(naive, naive).verdict[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.quantiles=[0.1, 0.9]"], "include 0.5"),
        (["model.decode=autoregressive", "data.columns={volume: levels}"], "feeds its own output"),
        (["model.scale=ewma", "model.half_lives=[]"], "needs a half-life"),
        (["model.linear=5", "data.values=levels"], "predicts changes"),
        (["data.values=returns"], "log_returns"),
    ],
)
def test_configs_that_make_no_sense(tmp_path, settings, message):
    file = tmp_path / "c.yaml"
    file.write_text("name: c\ndata: {source: prices.csv}\n")
    with pytest.raises(UserError, match=message):
        load_config(file, ForecastingConfig, settings)


def test_levels_of_prices_are_logarithms():
    one = series([1.0, math.e])
    np.testing.assert_allclose(levels_of(one, "log_returns"), [0, 1])
    np.testing.assert_allclose(levels_of(one, "differences"), [1, math.e])
