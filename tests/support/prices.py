"""A small table of prices, and the settings of a model that learns it in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

#: A model that a test trains in seconds.
SMALL = [
    "data.series=ticker", "data.ratios={high: low}", "model.history=20", "model.horizon=3",
    "model.units=[8]", "model.embedding=2", "model.calendar=[weekday]", "train.epochs=4",
    "train.batch_size=4", "train.patience=null", "train.learning_rate=0.01",
]  # fmt: skip


def small(source: str, *more: str) -> list[str]:
    pairs = [f"data.source={source}", "data.date=date", "data.target=close", *SMALL, *more]
    return [argument for pair in pairs for argument in ("--set", pair)]


def fresh(tmp_path: Path) -> Path:
    """A config without the keys of the default one."""
    file = tmp_path / "small.yaml"
    file.write_text("name: small\ndata: {source: none}\n")
    return file


def write_prices(folder: Path) -> str:
    """Two stocks whose volatility comes in waves, on the weekdays of two years."""
    rng = np.random.default_rng(0)
    dates = np.busday_offset("2018-01-01", np.arange(520))
    lines = ["date,ticker,close,high,low"]
    for name, level in (("AAA", 100.0), ("BBB", 20.0)):
        calm = 0.01 * np.exp(np.sin(np.arange(520) / 30))
        close = level * np.exp(np.cumsum(rng.standard_normal(520) * calm))
        for day, price, wide in zip(dates, close, calm, strict=True):
            high, low = price * (1 + wide), price * (1 - wide)
            lines.append(f"{day},{name},{price:.4f},{high:.4f},{low:.4f}")
    path = folder / "prices.csv"
    path.write_text("\n".join([*lines, "2019-12-30,AAA,n.a.,1,1", ""]))
    return str(path)
