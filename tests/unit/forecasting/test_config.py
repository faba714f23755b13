"""Contradictory configs."""

from __future__ import annotations

import pytest

from pipelines.engine.config.loader import load as load_config
from pipelines.engine.core.errors import UserError
from pipelines.forecasting.config import ForecastingConfig


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
def test_contradictory_configs_are_rejected(tmp_path, settings, message):
    file = tmp_path / "c.yaml"
    file.write_text("name: c\ndata: {source: prices.csv}\n")
    with pytest.raises(UserError, match=message):
        load_config(file, ForecastingConfig, settings)
