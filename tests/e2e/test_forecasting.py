"""Forecasting as a user runs it: real processes, real files, a SavedModel that stands alone."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.support.alone import stands_alone
from tests.support.commands import (
    interrupt,
    ok,
    resume_and_compare,
    unfold,
)
from tests.support.prices import fresh, small


@pytest.fixture(scope="module")
def source(trained_once) -> str:
    return trained_once("forecasting").source


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> list[str]:
    return ["--config", str(fresh(tmp_path_factory.mktemp("config")))]


@pytest.fixture(scope="module")
def trained(trained_once) -> tuple[Path, dict]:
    """A home with one finished run, and what ``train --json`` printed."""
    found = trained_once("forecasting")
    assert "prices.csv:1042: 'close' is not a number" in found.messages
    return found.home, found.result


def test_it_is_scored_beside_every_baseline(trained):
    scores, folder = trained[1]["scores"], Path(trained[1]["folder"])
    assert 0.7 < scores["coverage_80_next"] < 0.9
    assert 0.8 < scores["crps_next_to_ewma"] < 1.1
    assert 0.95 < scores["relative_mae"] < 1.05
    for name in ("fan", "coverage", "baselines", "pit", "walk_forward", "explained_1"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 0, name
    with (folder / "tables" / "baselines.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["forecast"]: row for row in csv.DictReader(file)}
    assert set(rows) == {
        "model", "last_value", "drift", "seasonal_naive", "moving_average", "linear",
        "ewma_volatility", "garch", "garch_student_t",
    }  # fmt: skip
    assert float(rows["model"]["crps_next"]) == pytest.approx(scores["crps_next"])
    verdict = json.loads((folder / "run.json").read_text())["verdict"]
    assert any("garch" in line for line in verdict)
    with (folder / "tables" / "by_horizon.csv").open(newline="", encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_it_predicts_the_next_days_of_a_file(trained, source, tmp_path):
    home, picture = trained[0], tmp_path / "fan.png"
    answer = ok(unfold(home, "predict", "forecasting", "--chart", str(picture), "--json", source))
    first, second = answer["series"]
    assert (first["series"], second["series"]) == ("AAA", "BBB")
    # The data end on a Friday.
    days = ("2019-12-30", "2019-12-31", "2020-01-01")
    assert first["dates"] == [f"{day}T00:00:00" for day in days]
    last = first["history"]["values"][-1]
    low, middle, high = (first["quantiles"][q][0] for q in ("0.1", "0.5", "0.9"))
    assert low < last < high
    assert middle == pytest.approx(last, rel=0.02)
    assert picture.read_bytes().startswith(b"\x89PNG")
    shown = unfold(home, "predict", "forecasting", source)
    assert shown.returncode == 0
    assert "2019-12-30" in shown.stdout


def test_a_file_with_one_row_and_an_unknown_series(trained, tmp_path):
    file = tmp_path / "new.csv"
    file.write_text("day,symbol,price,high,low\n2024-05-31,NEW,50,51,49\n")
    columns = ["data.date=day", "data.series=symbol", "data.target=price"]
    choose = [argument for pair in columns for argument in ("--set", pair)]
    answer = ok(unfold(trained[0], "predict", "forecasting", "--json", *choose, str(file)))
    (one,) = answer["series"]
    low, high = one["quantiles"]["0.1"][0], one["quantiles"]["0.9"][0]
    assert 40 < low < 50 < high < 60


def test_the_export_stands_alone(trained, tmp_path):
    """In a process that has only TensorFlow, from another place, with nothing else there."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(Path(trained[1]["folder"]) / "savedmodel", moved)
    code = """
import json
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
serve = model.signatures["serving_default"]
about = model.signatures["about"]()
rng = np.random.default_rng(0)
close = 30 * np.exp(np.cumsum(0.01 * rng.standard_normal([3, 40]), axis=1))
history = np.stack([close, close * 1.01, close * 0.99], axis=-1).astype(np.float32)
time = np.tile(np.arange(40) * 86400, (3, 1))
def ask(rows, lengths, steps):
    return serve(
        history=tf.constant(history[rows, :steps]), lengths=tf.constant(lengths),
        series=tf.constant([["AAA", "?", ""][row] for row in rows]),
        time=tf.constant(time[rows, :steps]), future=tf.constant(time[rows, :3] + 40 * 86400),
    )["quantiles"].numpy()
together = ask([0, 1, 2], [40, 25, 0], 40)
alone = ask([1], [25], 30)
columns = [name.decode() for name in about["columns"].numpy()]
print(json.dumps([together.tolist(), alone.tolist(), columns]))
"""
    banned = ["keras", "mlflow", "pandas", "arch"]
    together, alone, columns = stands_alone(code, str(moved), folder=tmp_path, banned=banned)
    assert np.shape(together) == (3, 3, 7)
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-4)
    assert (np.diff(together, axis=-1) > 0).all()
    assert columns == ["close", "high", "low"]


def test_interrupted_equals_uninterrupted(trained, source, base, tmp_path):
    interrupt(tmp_path, "forecasting", [*base, *small(source)], signal.SIGTERM)
    resume_and_compare(tmp_path, "forecasting", trained[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.target=clse"], "no column 'clse' (did you mean close?)"),
        (["data.max_bad_rows=0"], "prices.csv:1042: 'close' is not a number"),
        (["data.test=2030-01-01"], "the test split has 0 steps"),
        (["model.head=normal"], "gaussian"),
    ],
)
def test_a_mistake_is_one_line(source, base, tmp_path, settings, message):
    done = unfold(tmp_path, "train", "forecasting", *base, *small(source, *settings))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/forecasting/2*"))


def test_a_file_that_is_not_there_is_one_line(trained):
    done = unfold(trained[0], "predict", "forecasting", "nowhere.csv")
    assert done.returncode == 2
    assert "nowhere.csv: no such file" in done.stderr
    assert "Traceback" not in done.stderr
