"""The forecasting tab: forecasts the series of a file."""

from __future__ import annotations

from typing import Any

import gradio as gr

from pipelines.demo.models import errors_on_page, find_model
from pipelines.engine.config.schema import as_list
from pipelines.forecasting.plots import chart


def add_tab(name: gr.Dropdown) -> None:
    """Add the contents of the tab.

    Args:
        name: The name of the model that answers.
    """
    file = gr.File(label="CSV or Parquet file with dates and numbers", elem_id="series")
    button = gr.Button("Forecast the training data", variant="primary", elem_id="sample")
    fan_chart = gr.Plot(label="Forecast", elem_id="fan")
    file.upload(forecast, [file, name], fan_chart, api_visibility="private")
    button.click(lambda name: forecast(None, name), name, fan_chart, api_visibility="private")


@errors_on_page()
def forecast(path: str | None, name: str) -> Any:
    """Return a fan chart of the series in a file; None is the data the model was trained on."""
    model = find_model("forecasting", name)
    source = path or as_list(model.config.data.source)[0]
    return chart(model.predict(source).json["series"])
