"""Reading of series, and splitting by time."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from pipelines.engine.core.errors import UserError
from pipelines.forecasting import (
    dates,
    records,
)
from tests.support.forecasting import (
    DAY,
    config,
    daily,
    write,
)


def read(source: str, **data):
    report: dict = {}
    found = records.read_series(config(source, {"min_steps": 3, **data}).data, source, report)
    return found, report


def test_rows_are_ordered_and_repeated_ones_dropped(tmp_path):
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
def test_unusable_rows_are_counted_with_their_lines(tmp_path, cell, reason):
    source = write(tmp_path, "\n".join(["date,close", *daily([1, 2, 3, 4]), cell]))
    (one,), report = read(source, max_bad_rows=0.5)
    assert report[source]["unusable"] == {reason: 1}
    assert report[source]["first_unusable"] == [f"prices.csv:6: {reason}"]
    assert len(one) == 4
    with pytest.raises(UserError, match=r"prices\.csv:6: "):
        read(source)


@pytest.mark.parametrize("name", [None, float("nan"), float("inf"), "nan", "NaT", "", " "])
def test_a_series_without_a_name_is_no_series(tmp_path, name):
    rows = [{"date": f"2020-01-0{i}", "close": i, "ticker": "A"} for i in range(1, 6)]
    rows.append({"date": "2020-01-06", "close": 6, "ticker": name})
    file = tmp_path / "prices.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (one,), report = read(str(file), series="ticker", max_bad_rows=0.5)
    assert (one.name, len(one)) == ("A", 5)
    assert sum(report[str(file)]["unusable"].values()) == 1
    assert report[str(file)]["first_unusable"][0].startswith("prices.jsonl:6: ")


def test_series_are_divided_at_gaps_and_short_ones_left_out(tmp_path):
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


def test_each_column_of_a_wide_table_is_a_series(tmp_path):
    rows = [f"2020-01-0{i},{i},{'' if i == 2 else 10 * i}" for i in range(1, 7)]
    source = write(tmp_path, "\n".join(["day,X,Y", *rows]))
    found, report = read(source, date="day", target=["X", "Y"])
    assert [(s.name, s.values[:, 0].tolist()) for s in found] == [
        ("X", [1, 2, 3, 4, 5, 6]),
        ("Y", [10, 30, 40, 50, 60]),
    ]
    assert report["steps"]["missing"] == 1


def test_parquet_is_read_like_csv(tmp_path):
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


def test_stock_splits_are_reported(tmp_path):
    source = write(tmp_path, "\n".join(["date,close", *daily([100, 101, 50.4, 51])]))
    _, report = read(source)
    assert "101 to 50.4 on 2020-01-03" in report["notes"][0]
    assert "adjusted" in report["notes"][0]


def test_dates_in_another_format(tmp_path):
    source = write(tmp_path, "date,close\n1/4/1999,1\n1/5/1999,2\n12/31/1999,3\n")
    (one,), _ = read(source, date_format="%m/%d/%Y", max_gap=1000)
    assert dates.isoformat(one.times, one.zone) == [
        "1999-01-04T00:00:00", "1999-01-05T00:00:00", "1999-12-31T00:00:00",
    ]  # fmt: skip


def test_all_series_are_split_at_the_same_dates(tmp_path):
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


def test_too_short_data_is_reported_in_one_line(tmp_path):
    source = write(tmp_path, "date,close\n2020-01-01,3\n")
    with pytest.raises(UserError, match=r"no series has data\.min_steps \(30\) steps or more"):
        records.load(config(source))
