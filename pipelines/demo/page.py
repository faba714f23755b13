"""The page: a tab for each task, which predicts with the latest finished run of a model."""

from __future__ import annotations

import functools
import os

# Before gradio is imported: the page must not contact other machines.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from pipelines.demo import captioning, forecasting, generation, models, sentiment, translation
from pipelines.engine.core.errors import UserError
from pipelines.engine.runs.origin import Origin
from pipelines.engine.runs.run import Run

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
                name = offer_models(task)
                source = gr.Markdown(elem_id=f"model-{task}")
                add_tab(name)
            offer = functools.partial(offer_models, task)
            describe = functools.partial(describe_model, task)
            loaded = page.load(offer, None, name, api_visibility="private")
            loaded.then(describe, name, source, api_visibility="private")
            name.change(describe, name, source, api_visibility="private")
    return page


def offer_models(task: str) -> gr.Dropdown:
    """Return the choice of a task's models, which is hidden where there is only one."""
    names = Run.models(task) or [task]
    return gr.Dropdown(
        names, value=names[0], label="Model", visible=len(names) > 1, elem_id=f"models-{task}"
    )


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


def describe_model(task: str, name: str | None = None) -> str:
    """Return which run a tab predicts with, or how to train one, as Markdown."""
    try:
        run = models.latest_run(task, name)
    except UserError as error:
        return f"**Not trained yet:** {error}"
    origin = Origin.of(run)
    parts = [f"Model `{origin.model}`, run `{run.id}`"]
    if origin.data is not None:
        parts.append(f"data `{origin.data}`")
    if origin.score is not None:
        parts.append(f"test {origin.metric.replace('_', ' ')} {origin.score:.4f}")
    return ", ".join(parts) + "."
