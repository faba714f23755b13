"""The captioning tab: writes captions for a picture."""

from __future__ import annotations

import gradio as gr

from pipelines.demo.models import errors_on_page, find_model

#: Number of captions shown, the likeliest first.
_CAPTIONS = 3


def add_tab(name: gr.Dropdown) -> None:
    """Add the contents of the tab.

    Args:
        name: The name of the model that answers.
    """
    picture = gr.Image(label="Picture", type="filepath", sources=["upload"], elem_id="picture")
    captions = gr.Textbox(label="Captions", lines=2, elem_id="caption", interactive=False)
    picture.change(caption, [picture, name], captions, api_visibility="private")


@errors_on_page()
def caption(path: str | None, name: str) -> str:
    """Return a model's captions of the picture in a file, one per line; none without a file."""
    if path is None:
        return ""
    ranked = find_model("captioning", name).predict(path).json["n_best"]
    return "\n".join(candidate["caption"] for candidate in ranked[:_CAPTIONS])
