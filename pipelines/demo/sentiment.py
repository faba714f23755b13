"""The sentiment tab: classifies a review while it is typed."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

import gradio as gr
import numpy as np
import tensorflow as tf

from pipelines.demo.models import errors_on_page, find_model
from pipelines.engine.export.stateful import STATE
from pipelines.workflows.loaded_model import LoadedModel

#: Number of words shown; of a longer text, the last ones.
_MAX_WORDS = 300


@dataclass
class StreamedText:
    """A text read by a model that reads forwards.

    Attributes:
        model: The model.
        text: The text read so far.
        state: The model's state after it.
        words: The last words of the text, with the spaces between them.
        probabilities: Of the labels, after each of the words.
    """

    model: LoadedModel
    text: str
    state: dict[str, tf.Tensor]
    words: list[str]
    probabilities: list[np.ndarray]


def add_tab(name: gr.Dropdown) -> None:
    """Add the contents of the tab.

    Args:
        name: The name of the model that answers.
    """
    text = gr.Textbox(
        label="Write a review", lines=4, elem_id="review", placeholder="The first half is slow, …"
    )
    label = gr.Label(label="So far", elem_id="label")
    words = gr.HTML(elem_id="words")
    streamed = gr.State(None)
    gr.on(
        [text.change, name.change], classify, [text, streamed, name], [label, words, streamed],
        show_progress="hidden", trigger_mode="always_last", api_visibility="private",
    )  # fmt: skip


@errors_on_page()
def classify(
    text: str, streamed: StreamedText | None, name: str
) -> tuple[dict[str, float], str, StreamedText | None]:
    """Classify a text after each of its words.

    A model that reads forwards continues from where it was; any other reads every prefix.

    Args:
        text: The text.
        streamed: The text as read before the last change.
        name: The model's name.

    Returns:
        The probabilities of the labels, the highlighted words as HTML, and what was read.
    """
    model = find_model("sentiment", name)
    labels = [raw.decode() for raw in model.signatures["labels"]()["labels"].numpy()]
    if "step" in model.signatures:
        if streamed is None or streamed.model is not model or not text.startswith(streamed.text):
            streamed = StreamedText(model, "", dict(model.signatures["start"]()), [], [])
        streamed = _read(streamed, text[len(streamed.text) :])
        words, probabilities = streamed.words, streamed.probabilities
    else:
        streamed = None
        words, probabilities = _classify_prefixes(model, text)
    latest = dict(zip(labels, map(float, probabilities[-1]), strict=True)) if words else {}
    return latest, _highlight(words, probabilities, labels), streamed


def _read(before: StreamedText, new_text: str) -> StreamedText:
    """Read the text that follows."""
    state, words, probabilities = before.state, [*before.words], [*before.probabilities]
    for piece in re.findall(r"\S+|\s+", new_text):
        outputs = before.model.signatures["step"](text=tf.constant([piece]), **state)
        state = {name: t for name, t in outputs.items() if name.startswith(STATE)}
        found = outputs["probabilities"].numpy()[0]
        if piece.isspace() or not words or words[-1].endswith(" "):
            words.append(" " if piece.isspace() else piece)
            probabilities.append(found)
        else:  # the piece continues the last word
            words[-1], probabilities[-1] = words[-1] + piece, found
    # A word and the space after it are two entries.
    words, probabilities = words[-2 * _MAX_WORDS :], probabilities[-2 * _MAX_WORDS :]
    return StreamedText(before.model, before.text + new_text, state, words, probabilities)


def _classify_prefixes(model: LoadedModel, text: str) -> tuple[list[str], list[np.ndarray]]:
    """Return the last words of a text, and the probabilities for the text up to each."""
    words = re.findall(r"\s*\S+", text)[-_MAX_WORDS:]
    start = text[: len(text) - len("".join(words).strip())] if words else ""
    prefixes = [start + "".join(words[: i + 1]) for i in range(len(words))] or [""]
    serve = model.signatures["serving_default"]
    return words, list(serve(text=tf.constant(prefixes))["probabilities"].numpy())


def _highlight(words: list[str], probabilities: list[np.ndarray], labels: list[str]) -> str:
    """Return the words as HTML, each in the colour of its label; the surer, the stronger."""
    spans = []
    for word, p in zip(words, probabilities, strict=False):
        best = int(p.argmax())
        # 0 if all labels are equally likely, 1 if the label is certain.
        chance = 1 / max(len(labels), 2)
        confidence = (float(p[best]) - chance) / (1 - chance)
        hue = 10 + best * 130 / max(len(labels) - 1, 1)
        title = html.escape(f"{labels[best]} {p[best]:.0%}")
        spans.append(
            f'<span title="{title}" style="background: hsla({hue:.0f}, 80%, 50%, '
            f'{0.05 + 0.5 * confidence:.2f}); border-radius: 3px">{html.escape(word)}</span>'
        )
    return f'<p style="line-height: 1.9; white-space: pre-wrap">{"".join(spans)}</p>'
