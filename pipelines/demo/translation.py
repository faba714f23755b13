"""The translation tab: translates a text, and shows the decoder's attention."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

from pipelines.demo.models import errors_on_page, find_model
from pipelines.engine.core import plotting


def add_tab(name: gr.Dropdown) -> None:
    """Add the contents of the tab.

    Args:
        name: The name of the model that answers.
    """
    text = gr.Textbox(label="Text to translate", lines=2, elem_id="source")
    button = gr.Button("Translate", variant="primary", elem_id="translate")
    translation = gr.Textbox(label="Translation", elem_id="translation", interactive=False)
    attention = gr.Plot(label="Attention", elem_id="attention")
    for event in (button.click, text.submit):
        event(translate, [text, name], [translation, attention], api_visibility="private")


@errors_on_page()
def translate(text: str, name: str) -> tuple[str, Any]:
    """Return the translation, and a figure of the attention; None for a model without it."""
    found = find_model("translation", name).predict(text).json
    if "alignment" not in found or not found["output_tokens"]:
        return found["text"], None
    weights = np.asarray(found["alignment"])
    figure = plotting.attention_map(weights, found["input_tokens"], found["output_tokens"])
    return found["text"], figure
