"""The page: a tab for each task, which predicts with the latest finished run."""

from __future__ import annotations

import functools
import os

# Before gradio is imported: the page must not contact other machines.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from pipelines.demo import captioning, forecasting, generation, models, sentiment, translation
from pipelines.engine.core.errors import UserError

#: Functions that add the contents of the tabs, by task.
_TABS = {
    "sentiment": sentiment.add_tab,
    "translation": translation.add_tab,
    "captioning": captioning.add_tab,
    "forecasting": forecasting.add_tab,
    "generation": generation.add_tab,
}
#: Local fonts, so that none is downloaded.
_FONTS = ["system-ui", "sans-serif"]


def build() -> gr.Blocks:
    """Build the page."""
    with gr.Blocks(title="Unfold") as page:
        gr.Markdown("# Unfold\nRecurrent networks, trained on this machine.")
        for task, add_tab in _TABS.items():
            with gr.Tab(task.capitalize(), id=task):
                source = gr.Markdown(elem_id=f"model-{task}")
                add_tab()
            describe = functools.partial(describe_model, task)
            page.load(describe, None, source, api_visibility="private")
    return page


def launch(host: str, port: int) -> None:
    """Serve the page until the process receives SIGINT or SIGTERM."""
    build().launch(
        server_name=host,
        server_port=port,
        theme=gr.themes.Default(font=_FONTS, font_mono=["monospace"]),
        footer_links=[],
        share=False,
        quiet=True,
    )


def describe_model(task: str) -> str:
    """Return which run a tab predicts with, or how to train one, as Markdown."""
    try:
        run = models.latest_run(task)
    except UserError as error:
        return f"**Not trained yet:** {error}"
    return f"Run `{run.id}`."
